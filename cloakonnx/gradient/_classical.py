"""Probabilities of classical models (ai.onnx.ml) as standard ops, where a model ends in them.

Their logits are known then: in float32 a sure model's probabilities are 1 and 0, and their logarithm has no gradient.
"""

from __future__ import annotations

import onnx

from cloakonnx.graph.build import Builder
from cloakonnx.graph.decompose.registry import LEARNING, decompositions, written_out
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import attributes
from cloakonnx.graph.index.traits import Trait, has

_CLASSIFIERS = frozenset({"LinearClassifier", "SVMClassifier"})

_LARGEST = 2
"""Classes of a support vector machine: probabilities of more come out of an iteration, which has no logits."""


def with_ending_spelled_out(model: onnx.ModelProto, output: str, *, opset: int) -> bool:
    """Write out the classifier of ai.onnx.ml that a model's probabilities come from, in place; return whether it did.

    Args:
        model: A model in canonical form with its shapes.
        output: The class scores.
        opset: Version of the default operator set.
    """
    graph, name, normalised = model.graph, output, ""
    index = Index(graph)
    node = index.producer(name)
    while node is not None and (has(node.op_type, Trait.MOVES) or _is_sum_of_one(node)):
        normalised = name if _is_sum_of_one(node) else normalised
        name = node.input[0]
        node = index.producer(name)
    if node is None or not _gives_probabilities(node) or name != node.output[1]:
        return False
    _replace(graph, index, node, opset)
    if normalised:  # positive numbers over their sum
        own = next(each for each in graph.node if normalised in each.output)
        build = Builder(graph, Index(graph), opset=opset, prefix=f"{normalised}/")
        own.output[0] = build.fresh(f"{normalised}/own")
        given, count = build.tensor(own.input[0]), len(graph.node)
        build.op("Div", given, given.sum(1), name=normalised)
        _move(graph, count, behind=own.output[0])
    return True


def _is_sum_of_one(node: onnx.NodeProto) -> bool:
    return node.domain == LEARNING and node.op_type == "Normalizer" and attributes(node).get("norm") == "L1"


def _gives_probabilities(node: onnx.NodeProto) -> bool:
    if node.domain != LEARNING or node.op_type not in _CLASSIFIERS or len(node.output) < 2:
        return False
    given = attributes(node)
    if node.op_type == "LinearClassifier":
        return given.get("post_transform", "NONE") in {"SOFTMAX", "LOGISTIC"}
    labels = given.get("classlabels_ints") or given.get("classlabels_strings") or ()
    return bool(given.get("prob_a")) and len(labels) <= _LARGEST


def _replace(graph: onnx.GraphProto, index: Index, node: onnx.NodeProto, opset: int) -> None:
    """Have a formula make the scores of a node; the node itself makes them under another name."""
    found = next(each for each in decompositions() if (each.domain, each.op) == (LEARNING, node.op_type))
    name = node.output[1]
    part, outputs = written_out(found, node, index, opset=opset, prefix=f"{name}/")
    made = outputs[1]
    assert made is not None  # its scores
    node.output[1] = f"{name}/own"
    count = len(graph.node)
    graph.node.extend(part.node)
    graph.node.append(onnx.helper.make_node("Identity", [made], [name]))
    graph.initializer.extend(part.initializer)
    _move(graph, count, behind=f"{name}/own")


def _move(graph: onnx.GraphProto, count: int, *, behind: str) -> None:
    """Put the nodes from the count-th on behind the one that makes a tensor."""
    copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in graph.node]
    place = next(i for i, each in enumerate(copies) if behind in each.output) + 1
    del graph.node[:]
    graph.node.extend([*copies[:place], *copies[count:], *copies[place:count]])
