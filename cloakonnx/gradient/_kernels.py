"""The gradient of a convolution by its weights, as convolutions and products of its input and its output's gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cloakonnx.gradient._windows import Windows, cut
from cloakonnx.graph.build import INT64_MAX, Tensor

_BLOCK = 8
"""Channels that a depthwise convolution's gradient takes at a time: groups of one channel are slow in ONNX Runtime."""


def weight_gradient(x: Tensor, dy: Tensor, *, windows: Windows, shape: Sequence[int], group: int) -> Tensor:
    """Return the gradient of a convolution by its weights, summed over the batch.

    Args:
        x: The data input, (N, C, spatial...), whose sizes are known, except that of the batch.
        dy: Gradient of the output, (N, M, spatial...).
        windows: The convolution's windows.
        shape: Of the weights, (M, C / group, kernel...).
        group: Number of groups.
    """
    out, inner, *kernel = shape
    if windows.places == 1 and not any(a.before or a.after for a in windows.axes):
        return _product(x, dy, windows=windows, shape=shape, group=group)
    if inner == 1 and out == group and group % _BLOCK == 0:
        wide = [out, _BLOCK, *kernel]
        dense = _interleaved(x, dy, windows=windows, shape=wide, group=group // _BLOCK)
        blocks = dense.reshape(out // _BLOCK, _BLOCK, _BLOCK, *kernel)
        own = np.eye(_BLOCK, dtype=x.dtype).reshape(1, _BLOCK, _BLOCK, *(1 for _ in kernel))
        return (blocks * x.builder.constant(own)).sum(2, keepdims=False).reshape(*shape)
    return _interleaved(x, dy, windows=windows, shape=shape, group=group)


def _interleaved(x: Tensor, dy: Tensor, *, windows: Windows, shape: Sequence[int], group: int) -> Tensor:
    """The gradient as one convolution of x by dy, the channels interleaved with the last spatial axis.

    x goes in as (1, G N, spatial..., last * C / G), dy as the kernel (M, N, spatial...), dilated by the strides: the
    result has an entry for each place of the kernel and each channel, along its last axes. ONNX Runtime cuts windows of
    one long row in pieces that fit the cache.
    """
    out, inner, *kernel = shape
    rank, axes = len(kernel), windows.axes
    spatial = [size for size in windows.inputs if isinstance(size, int)]
    assert len(spatial) == rank  # the rules check it
    rows = x.transpose([0, *range(2, 2 + rank), 1])
    if group > 1:
        rows = x.reshape(-1, group, inner, *spatial).transpose([1, 0, *range(3, 3 + rank), 2])
    rows = rows.reshape(1, -1, *spatial[:-1], spatial[-1] * inner)
    scale = [1] * (rank - 1) + [inner]
    known = [size for size in windows.outputs if isinstance(size, int)]
    attributes: dict[str, Any] = {} if len(known) < rank else {"kernel_shape": known}
    found = rows.op(
        "Conv",
        dy.transpose([1, 0, *range(2, 2 + rank)]),
        pads=[a.before * s for a, s in zip(axes, scale, strict=True)]
        + [a.after * s for a, s in zip(axes, scale, strict=True)],
        dilations=[a.stride * s for a, s in zip(axes, scale, strict=True)],
        strides=[a.dilation for a in axes[:-1]] + [1],
        group=group,
        **attributes,
    )
    reach = axes[-1].extent
    ends = [*kernel[:-1], reach * inner]
    if len(known) < rank or any(_rest(windows, i) for i in range(rank)):
        found = cut(found, [0] * rank, x.builder.ints(*ends), range(2, 2 + rank))
    found = found.reshape(out, *kernel[:-1], reach, inner)
    if axes[-1].dilation > 1:
        ints = x.builder.ints
        found = found.op("Slice", ints(0), ints(INT64_MAX), ints(rank), ints(axes[-1].dilation))
    return found.transpose([0, rank + 1, *range(1, rank + 1)])


def _rest(windows: Windows, axis: int) -> bool:
    """Whether the windows along an axis do not end where the padded input does."""
    a, size, places = windows.axes[axis], windows.inputs[axis], windows.outputs[axis]
    assert isinstance(size, int)
    assert isinstance(places, int)
    return size + a.before + a.after != a.stride * (places - 1) + a.extent


def _product(x: Tensor, dy: Tensor, *, windows: Windows, shape: Sequence[int], group: int) -> Tensor:
    """The gradient by 1 x 1 kernels: a matrix product a sample and group, summed over the batch."""
    out, inner, *kernel = shape
    ints, rank = x.builder.ints, len(kernel)
    if not windows.unit_stride:
        starts, ends = ints(*[0] * rank), ints(*[INT64_MAX] * rank)
        x = x.op("Slice", starts, ends, ints(*range(2, 2 + rank)), ints(*(a.stride for a in windows.axes)))
    known = [size for size in windows.outputs if isinstance(size, int)]
    batch, places = (-1, math.prod(known)) if len(known) == rank else (0, -1)
    columns = x.reshape(batch, group, inner, places)
    rows = dy.reshape(batch, group, out // group, places)
    return rows.op("MatMul", columns.transpose([0, 1, 3, 2])).sum(0, keepdims=False).reshape(*shape)
