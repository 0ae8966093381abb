"""What is put into a forward graph before it is differentiated: preprocessing in front, masks at taps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnx
from onnx import TensorProto

from cloakonnx.errors import TapError
from cloakonnx.gradient.info import TensorInfo, producers


class Preprocessing(Protocol):
    """What happens to a pixel before the model sees it: (x * scale - mean) / std.

    Attributes:
        scale: Factor of the pixels, such as 1/255.
        mean: One number a channel, or None.
        std: One number a channel, or None.
        channel_axis: Axis of the model's input that ``mean`` and ``std`` run along.
    """

    @property
    def scale(self) -> float: ...
    @property
    def mean(self) -> Sequence[float] | None: ...
    @property
    def std(self) -> Sequence[float] | None: ...
    @property
    def channel_axis(self) -> int: ...


def prepend(graph: onnx.GraphProto, name: str, preprocessing: Preprocessing | None) -> str:
    """Put the preprocessing and a cast before an input; return the name of the input in pixel space."""
    value = next(v for v in graph.input if v.name == name)
    elem_type = value.type.tensor_type.elem_type
    wide = elem_type if elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
    steps = _affine(preprocessing, len(value.type.tensor_type.shape.dim)) if preprocessing is not None else []
    if not steps and wide == elem_type:
        return name
    taken = {n for node in graph.node for n in (*node.input, *node.output)} | {v.name for v in graph.input}
    pixels = _free(f"{name}_pixels", taken)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(wide)
    nodes, last = [], pixels
    for i, (op, number) in enumerate(steps):
        constant, made = (_free(f"{pixels}/{what}_{i}", taken) for what in ("constant", op.lower()))
        graph.initializer.append(onnx.numpy_helper.from_array(number.astype(dtype), constant))
        nodes.append(onnx.helper.make_node(op, [last, constant], [made], name=made))
        last = made
    if wide != elem_type:
        nodes.append(onnx.helper.make_node("Cast", [last], [name], name=f"{pixels}/cast", to=elem_type))
    else:
        nodes[-1].output[0] = name
    value.name, value.type.tensor_type.elem_type = pixels, wide
    rest = list(graph.node)
    _set_nodes(graph, [*nodes, *rest])
    return pixels


def _affine(p: Preprocessing, rank: int) -> list[tuple[str, np.ndarray]]:
    after = rank - 1 - p.channel_axis % rank
    steps: list[tuple[str, np.ndarray]] = []
    if p.scale != 1:
        steps.append(("Mul", np.asarray(p.scale, np.float64)))
    for op, values, nothing in (("Sub", p.mean, 0), ("Div", p.std, 1)):
        if values is not None and any(v != nothing for v in values):
            steps.append((op, np.asarray(values, np.float64).reshape(-1, *(1,) * after)))
    return steps


def _free(hint: str, taken: set[str]) -> str:
    name = hint
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def insert_mask(graph: onnx.GraphProto, tap: str, axis: int | None) -> str:
    """Multiply a mask input in at a tap: rename what makes it, so that every consumer follows."""
    producer = producers(graph).get(tap)
    info = TensorInfo.of(graph)
    shape = info.shape(tap)
    if producer is None or tap in info.fixed:
        raise TapError(f"tensor {tap!r} does not depend on the data: choose another tap")
    if shape is None or not info.is_float(tap):
        raise TapError(f"tensor {tap!r} cannot be masked: its rank is unknown or it is not floating point")
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise TapError(f"feature axis {axis} is not an axis of {tap!r}, which has {len(shape)}")
    taken = {n for node in graph.node for n in (*node.input, *node.output)} | {v.name for v in graph.input}
    raw, mask, cast, broad, places = (
        _free(f"{tap}{suffix}", taken) for suffix in ("_unmasked", "_mask", "_mask_cast", "_mask_broad", "_mask_shape")
    )
    elem_type = info.elem_type(tap)
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
