"""Whether a model has gradients, from its ops."""

from __future__ import annotations

from typing import NamedTuple

import onnx

from cloakonnx.gradient._opset import OPSET, opset_of
from cloakonnx.gradient._path import check_rules, find_path
from cloakonnx.graph.index.functions import inlined
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.normal import normalised


class Way(NamedTuple):
    """Whether gradients reach an input from an output, judged by the ops between them.

    Attributes:
        nodes: How many nodes they pass.
        bridged: An op that they pass straight through, described, where there is no other way; else empty.
        stop: An op of zero gradient that ends them, described; else empty.
    """

    nodes: int
    bridged: str
    stop: str


def find_way(inferred: onnx.ModelProto, name: str, output: str) -> Way:
    """Find out from a model's ops whether gradients reach an input from an output; nothing is built.

    Args:
        inferred: The model with the shapes and types that inference can tell.
        name: The input.
        output: The output.

    Raises:
        DifferentiationError: an op on the way has no rule.
    """
    model = _renamed(normalised(inlined(inferred)))
    index, opset = Index(model.graph), max(opset_of(model), OPSET)
    plain = find_path(model.graph.node, index, [output], [name])
    check_rules(plain, opset)
    if plain.nodes and name in plain.active:
        return Way(len(plain.nodes), "", "")
    through = find_path(model.graph.node, index, [output], [name], straight_through=True)
    check_rules(through, opset)
    if through.nodes and name in through.active and through.bridged:
        return Way(0, through.bridged[0], "")
    return Way(0, "", next(iter(plain.blocked), "the model"))


_SUCCESSORS = {"Upsample": "Resize", "Scatter": "ScatterElements"}
"""Ops of old opsets to what the conversion to opset 18 makes of them."""


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Have ops that later opsets call otherwise go by their later names; the model itself is not changed."""
    if opset_of(model) >= OPSET or not any(_succeeded(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if _succeeded(node):
            node.op_type = _SUCCESSORS[node.op_type]
    return copy


def _succeeded(node: onnx.NodeProto) -> bool:
    return node.op_type in _SUCCESSORS and node.domain in {"", "ai.onnx"}
