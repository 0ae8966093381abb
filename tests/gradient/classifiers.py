"""A small classifier whose middle the tests fill in, and what runs its gradient graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.gradient.differentiate import GradientGraph

from .harness import evaluator, ort_run

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)
W1, B1 = RNG.normal(size=(4, 3, 3, 3)) * 0.4, RNG.normal(size=4) * 0.1
W2, B2 = RNG.normal(size=(4, 5)), RNG.normal(size=5)
X = RNG.uniform(size=(3, 3, 6, 6))
Y = np.array([0, 3, 4])


def classifier(
    *extra: onnx.NodeProto,
    dtype: type = np.float32,
    opset: int = 18,
    batch: str | int = "N",
    constants: dict[str, Array] | None = None,
) -> onnx.ModelProto:
    """Conv, Relu ``features``, extra nodes from ``features`` to ``more``, pool, Gemm, Softmax."""
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["features"]),
        *extra,
        helper.make_node("GlobalAveragePool", ["more" if extra else "features"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    weights = {"w1": W1, "b1": B1, "w2": W2, "b2": B2}
    initializers = [numpy_helper.from_array(v.astype(dtype), n) for n, v in weights.items()]
    initializers += [numpy_helper.from_array(v, n) for n, v in (constants or {}).items()]
    x = helper.make_tensor_value_info("x", elem_type, [batch, 3, 6, 6])
    y = helper.make_tensor_value_info("probabilities", elem_type, [batch, 5])
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(graph: GradientGraph, x: Array = X, y: Array = Y, **masks: Array) -> dict[str, Array]:
    """Run in float32 (onnxruntime) or float64 (onnx.reference), as the input is."""
    onnx.checker.check_model(graph.proto, full_check=True)
    double = graph.proto.graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    call = evaluator(graph.proto) if double else ort_run(graph.proto)
    dtype = np.float64 if double else np.float32
    feeds = {graph.image: x.astype(dtype)}
    if graph.labels:
        feeds[graph.labels] = y
    feeds.update({graph.masks[tap]: mask.astype(dtype) for tap, mask in masks.items()})
    return dict(zip((o.name for o in graph.proto.graph.output), call(feeds), strict=True))
