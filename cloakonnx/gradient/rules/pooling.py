"""Pooling."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cloakonnx.gradient import _windows as windows
from cloakonnx.gradient._site import Site
from cloakonnx.gradient._windows import Axis, Windows
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import Grads, rule, unary


@rule("MaxPool", since=1, until=22)
def max_pool(e: Emitter, s: Site) -> Grads:
    """Dy goes to the place that each maximum was taken from, by MaxPool's own indices."""
    s.only(0)
    if s.attr("storage_order", 0):
        raise s.error("storage_order=1 is not supported")
    indices = e.further_output(s.node, 1, "indices")
    size = e.op("Size", s.x()) if s.info.static(s.x()) is None else e.constant(np.int64(_size(s)))
    empty = e.zeros(e.op("Reshape", size, e.ints(1)), s.x())
    flat = (e.op("Reshape", name, e.ints(-1)) for name in (indices, s.dy))
    yield 0, e.reshape_like(e.op("ScatterElements", empty, *flat, axis=0, reduction="add"), s.x())


def _size(s: Site) -> int:
    return math.prod(s.info.static(s.x()) or ())


@rule("AveragePool", since=7, until=22)
def average_pool(e: Emitter, s: Site) -> Grads:
    """Dy / count spread over each window."""
    s.only(0)
    window = windows.windows_of(s, s.attr("kernel_shape"))
    covers = all(
        o == 1 and i == a.kernel and a.before == a.after == 0 and a.dilation == 1
        for a, i, o in zip(window.axes, window.inputs, window.outputs, strict=True)
    )
    if covers:
        share = e.scaled(s.dy, 1 / math.prod(a.kernel for a in window.axes), s.x())
        yield 0, e.expand_like(share, s.x())
        return
    share = _shares(e, s, window)
    yield 0, _repeated(e, s, share, window) or _spread(e, s, share, window)


def _shares(e: Emitter, s: Site, window: Windows) -> str:
    """Dy divided by the number of values that each window averaged."""
    include = bool(s.attr("count_include_pad", 0))
    plain = all(a.before == a.after == 0 for a in window.axes) or include
    if plain and not s.attr("ceil_mode", 0):
        return e.scaled(s.dy, 1 / math.prod(a.kernel for a in window.axes), s.x())
    counts = np.ones((1, 1), np.int64)
    for axis, size, out in zip(window.axes, window.inputs, window.outputs, strict=True):
        if not isinstance(size, int) or not isinstance(out, int):
            raise s.error("averages that leave the padding out need an input of fixed shape")
        counts = counts[..., None] * _counts(axis, size, out, include)
    return e.op("Div", s.dy, e.constant(counts.astype(s.info.dtype(s.x()))))


def _counts(axis: Axis, size: int, out: int, include: bool) -> npt.NDArray[np.int64]:
    """How many values each window takes along an axis; a window may hang over the end when sizes are rounded up."""
    places = np.arange(out)[:, None] * axis.stride - axis.before + np.arange(axis.kernel) * axis.dilation
    first, last = (-axis.before, size + axis.after) if include else (0, size)
    return np.asarray(((places >= first) & (places < last)).sum(1), np.int64)


def _repeated(e: Emitter, s: Site, share: str, window: Windows) -> str | None:
    """Windows side by side without padding: each share is repeated over its window."""
    fits = all(
        a.kernel == a.stride and a.before == a.after == 0 and a.dilation == 1 and i == a.kernel * o
        for a, i, o in zip(window.axes, window.inputs, window.outputs, strict=True)
        if isinstance(o, int)
    )
    if not fits or not all(isinstance(o, int) for o in window.outputs):
        return None
    scales = e.constant(np.array([1, 1, *(a.kernel for a in window.axes)], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return e.op("Resize", share, "", scales, **how)


def _spread(e: Emitter, s: Site, share: str, window: Windows) -> str:
    """The adjoint of a convolution by ones, channel by channel."""
    channels = s.shape(s.x(), "data input")[1]
    if not isinstance(channels, int):
        raise s.error("the number of its channels is unknown")
    ones = np.ones((channels, 1, *(a.kernel for a in window.axes)), s.info.dtype(s.x()))
    return windows.adjoint(e, share, e.constant(ones), s.x(), windows=window, group=channels)


@unary("GlobalAveragePool", until=22)
def global_average_pool(e: Emitter, s: Site) -> str:
    """Dy / count, everywhere."""
    shape = s.shape(s.x(), "data input")
    spatial = [d for d in shape[2:] if isinstance(d, int)]
    if len(spatial) == len(shape) - 2:
        return e.expand_like(e.scaled(s.dy, 1 / math.prod(spatial), s.x()), s.x())
    count = e.op("ReduceProd", e.op("Shape", s.x(), start=2), keepdims=0)
    return e.expand_like(e.op("Div", s.dy, e.cast(count, s.x())), s.x())


@unary("GlobalMaxPool", until=22)
def global_max_pool(e: Emitter, s: Site) -> str:
    """Dy goes to the maximum; places that tie share it equally."""
    best = e.cast(e.op("Equal", s.x(), s.y()), s.x())
    axes = range(2, len(s.shape(s.x(), "data input")))
    return e.op("Mul", e.op("Div", s.dy, e.sum_over(best, axes, keepdims=True)), best)
