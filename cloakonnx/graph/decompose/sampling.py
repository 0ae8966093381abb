"""AffineGrid as a product; GridSample as a weighted sum of the pixels around each place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import TensorProto

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import Node, decomposition

_CUBIC = -0.75
"""The constant of the cubic convolution kernel (Keys 1981, equation 4), as ONNX and PyTorch have it."""


@dataclass(frozen=True)
class _Axis:
    """Places along one axis of the image.

    Attributes:
        place: Where, in pixels, (N, places).
        size: Pixels along the axis, a float of rank 0.
    """

    place: Tensor
    size: Tensor


@decomposition("AffineGrid", until=20)
def affine_grid(s: Node) -> Tensor:
    """The coordinates of the pixels, (x, y, 1) or (x, y, z, 1), times the matrices."""
    dims = s.shape(0)
    if not isinstance(dims[1], int):
        raise s.error("the shape of its matrices is unknown")
    rank, size = dims[1], s.input(1)
    spatial = size.op("Slice", s.build.ints(2), s.build.ints(2 + rank), s.build.ints(0))
    columns = []
    for axis in reversed(range(rank)):
        count = size.gather(s.build.scalar(2 + axis), 0)
        steps = s.build.scalar(0).op("Range", count, s.build.scalar(1)).cast(s.x)
        length = count.cast(s.x)
        given = (
            steps * 2 / (length - 1).op("Max", 1) - 1 if s.attr("align_corners", 0) else (steps * 2 + 1) / length - 1
        )
        column = given.reshape(*(-1 if a == axis else 1 for a in range(rank))).op("Expand", spatial)
        columns.append(column.unsqueeze(rank))
    first = columns[0]
    points = first.op("Concat", *columns[1:], first * 0 + 1, axis=rank).reshape(1, -1, rank + 1)
    grid = points.op("MatMul", s.x.transpose([0, 2, 1]))
    shape = size.op("Slice", s.build.ints(0), s.build.ints(1), s.build.ints(0)).op(
        "Concat", spatial, s.build.ints(rank), axis=0
    )
    return grid.reshape(shape)


@decomposition("GridSample", until=22)
def grid_sample(s: Node) -> Tensor:
    """Gather the pixels around each place, weighted by their distance."""
    dims, grid = s.shape(0), s.input(1)
    rank, corners, padding = len(dims) - 2, bool(s.attr("align_corners", 0)), s.attr("padding_mode", "zeros")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(s.attr("mode", "linear"), s.attr("mode", "linear"))
    batch = grid.dim(0)
    flat = grid.reshape(batch.op("Concat", s.build.ints(-1, rank), axis=0))
    axes = []
    for axis in range(rank):
        size = s.x.dim(2 + axis).squeeze(0).cast(s.x)
        given = flat.gather(s.build.scalar(rank - 1 - axis), 2).cast(s.x)
        place = (given + 1) / 2 * (size - 1) if corners else ((given + 1) * size - 1) / 2
        if mode != "cubic":
            place = _inside(place, size, padding, corners)
        axes.append(_Axis(place, size))
    pixels = s.x.reshape(s.x.op("Shape", start=0, end=2).op("Concat", s.build.ints(-1), axis=0))
    terms = []
    for chosen in itertools.product(*(list(_near(axis, mode)) for axis in axes)):
        terms.append(_term(s, pixels, axes, chosen, corners=corners))
    total, *others = terms
    for each in others:
        total = total + each
    shape = s.x.op("Shape", start=0, end=2).op("Concat", grid.op("Shape", start=1, end=1 + rank), axis=0)
    return total.reshape(shape)


def _term(
    s: Node, pixels: Tensor, axes: list[_Axis], chosen: tuple[tuple[Tensor, Tensor | None], ...], *, corners: bool
) -> Tensor:
    """Return the pixels at one corner around each place, times their weights, (N, C, places)."""
    place, padding = None, s.attr("padding_mode", "zeros")
    factors = [share for _, share in chosen if share is not None]
    for axis, (near, _) in zip(axes, chosen, strict=True):
        if padding == "zeros":
            factors.append(((near >= 0) & (near <= axis.size - 1)).cast(s.x))
        held = _inside(near, axis.size, padding, corners)
        held = held.op("Max", 0).op("Min", axis.size - 1)  # so that every place can be read
        place = held if place is None else place * axis.size + held
    assert place is not None
    index = place.cast(TensorProto.INT64).unsqueeze(1)
    shape = pixels.op("Shape", start=0, end=2).op("Concat", index.op("Shape", start=2, end=3), axis=0)
    found = pixels.op("GatherElements", index.op("Expand", shape), axis=2)
    for each in factors:
        found = found * each.unsqueeze(1)
    return found


def _near(axis: _Axis, mode: str) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the pixels that count along an axis, and their weights; None for 1."""
    if mode == "nearest":
        yield axis.place.op("Round"), None
        return
    first = axis.place.op("Floor")
    share = axis.place - first
    if mode == "linear":
        yield first, 1 - share
        yield first + 1, share
        return
    for step in (-1, 0, 1, 2):
        away = share + 1 if step == -1 else share if step == 0 else step - share
        yield first + step, _far(away) if step in {-1, 2} else _close(away)


def _close(t: Tensor) -> Tensor:
    """The kernel up to a distance of 1."""
    return ((_CUBIC + 2) * t - (_CUBIC + 3)) * t * t + 1


def _far(t: Tensor) -> Tensor:
    """The kernel from a distance of 1 to 2."""
    return ((_CUBIC * t - 5 * _CUBIC) * t + 8 * _CUBIC) * t - 4 * _CUBIC


def _inside(place: Tensor, size: Tensor, padding: str, corners: bool) -> Tensor:
    """Bring places outside the image back: to its border, or reflected at it."""
    if padding == "zeros":
        return place
    if padding == "reflection":
        low, high = (0 * size, size - 1) if corners else (0 * size - 0.5, size - 0.5)
        span = high - low
        double = (span + span).op("Max", 1e-6)
        away = abs(place - low)
        rest = away - (away / double).op("Floor") * double
        place = low + (rest > span).where(double - rest, rest)
    return place.op("Max", 0).op("Min", size - 1)
