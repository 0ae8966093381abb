"""Finds the ops of a model that give other numbers each time it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

import onnx
from onnx import numpy_helper

from cloakonnx.graph.index.index import node_inputs, nodes_within, subgraphs
from cloakonnx.graph.index.normal import opset_version
from cloakonnx.graph.index.traits import Trait, has

_TRAINING_SINCE = 12
"""The opset from which Dropout says by an input whether it trains; before, ONNX Runtime takes it as an identity."""

_Functions = Mapping[tuple[str, str], onnx.FunctionProto]


def random_ops(model: onnx.ModelProto, output: str) -> tuple[str, ...]:
    """Return the random ops that an output depends on: ``RandomNormal (node 'noise')``, in the order of the graph.

    Dropout counts where its training mode is on, or not known before the model runs. Ops in bodies and in local
    functions count where the node that holds them does.
    """
    opset = opset_version(model.opset_import)
    functions = {(f.domain, f.name): f for f in model.functions}
    false = set(_false(model))

    def trains(node: onnx.NodeProto) -> bool:
        switch = node.input[2] if len(node.input) > 2 else ""
        return opset >= _TRAINING_SINCE and bool(switch) and switch not in false

    needed, found = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node_inputs(node))
            found.append([_described(each) for each in _random(node, functions, trains)])
    return tuple(name for names in reversed(found) for name in names)


def _random(
    node: onnx.NodeProto, functions: _Functions, trains: Callable[[onnx.NodeProto], bool]
) -> Iterator[onnx.NodeProto]:
    standard = node.domain in {"", "ai.onnx"}
    if standard and (has(node.op_type, Trait.RANDOM) or (node.op_type == "Dropout" and trains(node))):
        yield node
    bodies = [list(graph.node) for graph in subgraphs(node)]
    if (node.domain, node.op_type) in functions:
        bodies.append(list(functions[node.domain, node.op_type].node))
    for inner in (each for body in bodies for each in body):
        yield from _random(inner, functions, trains)


def _false(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the constants that are false, of any scope: what switches training mode off."""
    tensors = list(model.graph.initializer)
    for node in nodes_within([*model.graph.node, *(node for f in model.functions for node in f.node)]):
        for graph in subgraphs(node):
            tensors.extend(graph.initializer)
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    tensors.append(onnx.TensorProto())
                    tensors[-1].CopyFrom(attribute.t)
                    tensors[-1].name = node.output[0]
    for tensor in tensors:
        single = prod(tensor.dims) == 1 and tensor.data_type == onnx.TensorProto.BOOL
        if single and not tensor.external_data and not numpy_helper.to_array(tensor).any():
            yield tensor.name


def _described(node: onnx.NodeProto) -> str:
    return f"{node.op_type} (node {node.name!r})" if node.name else f"{node.op_type} (it makes {node.output[0]!r})"
