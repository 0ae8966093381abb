"""Moves BatchNormalization into the convolution before it.

ONNX Runtime does so for the forward pass. Here it spares the backward pass a product by channel between every two
convolutions, which would also take their tensors out of the runtime's blocked layout.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from cloakonnx.graph.build import Builder
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import NodeView


def fuse_normalization(graph: onnx.GraphProto, keep: Collection[str], fixed: Collection[str]) -> None:
    """Fuse each BatchNormalization whose input is a convolution that nothing else reads, in place.

    The new weights are nodes over the old ones, which the runtime folds when it loads.

    Args:
        graph: Graph in canonical form, inference mode, shapes inferred.
        keep: Tensors that must survive.
        fixed: Large weights that are inputs of the graph for now.
    """
    index = Index(graph)
    needed = {*keep, *(output.name for output in graph.output)}
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for number, node in enumerate(graph.node):
        conv = index.producer(node.input[0]) if node.op_type == "BatchNormalization" and not node.domain else None
        rank = None if conv is None or not _fits(index, number, needed, fixed) else index.rank(conv.input[1])
        if conv is None or rank is None:
            nodes.append(node)
            continue
        gone.add(conv.output[0])
        part = _fused(index, node, conv, rank=rank)
        nodes.extend(part.node)
        graph.initializer.extend(part.initializer)
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes if not gone.intersection(n.output)]
    del graph.node[:]
    graph.node.extend(kept)


def _fits(index: Index, number: int, needed: Collection[str], fixed: Collection[str]) -> bool:
    """Whether a BatchNormalization has constant numbers and is all that reads a Conv with constant weights."""
    node = index.graph.node[number]
    conv = index.producer(node.input[0])
    if conv is None or conv.domain or conv.op_type != "Conv":
        return False
    weights = [name for name in (*conv.input[1:], *node.input[1:]) if name]
    training = any(a.name == "training_mode" and a.i for a in node.attribute)
    alone = index.consumers[conv.output[0]] == [number] and conv.output[0] not in needed
    return alone and not training and all(name in index.fixed or name in fixed for name in weights)


def _fused(index: Index, node: onnx.NodeProto, conv: onnx.NodeProto, *, rank: int) -> onnx.GraphProto:
    """Return the nodes and constants of one Conv with weights W * f and bias (b - mean) * f + B, f = scale / sqrt(var).

    The variance has epsilon added.
    """
    part = onnx.GraphProto()
    build = Builder(part, index, opset=18, prefix=f"{node.output[0]}/fused_")
    scale, bias, mean, variance = (build.tensor(name) for name in node.input[1:5])
    factor = scale / (variance + NodeView(node, index).number("epsilon", 1e-5)).sqrt()
    weights = build.tensor(conv.input[1]) * factor.reshape(-1, *(1,) * (rank - 1))
    own = len(conv.input) > 2 and conv.input[2]
    total = (build.tensor(conv.input[2]) - mean if own else -mean) * factor + bias
    whole = onnx.NodeProto()
    whole.CopyFrom(conv)
    del whole.input[1:]
    whole.input.extend([weights.name, total.name])
    whole.output[0], whole.name = node.output[0], node.name or conv.name
    part.node.append(whole)
    return part
