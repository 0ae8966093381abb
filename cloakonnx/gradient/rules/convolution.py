"""Convolutions with constant weights."""

from __future__ import annotations

from cloakonnx.gradient import _windows as windows
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule
from cloakonnx.graph.index.index import Dim


def _kernel(s: GradientSite) -> list[int]:
    shape = s.shape(s.input(1), "weights")
    known = [d for d in shape[2:] if isinstance(d, int)]
    return s.attr("kernel_shape") or known


@rule("Conv", since=1, until=22, note="weights constant")
def conv(s: GradientSite) -> Grads:
    """The adjoint of sliding the weights over the input."""
    s.only(0)
    window = windows.windows_of(s, _kernel(s))
    yield 0, windows.adjoint(s.dy, s.input(1), s.x, windows=window, group=s.attr("group", 1))


@rule("ConvTranspose", since=1, until=22, note="weights constant")
def conv_transpose(s: GradientSite) -> Grads:
    """A convolution of dy by the same weights."""
    s.only(0)
    kernel = _kernel(s)
    rank = len(kernel)
    strides = s.attr("strides") or [1] * rank
    dilations = s.attr("dilations") or [1] * rank
    data, result = s.shape(s.x, "data input")[2:], (s.y.dims or (None,) * (rank + 2))[2:]
    begins, ends = [], []
    for i in range(rank):
        before, after = _pads(s, i, rank)
        if s.attr("output_shape") or s.attr("auto_pad", "NOTSET") != "NOTSET":
            total = _total(s, data[i], result[i], strides[i], (kernel[i] - 1) * dilations[i] + 1)
            before = total - total // 2 if s.attr("auto_pad") == "SAME_LOWER" else total // 2
            after = total - before
        begins.append(before)
        ends.append(after)
    extra = [max(0, o - t + 1) for o, t in zip(s.attr("output_padding") or [0] * rank, strides, strict=True)]
    grad = s.dy.op(
        "Conv",
        s.input(1),
        pads=begins + ends,
        strides=strides,
        dilations=dilations,
        group=s.attr("group", 1),
        kernel_shape=kernel,
    )
    if any(extra):  # dy is longer than the windows need
        spatial = range(2, 2 + rank)
        grad = windows.cut(grad, [0] * rank, windows.sizes(s.x, spatial), spatial)
    yield 0, grad


def _pads(s: GradientSite, axis: int, rank: int) -> tuple[int, int]:
    pads = s.attr("pads") or [0] * (2 * rank)
    return pads[axis], pads[rank + axis]


def _total(s: GradientSite, size: Dim, result: Dim, stride: int, extent: int) -> int:
    if s.attr("auto_pad") == "VALID":
        return 0
    if not isinstance(size, int) or not isinstance(result, int):
        raise s.error("output_shape and auto_pad need an input of fixed shape")
    return max(stride * (size - 1) + extent - result, 0)
