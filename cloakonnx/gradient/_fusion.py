"""Moves BatchNormalization into the convolution before it.

ONNX Runtime does so for the forward pass. Here it spares the backward pass a product by channel between every two
convolutions, which would also take their tensors out of the runtime's blocked layout.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cloakonnx.graph.index.index import Index


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
        nodes.extend(_fused(graph, node, conv, rank=rank, elem_type=index.elem_type(conv.input[1])))
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


def _fused(
    graph: onnx.GraphProto, node: onnx.NodeProto, conv: onnx.NodeProto, *, rank: int, elem_type: int
) -> list[onnx.NodeProto]:
    """Weights W * f and bias (b - mean) * f + B with f = scale / sqrt(var + eps)."""
    base = node.output[0]
    _, scale, bias, mean, variance = node.input[:5]
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    names = {key: f"{base}/fused_{key}" for key in ("eps", "form", "var", "root", "f", "fw", "w", "b", "bf", "bias")}
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(epsilon).astype(dtype), names["eps"]),
            numpy_helper.from_array(np.array([-1, *(1,) * (rank - 1)], np.int64), names["form"]),
        ]
    )
    own = conv.input[2] if len(conv.input) > 2 and conv.input[2] else ""
    steps = [
        ("Add", [variance, names["eps"]], "var"),
        ("Sqrt", [names["var"]], "root"),
        ("Div", [scale, names["root"]], "f"),
        ("Reshape", [names["f"], names["form"]], "fw"),
        ("Mul", [conv.input[1], names["fw"]], "w"),
        ("Sub", [own, mean], "b") if own else ("Neg", [mean], "b"),
        ("Mul", [names["b"], names["f"]], "bf"),
        ("Add", [names["bf"], bias], "bias"),
    ]
    made = [helper.make_node(op, inputs, [names[key]], name=names[key]) for op, inputs, key in steps]
    whole = helper.make_node("Conv", [conv.input[0], names["w"], names["bias"]], [base], name=node.name or conv.name)
    whole.attribute.extend(conv.attribute)
    return [*made, whole]
