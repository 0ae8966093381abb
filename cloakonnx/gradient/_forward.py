"""What is put into a forward graph before it is differentiated: preprocessing in front, masks at taps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from cloakonnx.errors import TapError
from cloakonnx.graph.index.index import Index


def _free(hint: str, taken: set[str]) -> str:
    name = hint
    while name in taken:
        name += "_"
    taken.add(name)
    return name


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
    taken = {n for node in graph.node for n in (*node.input, *node.output)} | {v.name for v in graph.input}
    raw, mask, cast, broad, places = (
        _free(f"{tap}{suffix}", taken) for suffix in ("_unmasked", "_mask", "_mask_cast", "_mask_broad", "_mask_shape")
    )
    elem_type = index.elem_type(tap)
    wide = elem_type if elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
    dims = [d if isinstance(d, int) else None for d in (shape[1:] if axis is None else [shape[axis]])]
    graph.input.append(onnx.helper.make_tensor_value_info(mask, wide, dims))
    producer.output[list(producer.output).index(tap)] = raw
    place = next(i for i, node in enumerate(graph.node) if raw in node.output) + 1
    nodes, last = [], mask
    if wide != elem_type:
        nodes.append(onnx.helper.make_node("Cast", [last], [cast], name=cast, to=elem_type))
        last = cast
    if axis is not None:
        form = np.array([-1, *(1,) * (len(shape) - 1 - axis % len(shape))], np.int64)
        graph.initializer.append(onnx.numpy_helper.from_array(form, places))
        nodes.append(onnx.helper.make_node("Reshape", [last, places], [broad], name=broad))
        last = broad
    nodes.append(onnx.helper.make_node("Mul", [raw, last], [tap], name=f"{tap}_masking"))
    rest = list(graph.node)
    _set_nodes(graph, [*rest[:place], *nodes, *rest[place:]])
    return mask


def _set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)
