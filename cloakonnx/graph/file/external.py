"""External tensor data: finds every reference, checks that it stays inside the model's folder, never loads it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.file._bytes import Stamp
from cloakonnx.remote import fetched


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every TensorProto of the model: initializers and attributes, in subgraphs, functions and training info."""
    graphs = [model.graph]
    for info in model.training_info:
        graphs += [info.initialization, info.algorithm]
    for graph in graphs:
        yield from _graph_tensors(graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    yield from attribute.tensors
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data is in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def external_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes a tensor has in another file; where it does not say, four an element."""
    if not is_external(tensor):
        return 0
    return int(reference(tensor).get("length") or 4 * math.prod(tensor.dims))


def reference(tensor: onnx.TensorProto) -> dict[str, str]:
    """Return the entries of an external tensor: location, offset, length, checksum."""
    return {_text(entry.key): _text(entry.value) for entry in tensor.external_data}


def _text(value: str | bytes) -> str:
    """Protobuf gives a string that is not UTF-8 as bytes; file names may be such."""
    return value if isinstance(value, str) else os.fsdecode(value)


def locations(model: onnx.ModelProto) -> list[str]:
    """Return the locations of the external data files, each once, in order of first use."""
    return list(dict.fromkeys(reference(t).get("location", "") for t in tensors(model) if is_external(t)))


def check_references(model: onnx.ModelProto, folder: Path, *, model_name: str) -> dict[Path, Stamp]:
    """Check that all external data lies in plain files inside ``folder`` and is as long as the model says.

    Returns:
        Each file, as it was when it was looked at.

    Raises:
        ModelError: an absolute path, a path with ``..``, a symbolic link, a missing file, or an extent past its end.
    """
    sizes: dict[str, int] = {}
    seen: dict[Path, Stamp] = {}
    for tensor in tensors(model):
        if not is_external(tensor):
            continue
        entries = reference(tensor)
        location = entries.get("location", "")
        if location not in sizes:
            path = _checked_path(location, folder, tensor.name, model_name)
            seen[path.absolute()] = stamp = Stamp.of(path)
            sizes[location] = stamp.size
        try:
            offset = _number(entries.get("offset", "0"))
            length = _number(entries.get("length", str(max(sizes[location] - offset, 0))))
        except ValueError:
            raise ModelError(
                f"{model_name}: tensor {tensor.name!r} has an external offset or length that is not a number"
            ) from None
        if offset < 0 or length < 0 or offset + length > sizes[location]:
            raise ModelError(
                f"{model_name}: tensor {tensor.name!r} needs bytes {offset} to {offset + length} of {location!r}, "
                f"which has {sizes[location]}: the data file is truncated or belongs to another model"
            )
    return seen


def _number(text: str) -> int:
    """Read ASCII digits, perhaps with a sign; raises ValueError for numbers that only Python reads."""
    if re.fullmatch(r"-?[0-9]+", text) is None:
        raise ValueError(text)
    return int(text)


def _checked_path(location: str, folder: Path, tensor: str, model_name: str) -> Path:
    where = f"{model_name}: external data {location!r} of tensor {tensor!r}"
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or posix.is_absolute() or windows.is_absolute() or windows.drive:
        raise ModelError(f"{where} is not a path relative to the model; move the file beside the model")
    if ".." in posix.parts or ".." in windows.parts:
        raise ModelError(f"{where} leaves the model's folder; move the file beside the model")
    path = folder
    for part in posix.parts:
        path = path / part
        if path.is_symlink():
            raise ModelError(f"{where} is a symbolic link ({path.name}); replace it by a copy of the file")
    if not fetched(path).is_file():
        raise ModelError(f"{where} is missing: no file {path}")
    return path
