"""Moves BatchNormalization into the convolution before it.

ONNX Runtime does so for the forward pass. Here it spares the backward pass a product by channel between every two
convolutions, which would also take their tensors out of the runtime's blocked layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cloakonnx.gradient.info import TensorInfo, dependencies, producers


def fuse_normalization(graph: onnx.GraphProto, keep: Collection[str], fixed: Collection[str]) -> None:
    """Fuse each BatchNormalization whose input is a convolution that nothing else reads, in place.

    The new weights are nodes over the old ones, which the runtime folds when it loads.

    Args:
        graph: Graph in canonical form, inference mode, shapes inferred.
        keep: Tensors that must survive.
        fixed: Large weights that are inputs of the graph for now.
    """
    info = TensorInfo.of(graph)
    constant = info.fixed.union(fixed)
    made_by = producers(graph)
    readers = Counter(name for node in graph.node for name in dependencies(node))
    readers.update([*keep, *(output.name for output in graph.output)])
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for node in graph.node:
        conv = made_by.get(node.input[0]) if node.op_type == "BatchNormalization" and not node.domain else None
        if conv is None or conv.domain or not _fits(node, conv, constant, readers):
            nodes.append(node)
            continue
        rank = info.rank(conv.input[1])
        if rank is None:
            nodes.append(node)
            continue
        gone.add(conv.output[0])
        nodes.extend(_fused(graph, node, conv, rank=rank, elem_type=info.elem_type(conv.input[1])))
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes if not gone.intersection(n.output)]
    del graph.node[:]
    graph.node.extend(kept)


def _fits(node: onnx.NodeProto, conv: onnx.NodeProto, constant: Collection[str], readers: Counter[str]) -> bool:
    weights = [name for name in (*conv.input[1:], *node.input[1:]) if name]
    training = any(a.name == "training_mode" and a.i for a in node.attribute)
    plain = conv.op_type == "Conv" and readers[conv.output[0]] == 1 and not training
    return plain and all(name in constant for name in weights)


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
