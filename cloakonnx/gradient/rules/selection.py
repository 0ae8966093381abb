"""Ops that pick values by place: slices, gathers, pads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import INT64_MAX, Emitter
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.gradient.rules._along import apply_along, take_back


@unary("Slice", since=1, until=13, note="starts, ends, axes and steps constant")
def slice_(e: Emitter, s: Site) -> str:
    """Dy with zeros where nothing was taken, axis by axis."""
    shape = s.shape(s.x(), "data input")
    starts = s.constant(1, "starts").ravel().tolist()
    ends = s.constant(2, "ends").ravel().tolist()
    axes = s.constant(3, "axes").ravel().tolist() if s.has(3) else list(range(len(starts)))
    steps = s.constant(4, "steps").ravel().tolist() if s.has(4) else [1] * len(starts)
    if not all(isinstance(shape[axis], int) for axis in axes):
        return _slice_back(e, s)
    grad, before, after = s.dy, [0] * len(shape), [0] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = int(shape[axis] or 0)
        taken = range(size)[slice(start, end if end >= -size else None, step)]
        if step == 1:
            before[axis], after[axis] = taken.start, size - taken.stop
        else:
            grad = take_back(e, s, grad, axis % len(shape), size=size, taken=list(taken))
    if not any(before + after):
        return grad
    return e.op("Pad", grad, e.ints(*before, *after))


def _slice_back(e: Emitter, s: Site) -> str:
    """The same for sizes that are known only when the graph runs: scatter dy to the places that Slice takes."""
    places = e.op(
        "Reshape",
        e.op("Range", e.constant(np.int64(0)), e.op("Size", s.x()), e.constant(np.int64(1))),
        e.op("Shape", s.x()),
    )
    taken = e.op("Reshape", e.op("Slice", places, *s.node.input[1:]), e.ints(-1))
    empty = e.zeros(e.op("Reshape", e.op("Size", s.x()), e.ints(1)), s.x())
    flat = e.op("Reshape", s.dy, e.ints(-1))
    return e.op("Reshape", e.op("ScatterElements", empty, taken, flat, axis=0), e.op("Shape", s.x()))


@unary("Gather", since=1, until=13)
def gather(e: Emitter, s: Site) -> str:
    """Dy scattered to the places it was taken from, places taken twice summed."""
    shape = s.shape(s.x(), "data input")
    axis = s.attr("axis", 0) % len(shape)
    indices, size = s.value(1), shape[axis]
    if indices is not None and isinstance(size, int):
        places = indices.astype(np.int64)
        taken = np.where(places < 0, places + size, places)
        if np.unique(taken).size == taken.size and taken.ndim <= 1:
            grad = e.op("Unsqueeze", s.dy, e.ints(axis)) if taken.ndim == 0 else s.dy
            return take_back(e, s, grad, axis, size=size, taken=taken.ravel().tolist())
    return _gather_back(e, s, axis, len(shape))


def _gather_back(e: Emitter, s: Site, axis: int, rank: int) -> str:
    """Scatter along the first axis and bring it back to its place."""
    width = len(s.shape(s.x(1), "indices"))
    total = rank + width - 1
    taken_axes = list(range(axis, axis + width))
    front = e.op("Transpose", s.dy, perm=taken_axes + [a for a in range(total) if a not in taken_axes])
    places = e.op("Unsqueeze", e.op("Cast", s.x(1), to=7), e.ints(width))
    order = [axis, *(a for a in range(rank) if a != axis)]
    shape = e.op("Gather", e.shape_of(s.x()), e.ints(*order), axis=0)
    summed = e.op("ScatterND", e.zeros(shape, s.x()), places, front, reduction="add")
    return e.op("Transpose", summed, perm=np.argsort(order).tolist())


@unary("GatherElements", since=11, until=13)
def gather_elements(e: Emitter, s: Site) -> str:
    """Dy scattered to the places it was taken from."""
    return e.op("ScatterElements", e.zeros_like(s.x()), s.x(1), s.dy, axis=s.attr("axis", 0), reduction="add")


@unary("GatherND", since=11, until=13, note="batch_dims 0")
def gather_nd(e: Emitter, s: Site) -> str:
    """Dy scattered to the places it was taken from."""
    if s.attr("batch_dims", 0):
        raise s.error("batch_dims is not supported")
    return e.op("ScatterND", e.zeros_like(s.x()), s.x(1), s.dy, reduction="add")


@rule("TopK", since=1, until=24)
def top_k(e: Emitter, s: Site) -> Grads:
    """Dy scattered to the places of the largest values."""
    s.only(0)
    indices = e.further_output(s.node, 1, "indices")
    yield 0, e.op("ScatterElements", e.zeros_like(s.x()), indices, s.dy, axis=s.attr("axis", -1), reduction="add")


@rule("Pad", since=2, until=25, note="pads constant; modes other than constant need a fixed size along padded axes")
def pad(e: Emitter, s: Site) -> Grads:
    """Dy without the padding; for other modes the padding's share goes to the places that it copied."""
    s.only(0)
    rank = len(s.shape(s.x(), "data input"))
    pads = s.constant(1, "pads").ravel().astype(np.int64)
    axes = [a % rank for a in s.constant(3, "axes").ravel().tolist()] if s.has(3) else list(range(rank))
    before, after = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    before[axes], after[axes] = pads[: len(axes)], pads[len(axes) :]
    mode = s.attr("mode", "constant")
    yield 0, _crop(e, s, before, after) if mode == "constant" else _fold(e, s, before, after, mode)


def _crop(e: Emitter, s: Site, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> str:
    axes = [a for a in range(len(before)) if before[a] > 0 or after[a] > 0]
    grad = s.dy
    if axes:
        starts = [max(int(before[a]), 0) for a in axes]
        ends = [-int(after[a]) if after[a] > 0 else INT64_MAX for a in axes]
        grad = e.op("Slice", grad, e.ints(*starts), e.ints(*ends), e.ints(*axes))
    restored = [max(-int(v), 0) for v in (*before, *after)]  # a negative pad cut values off: they get zeros
    return e.op("Pad", grad, e.ints(*restored)) if any(restored) else grad


def _fold(e: Emitter, s: Site, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], mode: str) -> str:
    grad, shape = s.dy, s.shape(s.x(), "data input")
    for axis, size in enumerate(shape):
        if not before[axis] and not after[axis]:
            continue
        if not isinstance(size, int):
            raise s.error(f"mode {mode} needs an input of fixed shape")
        source = np.arange(size)
        cut = slice(max(-before[axis], 0), size - max(-after[axis], 0))
        widths = (max(int(before[axis]), 0), max(int(after[axis]), 0))
        taken = np.pad(source[cut], widths, mode=mode)  # type: ignore[call-overload]
        grad = apply_along(e, s, grad, axis, (source[:, None] == taken).astype(float))
    return grad
