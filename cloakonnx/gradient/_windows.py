"""Sliding windows and the adjoint of sliding them: what Conv, ConvTranspose and the pooling ops share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cloakonnx.gradient._site import GradientSite
from cloakonnx.graph.build import INT64_MAX, Tensor
from cloakonnx.graph.index.index import Dim


class Axis(NamedTuple):
    """A window along one spatial axis: kernel size, stride, dilation, padding before and after."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def extent(self) -> int:
        """Distance from the first to the last place of the kernel, plus one."""
        return (self.kernel - 1) * self.dilation + 1

    def outputs(self, size: int) -> int:
        """Number of places that the window takes over an input of ``size``."""
        return (size + self.before + self.after - self.extent) // self.stride + 1


class Windows(NamedTuple):
    """The windows of a node, one for each spatial axis, with the sizes of its input and output along them."""

    axes: tuple[Axis, ...]
    inputs: tuple[Dim, ...]
    outputs: tuple[Dim, ...]

    @property
    def unit_stride(self) -> bool:
        """Whether every stride is 1."""
        return all(a.stride == 1 for a in self.axes)

    @property
    def places(self) -> int:
        """Number of places of the kernel."""
        return math.prod(a.kernel for a in self.axes)


def windows_of(s: GradientSite, kernel: Sequence[int]) -> Windows:
    """Read the windows of a Conv or pooling node whose data input has layout (N, C, spatial...)."""
    rank = len(kernel)
    inputs = s.shape(s.x, "data input")[2:]
    outputs = (s.y.dims or (None,) * (rank + 2))[2:]
    strides = s.attr("strides") or [1] * rank
    dilations = s.attr("dilations") or [1] * rank
    auto = s.attr("auto_pad", "NOTSET")
    pads = s.attr("pads") or [0] * (2 * rank)
    axes = []
    for i in range(rank):
        before, after = pads[i], pads[rank + i]
        if auto == "VALID":
            before = after = 0
        elif auto in {"SAME_UPPER", "SAME_LOWER"}:
            before, after = _same(s, inputs[i], kernel[i], strides[i], dilations[i])
        axes.append(Axis(kernel[i], strides[i], dilations[i], before, after))
    return Windows(tuple(axes), inputs, outputs)


def _same(s: GradientSite, size: Dim, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    extent = (kernel - 1) * dilation + 1
    if stride == 1:
        total = extent - 1
    elif isinstance(size, int):
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
    else:
        raise s.error("auto_pad with a stride needs an input of fixed shape")
    small, large = total // 2, total - total // 2
    return (small, large) if s.attr("auto_pad") == "SAME_UPPER" else (large, small)


def sizes(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return dimensions of a tensor as an int64 vector."""
    return x.builder.op("Concat", *(x.dim(axis) for axis in axes), axis=0)


def cut(grad: Tensor, starts: Sequence[int], ends: Tensor, axes: Sequence[int]) -> Tensor:
    """Return a part of a tensor."""
    ints = grad.builder.ints
    return grad.op("Slice", ints(*starts), ends, ints(*axes))


def adjoint(dy: Tensor, weight: Tensor, x: Tensor, *, windows: Windows, group: int) -> Tensor:
    """Return the gradient of a convolution's data input.

    Args:
        dy: Gradient of the output, (N, M, spatial...).
        weight: Weights, (M, C / group, kernel...), of known shape.
        x: The data input, (N, C, spatial...).
        windows: The convolution's windows.
        group: Number of groups.
    """
    shape = weight.static
    if dy.builder.provider == "cpu" and shape is not None and weight.is_fixed:
        plan = _plan(windows)
        if plan is not None:
            turned = _turned(weight, shape, plan, group)
            return _correlate(dy, turned, x, windows=windows, plan=plan, group=group)
    return _transposed(dy, weight, x, windows=windows, group=group)


def _transposed(dy: Tensor, weight: Tensor, x: Tensor, *, windows: Windows, group: int) -> Tensor:
    """The adjoint as a ConvTranspose, which any window allows."""
    axes = windows.axes
    common: dict[str, Any] = {
        "strides": [a.stride for a in axes],
        "dilations": [a.dilation for a in axes],
        "group": group,
        "kernel_shape": [a.kernel for a in axes],
    }
    rest = [
        size - ((out - 1) * a.stride + a.extent - a.before - a.after)
        for a, size, out in zip(axes, windows.inputs, windows.outputs, strict=True)
        if isinstance(size, int) and isinstance(out, int)
    ]
    if windows.unit_stride and not rest:
        rest = [0] * len(axes)
    if len(rest) == len(axes) and all(0 <= r < a.stride for r, a in zip(rest, axes, strict=True)):
        pads = [a.before for a in axes] + [a.after for a in axes]
        return dy.op("ConvTranspose", weight, pads=pads, output_padding=rest, **common)
    whole = dy.op("ConvTranspose", weight, output_padding=[a.stride - 1 for a in axes], **common)
    spatial = range(2, 2 + len(axes))
    starts = [a.before for a in axes]
    return cut(whole, starts, sizes(x, spatial) + dy.builder.ints(*starts), spatial)


class _AxisPlan(NamedTuple):
    """The adjoint along one axis as a correlation of dy.

    Place ``stride * q + phase`` of the input gets the sum over the kernel's places k of ``dy[q + u] * w[k]`` with
    ``u = (phase + before - k * dilation) / stride``, where that is whole.

    Attributes:
        taken: For each phase, for each u from ``low`` in steps of ``step``, the kernel's place, or -1.
        low: Smallest u.
        step: Distance between neighbouring u.
        pad: Zeros to add after dy so that every q is reached.
        crop: Whether the result can be longer than the input.
    """

    taken: tuple[tuple[int, ...], ...]
    low: int
    step: int
    pad: int
    crop: bool


class _Plan(NamedTuple):
    axes: tuple[_AxisPlan, ...]
    block: int

    @property
    def phases(self) -> list[tuple[int, ...]]:
        """Every combination of phases that some place of the kernel serves, as indices along the axes."""
        served = [[i for i, row in enumerate(a.taken) if any(k >= 0 for k in row)] for a in self.axes]
        return list(itertools.product(*served))


def _plan(windows: Windows) -> _Plan | None:
    strides = {a.stride for a in windows.axes}
    if len(strides) > 1 or (strides != {1} and len(windows.axes) != 2):
        return None  # DepthToSpace has one block size and two spatial axes
    plans = [_axis_plan(*args) for args in zip(windows.axes, windows.inputs, windows.outputs, strict=True)]
    known = tuple(p for p in plans if p is not None)
    return _Plan(known, strides.pop()) if len(known) == len(plans) else None


def _axis_plan(axis: Axis, size: Dim, out: Dim) -> _AxisPlan | None:
    s = axis.stride
    if s > 1 and axis.dilation > 1:
        return None
    found = {
        (r, (r + axis.before - k * axis.dilation) // s): k
        for r in range(s)
        for k in range(axis.kernel)
        if (r + axis.before - k * axis.dilation) % s == 0
    }
    low, high = min(u for _, u in found), max(u for _, u in found)
    if low > 0:
        return None  # more padding than the kernel covers
    step = axis.dilation
    taken = tuple(tuple(found.get((r, u), -1) for u in range(low, high + 1, step)) for r in range(s))
    if isinstance(size, int) and isinstance(out, int):
        gap = math.ceil(size / s) - out
        pad = max(gap + high, 0)
        crop = s * (out - low + pad - (high - low)) != size
        return _AxisPlan(taken, low, step, pad, crop)
    base = s * (axis.extent + 1)
    gaps = {math.ceil(n / s) - axis.outputs(n) for n in range(base, base + s)}
    pad = max(max(gaps) + high, 0)
    return _AxisPlan(taken, low, step, pad, crop=s > 1 or min(gaps) + high < 0)


def _turned(weight: Tensor, shape: tuple[int, ...], plan: _Plan, group: int) -> Tensor:
    """Turn the weights into those of the adjoint's correlation, by nodes that the runtime folds when it loads."""
    out, inner, *kernel = shape
    counts = [len(a.taken[0]) for a in plan.axes]
    table = np.full((len(plan.phases), *counts), -1, np.int64)
    for p, phase in enumerate(plan.phases):
        for place in itertools.product(*(range(c) for c in counts)):
            ks = [a.taken[r][u] for a, r, u in zip(plan.axes, phase, place, strict=True)]
            if min(ks) >= 0:
                table[(p, *place)] = np.ravel_multi_index(ks, kernel)
    places = math.prod(kernel)
    flat = weight.reshape(group, out // group, inner, places)
    if (table < 0).any():
        flat = flat.padded([0] * 4, [0, 0, 0, 1])
        table[table < 0] = places
    if not np.array_equal(table.ravel(), np.arange(places)):
        flat = flat.gather(weight.builder.ints(*table.ravel().tolist()), 3)
    split = flat.reshape(group, out // group, inner, len(plan.phases), *counts)
    turned = split.transpose([0, 2, 3, 1, *range(4, 4 + len(counts))])
    return turned.reshape(group * inner * len(plan.phases), out // group, *counts)


def _correlate(dy: Tensor, turned: Tensor, x: Tensor, *, windows: Windows, plan: _Plan, group: int) -> Tensor:
    result = dy.op(
        "Conv",
        turned,
        pads=[-a.low for a in plan.axes] + [a.pad for a in plan.axes],
        dilations=[a.step for a in plan.axes],
        strides=[1] * len(plan.axes),
        kernel_shape=[len(a.taken[0]) for a in plan.axes],
        group=group,
    )
    if plan.block > 1:
        result = _interleave(result, x, plan)
    if not any(a.crop for a in plan.axes):
        return result
    spatial = range(2, 2 + len(plan.axes))
    known = [d for d in windows.inputs if isinstance(d, int)]
    ends = dy.builder.ints(*known) if len(known) == len(windows.inputs) else sizes(x, spatial)
    return cut(result, [0] * len(spatial), ends, spatial)


def _interleave(phases: Tensor, x: Tensor, plan: _Plan) -> Tensor:
    """Bring the phases, which lie in the channels, to their places."""
    block, count = plan.block, plan.block**2
    if len(plan.phases) == count:
        return phases.op("DepthToSpace", blocksize=block, mode="CRD")
    shape = x.dims
    channels = shape[1] if shape is not None else None
    if len(plan.phases) != 1 or not isinstance(channels, int):
        return _all_phases(phases, plan).op("DepthToSpace", blocksize=block, mode="CRD")
    row, column = plan.phases[0]
    before = row * block + column
    padded = phases.padded([0, before * channels, 0, 0], [0, (count - 1 - before) * channels, 0, 0])
    return padded.op("DepthToSpace", blocksize=block, mode="DCR")


def _all_phases(phases: Tensor, plan: _Plan) -> Tensor:
    """Add zero channels for the phases that no place of the kernel serves: (N, C * served) to (N, C * block ** 2)."""
    served = [row * plan.block + column for row, column in plan.phases]
    table = [served.index(p) if p in served else len(served) for p in range(plan.block**2)]
    ints, spatial = phases.builder.ints, phases.op("Shape", start=2, end=INT64_MAX)
    split = phases.reshape(ints(0, -1, len(served)).op("Concat", spatial, axis=0))
    placed = split.padded([0] * 5, [0, 0, 1, 0, 0]).gather(ints(*table), 2)
    return placed.reshape(ints(0, -1).op("Concat", spatial, axis=0))
