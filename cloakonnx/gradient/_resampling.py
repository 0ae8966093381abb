"""Upsample, and Resize of opset 10, as ONNX Runtime runs them: the converter gives them defaults of later opsets."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cloakonnx.gradient._opset import opset_of

_FIRST_WITH_MODES = 11
"""The opset in which Resize has attributes for its coordinates and its rounding."""
_MODES = {"coordinate_transformation_mode": "asymmetric"}


def resampled(before: onnx.ModelProto, converted: onnx.GraphProto) -> None:
    """Give converted nodes the coordinates and the rounding that they had, in place.

    Both counted from the corner of the first pixel. The nearest pixel was the one below; where Resize made an axis
    smaller, the one above.

    Args:
        before: The model before its conversion.
        converted: The graph after it: a Resize for each of the nodes before, in their order.
    """
    if opset_of(before) >= _FIRST_WITH_MODES:
        return
    olds = iter([node for node in before.graph.node if node.op_type in {"Upsample", "Resize"} and not node.domain])
    nodes: list[onnx.NodeProto] = []
    for node in converted.node:
        if node.op_type != "Resize" or node.domain:
            nodes.append(node)
            continue
        old = next(olds)
        mode = next((each.s.decode() for each in old.attribute if each.name == "mode"), "nearest")
        both = old.op_type == "Resize" and mode == "nearest"
        nodes += _downsampled(converted, node) if both else [_made(node, mode, "floor", node.input[2])]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del converted.node[:]
    converted.node.extend(copies)


def _made(node: onnx.NodeProto, mode: str, nearest: str, scales: str) -> onnx.NodeProto:
    modes = {"mode": mode, **_MODES, **({"nearest_mode": nearest} if mode == "nearest" else {})}
    return helper.make_node("Resize", [node.input[0], "", scales], node.output, name=node.name, **modes)


def _downsampled(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Make the axes larger first, and then smaller: each way has its own rounding."""
    one, larger, smaller, between = (f"{node.output[0]}/{part}" for part in ("one", "larger", "smaller", "between"))
    graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), one))
    up = _made(node, "nearest", "floor", larger)
    up.name, up.output[0] = f"{node.name}/larger", between
    down = _made(node, "nearest", "ceil", smaller)
    down.input[0] = between
    scales = node.input[2]
    return [
        helper.make_node("Max", [scales, one], [larger]),
        helper.make_node("Min", [scales, one], [smaller]),
        up,
        down,
    ]
