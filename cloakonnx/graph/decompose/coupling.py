"""Probabilities of several classes from those of pairs of classes, by the iteration of libsvm and ONNX Runtime.

Wu, Lin and Weng, Probability estimates for multi-class classification by pairwise coupling, JMLR 5 (2004), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.decompose.registry import Node
from cloakonnx.graph.index.index import Index

_TURNS, _NEAR, _LEAST = 100, 0.005, 1e-7
"""As in ONNX Runtime: most iterations, tolerance (divided by the classes), smallest probability of a pair."""


def coupled(s: Node, first: Tensor, pairs: Sequence[tuple[int, int]], count: int) -> Tensor:
    """Return the probability of each class, (N, count).

    Args:
        s: The node.
        first: (N, pairs) the probability of the first class of each pair among the two.
        pairs: Numbers of both classes.
        count: Classes.
    """
    products = _products(first.op("Clip", _LEAST, 1 - _LEAST), pairs, count)
    start = s.build.zeros(s.x.dim(0).op("Concat", s.build.ints(count), axis=0), first) + 1 / count
    goes_on = s.build.constant(np.array(True))
    found, _ = s.build.ops(
        "Loop",
        s.build.scalar(_TURNS),
        goes_on,
        start,
        start.sum(1) > 0.5,
        elem_types=[first.elem_type, TensorProto.BOOL],
        body=_turn(s, products, count),
    )
    return found


def _products(first: Tensor, pairs: Sequence[tuple[int, int]], count: int) -> Tensor:
    """Return the matrix (N, count, count) whose quadratic form is least at the probabilities."""
    places = np.zeros((2, len(pairs), count * count), first.dtype)
    for number, (i, j) in enumerate(pairs):
        places[0, number, i * count + j] = places[1, number, j * count + i] = 1
    own, other = (first.builder.constant(each) for each in places)
    wins = (first.op("MatMul", own) + (1 - first).op("MatMul", other)).reshape(-1, count, count)
    diagonal = first.builder.constant(np.eye(count, dtype=first.dtype))
    return (wins * wins).sum(1) * diagonal - wins * wins.transpose([0, 2, 1])


def _turn(s: Node, products: Tensor, count: int) -> onnx.GraphProto:
    """Return the graph of one iteration: each class in order, for the samples that have not converged."""
    graph = onnx.GraphProto(name="turn")
    build = Builder(graph, Index(graph), opset=s.build.opset, prefix=f"{s.build.own('turn')}/")
    build.input(build.own("number"), TensorProto.INT64, ())
    build.input(build.own("condition"), TensorProto.BOOL, ())
    before = build.input(build.own("probabilities"), products.elem_type, (None, count))
    running = build.input(build.own("running"), TensorProto.BOOL, (None, 1))
    q = Tensor(build, products.name, products.elem_type)
    qp = q.op("MatMul", before.unsqueeze(2)).squeeze(2)
    pqp = (before * qp).sum(1)
    goes_on = running & (abs(qp - pqp).max(1) >= _NEAR / count)
    p = before
    for k in range(count):
        place = build.ints(k)
        row, own = q.gather(build.scalar(k), 1), qp.gather(place, 1)
        corner = row.gather(place, 1)
        step = (pqp - own) / corner
        pqp = (pqp + step * (step * corner + 2 * own)) / (1 + step) / (1 + step)
        qp = (qp + step * row) / (1 + step)
        p = (p + step * build.constant(np.eye(count, dtype=p.dtype)[k])) / (1 + step)
    after = goes_on.where(p, before)
    most = goes_on.cast(TensorProto.INT64).max([0, 1], keepdims=False) > 0
    outputs = [each.op("Identity", name=build.own("output")) for each in (most, after, goes_on)]
    graph.output.extend(onnx.helper.make_tensor_value_info(each.name, each.elem_type, None) for each in outputs)
    return graph
