"""What a tensor holds, wherever its data is: in the message, in the model's file, or in a file of external data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from cloakonnx.graph.file._bytes import FileBytes, blocks
from cloakonnx.graph.file.external import is_external, reference
from cloakonnx.graph.file.model import Model

PLACE = frozenset({"external_data", "data_location", "raw_data"})
"""Fields of a tensor that say where its data is."""

TYPED = frozenset({"float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"})
"""Fields that hold values one by one, which external data never does."""


def is_elsewhere(model: Model, tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data is in a file of external data, and not in the model's own file."""
    return is_external(tensor) and model.own_data(tensor) is None


def raw_content(model: Model, tensor: onnx.TensorProto) -> Iterator[bytes]:
    """Yield a tensor's values as bytes, little-endian, in blocks that fit into memory.

    The references were checked when the model was loaded.

    Raises:
        ValueError: values that do not fit type and shape, or none that can be read.
    """
    span = model.own_data(tensor)
    if span is not None:
        return blocks(model.buf, *span)
    if is_external(tensor):
        return _external(model, tensor)
    data = tensor.raw_data
    if not tensor.HasField("raw_data"):
        try:
            data = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).tobytes()
        except Exception as error:  # whatever numpy makes of dims, type and data that do not fit together
            raise ValueError(str(error)) from None
    return blocks(data, 0, len(data))


def inlined(model: Model, tensor: onnx.TensorProto, data: bytes | None = None) -> onnx.TensorProto:
    """Return a tensor with its data in it, or other data; itself where that is so. Raises as :func:`raw_content`."""
    if not is_external(tensor):
        return tensor
    made = onnx.TensorProto()
    made.CopyFrom(tensor)
    made.ClearField("external_data")
    made.ClearField("data_location")
    made.raw_data = b"".join(raw_content(model, tensor)) if data is None else data
    return made


def _external(model: Model, tensor: onnx.TensorProto) -> Iterator[bytes]:
    if model.folder is None:
        raise ValueError(f"tensor {tensor.name!r} is in an external file, but the model has no folder")
    entries = reference(tensor)
    path, offset = model.folder / entries["location"], int(entries.get("offset", "0"))
    try:
        file = FileBytes(path)
    except OSError as error:
        raise ValueError(f"cannot read {path.name}: {error.strerror or error}") from None
    length = int(entries.get("length", str(len(file) - offset)))
    return blocks(file, offset, offset + max(length, 0))
