"""Which nodes are layers, whose weights multiply features: standard ones, fused ones, and models of ai.onnx.ml."""

from __future__ import annotations

import onnx

from cloakonnx.graph.index.blocked import NCHWC
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.traits import Trait, has

_CLASSICAL = "ai.onnx.ml"
_LINEAR = {"LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"}
"""Their weights are attributes."""


def factors(node: onnx.NodeProto) -> list[str]:
    """Return the data of a layer, and the weights where they are an input; nothing where the node is none."""
    if node.domain == _CLASSICAL and node.op_type in _LINEAR:
        return list(node.input[:1])
    if not has(node.op_type, Trait.WEIGHTED) or node.domain not in {"", "ai.onnx", "com.microsoft", NCHWC}:
        return []
    second = 3 if node.op_type in {"QLinearConv", "QLinearMatMul", "QGemm"} else 1
    return [node.input[position] for position in (0, second) if position < len(node.input)]


def scores_of_classical(graph: Index) -> set[str]:
    """Return the tensors that are scores, not features: what a model of ai.onnx.ml gives, and all behind it."""
    found: set[str] = set()
    for node in (graph.graph.node[index] for index in graph.order):
        is_model = node.domain == _CLASSICAL and (node.op_type in _LINEAR or node.op_type.startswith("TreeEnsemble"))
        if is_model or not found.isdisjoint(node.input):
            found.update(node.output)
    return found
