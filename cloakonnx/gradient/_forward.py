"""What is put into a forward graph before it is differentiated: preprocessing in front, masks at taps."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from cloakonnx.errors import TapError
from cloakonnx.gradient._canonical import OPSET
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import Index


def insert_mask(graph: onnx.GraphProto, tap: str, axis: int | None) -> str:
    """Multiply a mask input in at a tap: rename what makes it, so that every consumer follows."""
    index = Index(graph)
    producer, shape = index.producer(tap), index.shape(tap)
    if producer is None or tap in index.fixed:
        raise TapError(f"tensor {tap!r} does not depend on the data: choose another tap")
    if shape is None or not index.is_float(tap):
        raise TapError(f"tensor {tap!r} cannot be masked: its rank is unknown or it is not floating point")
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise TapError(f"feature axis {axis} is not an axis of {tap!r}, which has {len(shape)}")
    elem_type = index.elem_type(tap)
    wide = elem_type if elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
    place, count = index.producers[tap][0] + 1, len(graph.node)
    build = Builder(graph, index, opset=OPSET, prefix=f"{tap}_")
    raw = Tensor(build, build.fresh(f"{tap}_unmasked"), elem_type)
    producer.output[list(producer.output).index(tap)] = raw.name
    dims = [d if isinstance(d, int) else None for d in (shape[1:] if axis is None else [shape[axis]])]
    mask = build.input(build.fresh(f"{tap}_mask"), wide, dims)
    weights = mask if wide == elem_type else mask.cast(elem_type)
    if axis is not None:
        weights = weights.reshape(-1, *(1,) * (len(shape) - 1 - axis % len(shape)))
    build.op("Mul", raw, weights, name=tap)
    nodes = list(graph.node)
    _set_nodes(graph, [*nodes[:place], *nodes[count:], *nodes[place:count]])
    return mask.name


def _set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)
