"""Finds where masks do work: the activations that linear layers read."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from cloakonnx.graph.load import Model
from cloakonnx.graph.structure import Structure
from cloakonnx.graph.taps import Tap, ancestors, list_taps

_WEIGHTED = {"Conv", "ConvTranspose", "FusedConv", "FusedMatMul", "Gemm", "MatMul"}
_ACTIVATIONS = {
    "BiasGelu", "Celu", "Clip", "Elu", "FastGelu", "FusedConv", "Gelu", "HardSigmoid", "HardSwish",
    "LayerNormalization", "LeakyRelu", "Mish", "PRelu", "QuickGelu", "RMSNormalization", "Relu", "Selu", "Sigmoid",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "Softplus", "Softsign", "Swish", "Tanh",
    "ThresholdedRelu",
}  # fmt: skip
_CARRIERS = {
    "Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "DepthToSpace", "Dropout", "Flatten", "Gather",
    "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Mul", "Pad", "ReduceMean", "Reshape", "Resize",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Ops that hand activations on: shapes, pools, sums and constant factors."""


def activation_taps(model: Model) -> list[Tap]:
    """Return the taps after every activation that feeds a Conv, Gemm or MatMul with constant weights, in graph order.

    From the data input of each such layer the graph is followed back through shapes, pools, sums, concatenations and
    constant factors to the nearest activation or LayerNormalization. A product or quotient of two computed tensors
    counts as an activation, for gates and exporters' spelled-out SiLU, GELU and HardSwish end in one.
    """
    graph = model.structure
    if not graph.graph.output:
        return []
    reached: set[str] = set()
    for index in ancestors(graph, graph.graph.output[0].name):
        node = graph.graph.node[index]
        computed = _computed(graph, node)
        if node.op_type in _WEIGHTED and len(computed) == 1:
            reached |= set(_activations(graph, computed[0]))
    return [tap for tap in list_taps(model) if tap.name in reached]


def _activations(graph: Structure, tensor: str) -> Iterator[str]:
    seen: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        node = graph.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        computed = _computed(graph, node)
        is_product = node.op_type in {"Mul", "Div"} and len(computed) > 1
        if node.op_type in _ACTIVATIONS or is_product:
            yield name
        elif node.op_type in _CARRIERS or node.op_type == "Div":
            waiting += computed


def _computed(graph: Structure, node: onnx.NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in graph.constants]
