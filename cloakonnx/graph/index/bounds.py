"""Limits that a model must keep to before any work is done on it; docs/limits.md has them in a table.

A small file can ask for any amount of memory or time. What it asks for is computed from the file's own numbers first,
in Python, where nothing is made; then native code may see the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import onnx
from onnx import TensorProto

from cloakonnx.errors import ModelError
from cloakonnx.graph.index._attributes import check_attributes
from cloakonnx.graph.index._sizes import check_sizes, is_uncertain
from cloakonnx.graph.index.functions import check_functions, inlined
from cloakonnx.graph.index.index import subgraphs
from cloakonnx.graph.index.limits import (
    BODIES,
    DEPTH,
    DRIVING,
    GROWTH,
    NODES,
    RANK,
    SAMPLE_BYTES,
    element_bytes,
    megabytes,
    quoted,
)
from cloakonnx.graph.index.node import describe

_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data", TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data", TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data", TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}  # fmt: skip
_ALL_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def check_bounds(model: onnx.ModelProto, name: str) -> None:
    """Check that a model asks for no more than the limits allow.

    Args:
        model: The model; large weights may be references.
        name: What messages call it.

    Raises:
        ModelError: it does, or its tensors and attributes contradict what they declare.
    """
    try:
        _check_graphs(model)
        check_attributes(model)
        check_functions(model)
        check_sizes(inlined(model))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


def check_constants(model: onnx.ModelProto) -> None:
    """Check what nodes make of constants; raises ModelError where that is above the limits."""
    check_sizes(inlined(model))


def size_is_open(model: onnx.ModelProto) -> bool:
    """Whether only a run can tell how long a model takes and how much memory: it has loops or unknown constants."""
    return is_uncertain(inlined(model))


def check_shapes(inferred: onnx.ModelProto, stored: int) -> None:
    """Check what inference found: ranks, and what one sample makes of a small file.

    Args:
        inferred: A model whose shapes have been inferred.
        stored: Bytes of the model's file and its weights.

    Raises:
        ModelError: a rank is above the limit, or a tensor is far beyond all that goes into the model.
    """
    graph = inferred.graph
    weights = {t.name for t in graph.initializer}
    fed = sum(_sample_bytes(value) for value in graph.input if value.name not in weights)
    most = max(SAMPLE_BYTES, GROWTH * (stored + fed))
    for value in (*graph.value_info, *graph.output):
        _check_rank(value.name, len(value.type.tensor_type.shape.dim))
        size = _sample_bytes(value)
        if size > most and value.name not in weights:
            raise ModelError(
                f"tensor {quoted(value.name)} would take {megabytes(size)} for one sample, over {GROWTH:,} times the "
                f"model and the sample together; the limit is {megabytes(most)}"
            )


def _sample_bytes(value: onnx.ValueInfoProto) -> int:
    """Bytes of a tensor, an unknown dimension counted as one."""
    tensor = value.type.tensor_type
    return prod(max(d.dim_value, 1) for d in tensor.shape.dim) * element_bytes(tensor.elem_type)


def _check_graphs(model: onnx.ModelProto) -> None:
    graphs = [model.graph, *(g for info in model.training_info for g in (info.initialization, info.algorithm))]
    count = 0
    for graph in graphs:
        count += _check_graph(graph, 0)
    for function in model.functions:
        for value in function.value_info:
            _check_rank(value.name, len(value.type.tensor_type.shape.dim))
        count += _check_nodes(function.node, 0)
    if count > NODES:
        raise ModelError(f"the model has {count:,} nodes, counted by their outputs; the limit is {NODES:,}")
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    bodies = sum(_count_bodies(node) for node in nodes)
    if bodies > BODIES:
        raise ModelError(f"the model has {bodies:,} bodies of If, Loop and Scan; the limit is {BODIES:,}")


def _check_graph(graph: onnx.GraphProto, depth: int) -> int:
    """Check a graph and what is inside it; return the number of its nodes."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_rank(value.name, len(value.type.tensor_type.shape.dim))
    for tensor in graph.initializer:
        check_tensor(tensor, f"initializer {quoted(tensor.name)}")
    _check_sparse(graph.sparse_initializer)
    _check_made_once(graph)
    return _check_nodes(graph.node, depth)


def _check_made_once(graph: onnx.GraphProto) -> None:
    made: set[str] = set()
    for node in graph.node:
        for name in filter(None, node.output):
            if name in made:
                raise ModelError(f"two nodes make {quoted(name)}: the file is no valid model; export it again")
            made.add(name)


def _check_nodes(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
    if depth > DEPTH:
        raise ModelError(f"graphs are nested more than {DEPTH} deep, which is the limit")
    count = 0
    for node in nodes:
        count += max(1, len(node.output))
        for tensor in _attribute_tensors(node):
            check_tensor(tensor, f"a tensor of {describe(node)}")
        for attribute in node.attribute:
            _check_sparse((*attribute.sparse_tensors, attribute.sparse_tensor))
        count += sum(_check_graph(graph, depth + 1) for graph in subgraphs(node))
    return count


def _count_bodies(node: onnx.NodeProto) -> int:
    return sum(1 + sum(map(_count_bodies, graph.node)) for graph in subgraphs(node))


def _attribute_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _check_sparse(sparse: Iterable[onnx.SparseTensorProto]) -> None:
    for tensor in sparse:
        named = f"sparse tensor {quoted(tensor.values.name)}"
        _check_rank(tensor.values.name, len(tensor.dims))
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"{named} has a negative dimension {_dims(tensor.dims)}")
        for part in (tensor.values, tensor.indices):
            if part.dims:
                check_tensor(part, named)
        size = prod(tensor.dims) * element_bytes(tensor.values.data_type)
        if size > DRIVING:
            raise ModelError(f"{named} would take {megabytes(size)}; the limit is {megabytes(DRIVING)}")


def _check_rank(name: str, rank: int) -> None:
    if rank > RANK:
        raise ModelError(f"tensor {quoted(name)} has {rank:,} dimensions; the limit is {RANK}")


def check_tensor(tensor: TensorProto, named: str) -> None:
    """Check a constant's dimensions against its data.

    Raises:
        ModelError: its rank is above the limit, a dimension is negative, or the data do not fit the dimensions.
    """
    _check_rank(tensor.name, len(tensor.dims))
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"{named} has a negative dimension {_dims(tensor.dims)}: the file is damaged; export it again")
    if tensor.data_type not in TensorProto.DataType.values():
        raise ModelError(f"{named} has the element type {tensor.data_type}, which does not exist")
    elements = prod(tensor.dims)
    wanted, there, unit = _lengths(tensor, elements)
    if there is not None and wanted != there:
        raise ModelError(
            f"{named} of shape {_dims(tensor.dims)} should have {wanted:,} {unit} and has {there:,}: the file is "
            "damaged; export it again"
        )


def _lengths(tensor: TensorProto, elements: int) -> tuple[int, int | None, str]:
    """Return the length of the data that the dimensions ask for, that of the data, and the unit of both."""
    if tensor.data_location == TensorProto.EXTERNAL:
        text = next((e.value for e in tensor.external_data if e.key == "length"), None)
        is_number = isinstance(text, str) and text.isdecimal() and len(text) < 20
        return element_bytes(tensor.data_type, elements), int(text) if text and is_number else None, "bytes"
    if tensor.HasField("raw_data"):
        return element_bytes(tensor.data_type, elements), len(tensor.raw_data), "bytes"
    entries = elements
    if tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        entries = 2 * elements
    kind: int = tensor.data_type
    there = len(getattr(tensor, _FIELDS.get(kind, "int32_data")))
    if element_bytes(tensor.data_type, 8) < 8:  # several to a byte, a byte to an entry
        entries = element_bytes(tensor.data_type, elements)
    return entries, there, "numbers"


def stored_twice(tensor: TensorProto) -> list[str]:
    """Return the names of the fields that hold a tensor's data, where there are several; readers disagree on them."""
    fields = [name for name in _ALL_FIELDS if len(getattr(tensor, name))]
    fields += ["raw_data"] if tensor.HasField("raw_data") and tensor.raw_data else []
    fields += ["external_data"] if tensor.data_location == TensorProto.EXTERNAL else []
    return fields if len(fields) > 1 else []


def _dims(dims: Iterable[int]) -> str:
    text = ", ".join(map(str, dims))
    return f"({text if len(text) <= 100 else text[:97] + '...'})"
