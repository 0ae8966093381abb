"""Ops that pick values by place: slices, gathers, pads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.gradient.rules._along import apply_along, take_back
from cloakonnx.graph.build import INT64_MAX, Tensor


@unary("Slice", since=1, until=13, note="starts, ends, axes and steps constant")
def slice_(s: GradientSite) -> Tensor:
    """Dy with zeros where nothing was taken, axis by axis."""
    shape = s.shape(s.x, "data input")
    starts = s.constant(1, "starts").ravel().tolist()
    ends = s.constant(2, "ends").ravel().tolist()
    axes = s.constant(3, "axes").ravel().tolist() if s.has(3) else list(range(len(starts)))
    steps = s.constant(4, "steps").ravel().tolist() if s.has(4) else [1] * len(starts)
    if not all(isinstance(shape[axis], int) for axis in axes):
        return _slice_back(s)
    grad, before, after = s.dy, [0] * len(shape), [0] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = int(shape[axis] or 0)
        taken = range(size)[slice(start, end if end >= -size else None, step)]
        if step == 1:
            before[axis], after[axis] = taken.start, size - taken.stop
        else:
            grad = take_back(s, grad, axis % len(shape), size=size, taken=list(taken))
    return grad.padded(before, after)


def _slice_back(s: GradientSite) -> Tensor:
    """The same for sizes that are known only when the graph runs: scatter dy to the places that Slice takes."""
    size, shape = s.x.op("Size"), s.x.op("Shape")
    places = s.build.constant(np.int64(0)).op("Range", size, s.build.constant(np.int64(1))).reshape(shape)
    bounds = [s.input(i) if s.has(i) else None for i in range(1, len(s.node.input))]
    taken = places.op("Slice", *bounds).reshape(-1)
    empty = s.build.zeros(size.reshape(1), s.dy)
    return empty.op("ScatterElements", taken, s.dy.reshape(-1), axis=0).reshape(shape)


@unary("Gather", since=1, until=13)
def gather(s: GradientSite) -> Tensor:
    """Dy scattered to the places it was taken from, places taken twice summed."""
    shape = s.shape(s.x, "data input")
    axis = s.attr("axis", 0) % len(shape)
    indices, size = s.value(1), shape[axis]
    if indices is not None and isinstance(size, int):
        places = indices.astype(np.int64)
        taken = np.where(places < 0, places + size, places)
        if np.unique(taken).size == taken.size and taken.ndim <= 1:
            grad = s.dy.unsqueeze(axis) if taken.ndim == 0 else s.dy
            return take_back(s, grad, axis, size=size, taken=taken.ravel().tolist())
    return _gather_back(s, axis)


def _gather_back(s: GradientSite, axis: int) -> Tensor:
    """Scatter along the first axis and bring it back to its place."""
    width = len(s.shape(s.input(1), "indices"))
    taken_axes = list(range(axis, axis + width))
    front = s.dy.transpose(taken_axes + [a for a in range(s.rank + width - 1) if a not in taken_axes])
    places = s.input(1).cast(TensorProto.INT64).unsqueeze(width)
    order = [axis, *(a for a in range(s.rank) if a != axis)]
    empty = s.build.zeros(s.x.shape.gather(s.build.ints(*order), 0), s.dy)
    return empty.op("ScatterND", places, front, reduction="add").transpose(np.argsort(order).tolist())


@unary("GatherElements", since=11, until=13)
def gather_elements(s: GradientSite) -> Tensor:
    """Dy scattered to the places it was taken from."""
    return s.x.zeros().op("ScatterElements", s.input(1), s.dy, axis=s.attr("axis", 0), reduction="add")


@unary("GatherND", since=11, until=13, note="batch_dims 0")
def gather_nd(s: GradientSite) -> Tensor:
    """Dy scattered to the places it was taken from."""
    if s.attr("batch_dims", 0):
        raise s.error("batch_dims is not supported")
    return s.x.zeros().op("ScatterND", s.input(1), s.dy, reduction="add")


@unary("Trilu", since=14, until=14)
def trilu(s: GradientSite) -> Tensor:
    """The same triangle of dy."""
    diagonal = [s.input(1)] if s.has(1) else []
    return s.dy.op("Trilu", *diagonal, upper=s.attr("upper", 1))


@rule("TopK", since=1, until=24)
def top_k(s: GradientSite) -> Grads:
    """Dy scattered to the places of the largest values."""
    s.only(0)
    indices = s.build.further_output(s.node, 1, "indices", elem_type=TensorProto.INT64)
    yield 0, s.x.zeros().op("ScatterElements", indices, s.dy, axis=s.attr("axis", -1), reduction="add")


@rule("Pad", since=2, until=25, note="pads constant; modes other than constant need a fixed size along padded axes")
def pad(s: GradientSite) -> Grads:
    """Dy without the padding; for other modes the padding's share goes to the places that it copied."""
    s.only(0)
    rank = s.rank
    pads = s.constant(1, "pads").ravel().astype(np.int64)
    axes = [a % rank for a in s.constant(3, "axes").ravel().tolist()] if s.has(3) else list(range(rank))
    before, after = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    before[axes], after[axes] = pads[: len(axes)], pads[len(axes) :]
    mode = s.attr("mode", "constant")
    yield 0, _crop(s, before, after) if mode == "constant" else _fold(s, before, after, mode)


def _crop(s: GradientSite, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Tensor:
    axes = [a for a in range(len(before)) if before[a] > 0 or after[a] > 0]
    grad, ints = s.dy, s.build.ints
    if axes:
        starts = [max(int(before[a]), 0) for a in axes]
        ends = [-int(after[a]) if after[a] > 0 else INT64_MAX for a in axes]
        grad = grad.op("Slice", ints(*starts), ints(*ends), ints(*axes))
    # A negative pad cut values off: they get zeros.
    return grad.padded(*([max(-int(v), 0) for v in side] for side in (before, after)))


def _fold(s: GradientSite, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], mode: str) -> Tensor:
    grad = s.dy
    for axis, size in enumerate(s.shape(s.x, "data input")):
        if not before[axis] and not after[axis]:
            continue
        if not isinstance(size, int):
            raise s.error(f"mode {mode} needs an input of fixed shape")
        source = np.arange(size)
        cut = slice(max(-before[axis], 0), size - max(-after[axis], 0))
        widths = (max(int(before[axis]), 0), max(int(after[axis]), 0))
        taken = np.pad(source[cut], widths, mode=mode)  # type: ignore[call-overload]
        grad = apply_along(s, grad, axis, (source[:, None] == taken).astype(float))
    return grad
