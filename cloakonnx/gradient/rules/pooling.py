"""Pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from cloakonnx.gradient import _windows as windows
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient._windows import Axis, Windows
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.graph.build import Tensor


@rule("MaxPool", since=1, until=22)
def max_pool(s: GradientSite) -> Grads:
    """Dy goes to the place that each maximum was taken from, by MaxPool's own indices."""
    s.only(0)
    if s.attr("storage_order", 0):
        raise s.error("storage_order=1 is not supported")
    indices = s.build.further_output(s.node, 1, "indices", elem_type=TensorProto.INT64)
    static = s.x.static
    size = s.x.op("Size") if static is None else s.build.constant(np.int64(math.prod(static)))
    empty = s.build.zeros(size.reshape(1), s.x)
    flat = (tensor.reshape(-1) for tensor in (indices, s.dy))
    yield 0, empty.op("ScatterElements", *flat, axis=0, reduction="add").shaped_as(s.x)


@rule("AveragePool", since=7, until=22)
def average_pool(s: GradientSite) -> Grads:
    """Dy / count spread over each window."""
    s.only(0)
    window = windows.windows_of(s, s.attr("kernel_shape"))
    covers = all(
        o == 1 and i == a.kernel and a.before == a.after == 0 and a.dilation == 1
        for a, i, o in zip(window.axes, window.inputs, window.outputs, strict=True)
    )
    if covers:
        yield 0, (s.dy * (1 / window.places)).expanded_as(s.x)
        return
    share = _shares(s, window)
    yield 0, _repeated(share, window) or _spread(s, share, window)


def _shares(s: GradientSite, window: Windows) -> Tensor:
    """Dy divided by the number of values that each window averaged."""
    include = bool(s.attr("count_include_pad", 0))
    plain = all(a.before == a.after == 0 for a in window.axes) or include
    if plain and not s.attr("ceil_mode", 0):
        return s.dy * (1 / window.places)
    counts = np.ones((1, 1), np.int64)
    for axis, size, out in zip(window.axes, window.inputs, window.outputs, strict=True):
        if not isinstance(size, int) or not isinstance(out, int):
            raise s.error("averages that leave the padding out need an input of fixed shape")
        counts = counts[..., None] * _counts(axis, size, out, include)
    return s.dy / s.build.constant(counts.astype(s.x.dtype))


def _counts(axis: Axis, size: int, out: int, include: bool) -> npt.NDArray[np.int64]:
    """How many values each window takes along an axis; a window may reach past the end where sizes are rounded up."""
    places = np.arange(out)[:, None] * axis.stride - axis.before + np.arange(axis.kernel) * axis.dilation
    first, last = (-axis.before, size + axis.after) if include else (0, size)
    return np.asarray(((places >= first) & (places < last)).sum(1), np.int64)


def _repeated(share: Tensor, window: Windows) -> Tensor | None:
    """Windows side by side without padding: each share is repeated over its window."""
    fits = all(
        a.kernel == a.stride and a.before == a.after == 0 and a.dilation == 1 and i == a.kernel * o
        for a, i, o in zip(window.axes, window.inputs, window.outputs, strict=True)
        if isinstance(o, int)
    )
    if not fits or not all(isinstance(o, int) for o in window.outputs):
        return None
    scales = share.builder.constant(np.array([1, 1, *(a.kernel for a in window.axes)], np.float32))
    how: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return share.op("Resize", None, scales, **how)


def _spread(s: GradientSite, share: Tensor, window: Windows) -> Tensor:
    """The adjoint of a convolution by ones, channel by channel."""
    ones = s.build.constant(np.ones((s.channels, 1, *(a.kernel for a in window.axes)), s.x.dtype))
    return windows.adjoint(share, ones, s.x, windows=window, group=s.channels)


@unary("GlobalAveragePool", until=22)
def global_average_pool(s: GradientSite) -> Tensor:
    """Dy / count, everywhere."""
    spatial = s.shape(s.x, "data input")[2:]
    known = [d for d in spatial if isinstance(d, int)]
    if len(known) == len(spatial):
        return (s.dy * (1 / math.prod(known))).expanded_as(s.x)
    count = s.x.op("Shape", start=2).op("ReduceProd", keepdims=0)
    return (s.dy / count.cast(s.x)).expanded_as(s.x)


@unary("GlobalMaxPool", until=22)
def global_max_pool(s: GradientSite) -> Tensor:
    """Dy goes to the maximum; places that tie share it equally."""
    best = s.x.equals(s.y).cast(s.x)
    return s.dy / best.sum(range(2, s.rank)) * best
