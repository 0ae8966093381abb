"""A float64 copy of a model, for checks that float32 is too coarse for."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_NARROW = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def to_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose floating-point inputs, weights and casts are all float64.

    ONNX Runtime's CPU provider lacks float64 kernels for convolutions and more; ``onnx.reference`` runs the copy.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _graph(copy.graph)
    for function in copy.functions:
        _nodes(function.node)
    return copy


def _graph(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    scales = {node.input[2] for node in graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for tensor in graph.initializer:
        if tensor.name not in scales:  # Resize takes float32 scales whatever its data
            _tensor(tensor)
    _nodes([node for node in graph.node if node.op_type != "Constant" or node.output[0] not in scales])


def _nodes(nodes: object) -> None:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _graph(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _tensor(attribute.t)
            elif attribute.name in {"to", "dtype"} and attribute.i in _NARROW:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and attribute.name in {"value_float", "value_floats"}:
                value = np.array(onnx.helper.get_attribute_value(attribute), np.float64)
                attribute.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(value)))
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float64))
            node.attribute.append(onnx.helper.make_attribute("value", zero))


def _tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _NARROW:
        value = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
