"""Puts the way from pixel space to a model's input in front of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.graph.index.index import FLOATS, free_name
from cloakonnx.preprocessing import Step


def prepend(graph: onnx.GraphProto, name: str, steps: Sequence[Step], *, pixels: int = TensorProto.FLOAT) -> str:
    """Put preprocessing, rounding and a cast before an input, where there is anything to do.

    Integer inputs are rounded to, not cut off.

    Args:
        graph: The graph; changed in place.
        name: The input; the tensor keeps its name and type.
        steps: Ops with their constants, in order (:meth:`~cloakonnx.preprocessing.Preprocessing.steps`).
        pixels: Element type of the new input, in which the steps are computed.

    Returns:
        The name of the input in pixel space.
    """
    entry = next(value for value in graph.input if value.name == name)
    elem_type = entry.type.tensor_type.elem_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(pixels)
    ops: list[tuple[str, NDArray[Any] | None]] = [(op, values.astype(dtype)) for op, values in steps]
    if elem_type not in FLOATS:
        ops.append(("Round", None))
    if elem_type != pixels:
        ops.append(("Cast", None))
    if not ops:
        return name
    taken = {each for node in graph.node for each in (*node.input, *node.output)}
    taken |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    taken |= {value.name for value in graph.output} | {tensor.values.name for tensor in graph.sparse_initializer}
    given = free_name(f"{name}_pixels", taken)
    names = [given, *(free_name(f"{given}/{op.lower()}", taken) for op, _ in ops[:-1]), name]
    nodes = []
    for (op, value), source, target in zip(ops, names[:-1], names[1:], strict=True):
        inputs = [source]
        if value is not None:
            inputs.append(free_name(f"{given}/{op.lower()}_constant", taken))
            graph.initializer.append(onnx.numpy_helper.from_array(value, inputs[-1]))
        attributes: dict[str, Any] = {"to": elem_type} if op == "Cast" else {}
        nodes.append(onnx.helper.make_node(op, inputs, [target], name=f"{given}/{op.lower()}_node", **attributes))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    entry.name, entry.type.tensor_type.elem_type = given, pixels
    return given
