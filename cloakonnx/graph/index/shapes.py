"""Shape inference that goes on where onnx's stops: at a Reshape to a computed shape, at the input of a weight."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.index.custom import custom_shapes
from cloakonnx.graph.index.limits import RANK, quoted

_MAX_ROUNDS = 8


def infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the model with the shapes and types that can be inferred, or the model itself where none can.

    Weights are not needed: large ones may be references. A rank is all that is added where the dimensions are unknown,
    so that no run can contradict it.

    Raises:
        ModelError: a Reshape is to a rank above the limit.
    """
    inferred = _infer(model)
    for _ in range(_MAX_ROUNDS):
        added = _reshape_ranks(inferred.graph) or custom_shapes(inferred.graph, inferred.opset_import)
        if not added:
            break
        _tell(inferred.graph, added)
        inferred = _infer(inferred)
    _weights_tell_features(inferred.graph)
    return inferred


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # bare RuntimeErrors on models that the inferer cannot follow; what the file declares remains
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto.Tensor]:
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}


def _reshape_ranks(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Value infos for the outputs of Reshape whose shape is computed: as many dimensions as the shape has entries."""
    types = _types(graph)
    ranks = {t.name: t.dims[0] for t in graph.initializer if len(t.dims) == 1}
    added = []
    for node in graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or not node.output:
            continue
        known, data, wanted = (types.get(name) for name in (node.output[0], node.input[0], node.input[1]))
        rank = ranks.get(node.input[1])
        if wanted is not None and len(wanted.shape.dim) == 1 and wanted.shape.dim[0].dim_value > 0:
            rank = wanted.shape.dim[0].dim_value
        if rank is not None and rank > RANK:
            raise ModelError(f"tensor {quoted(node.output[0])} has {rank:,} dimensions; the limit is {RANK}")
        elem_type = (known or data or onnx.TypeProto.Tensor()).elem_type
        if rank and elem_type and (known is None or not known.HasField("shape")):
            added.append(onnx.helper.make_tensor_value_info(node.output[0], elem_type, [None] * rank))
    return added


def _tell(graph: onnx.GraphProto, added: Sequence[onnx.ValueInfoProto]) -> None:
    """Replace value infos that are less exact, those of outputs too."""
    names = {value.name: value for value in added}
    outputs = {output.name for output in graph.output}
    kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.value_info if v.name not in names]
    del graph.value_info[:]
    graph.value_info.extend([*kept, *(value for value in added if value.name not in outputs)])
    for output in graph.output:
        if output.name in names:
            output.type.CopyFrom(names[output.name].type)


def _weights_tell_features(graph: onnx.GraphProto) -> None:
    """Derive from a constant weight what the data input of a MatMul or Gemm is: type, last dimension, Gemm's rank."""
    types = _types(graph)
    weights = {t.name: (list(t.dims), t.data_type) for t in graph.initializer}
    for name, tensor in types.items():
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            weights.setdefault(name, ([d.dim_value for d in tensor.shape.dim], tensor.elem_type))
    for node in graph.node:
        if node.op_type not in {"MatMul", "Gemm"} or node.domain or len(node.input) < 2:
            continue
        dims, elem_type = weights.get(node.input[1], ([], 0))
        flags = {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}
        if len(dims) != 2 or flags.get("transA"):
            continue
        data = types.get(node.input[0])
        if node.op_type == "Gemm" and (data is None or not data.HasField("shape")):
            data = types[node.input[0]] = _add_matrix(graph, node.input[0], elem_type)
        if data is None or len(data.shape.dim) < 2:
            continue
        last = data.shape.dim[-1]
        if not last.HasField("dim_value"):
            last.dim_value = dims[1 if flags.get("transB") else 0]


def _add_matrix(graph: onnx.GraphProto, name: str, elem_type: int) -> onnx.TypeProto.Tensor:
    """Add the value info of a tensor of rank 2, or the shape to the one that it has; return its type."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.name == name and value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.dim.add()
            value.type.tensor_type.shape.dim.add()
            return value.type.tensor_type
    graph.value_info.append(onnx.helper.make_tensor_value_info(name, elem_type, [None, None]))
    return graph.value_info[-1].type.tensor_type
