"""Convolutions."""

from __future__ import annotations

from cloakonnx.gradient import _windows as windows
from cloakonnx.gradient._kernels import weight_gradient
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule
from cloakonnx.graph.build import Tensor
from cloakonnx.graph.index.index import Dim


def _kernel(s: GradientSite) -> list[int]:
    shape = s.shape(s.input(1), "weights")
    known = [d for d in shape[2:] if isinstance(d, int)]
    return s.attr("kernel_shape") or known


@rule("Conv", since=1, until=22)
def conv(s: GradientSite) -> Grads:
    """The adjoint of sliding the weights over the input; of the weights, x against dy; of the bias, dy summed."""
    window = windows.windows_of(s, _kernel(s))
    if s.wants(0):
        yield 0, windows.adjoint(s.dy, s.input(1), s.x, windows=window, group=s.attr("group", 1))
    if s.wants(1):
        yield 1, _by_weights(s, s.x, s.dy, window)
    if s.wants(2):
        yield 2, _by_bias(s)


def _by_weights(s: GradientSite, data: Tensor, grad: Tensor, window: windows.Windows) -> Tensor:
    """The gradient by the weights of a convolution of ``data``, ``grad`` being that of its output."""
    shape = s.input(1).static
    if shape is None or not all(isinstance(size, int) for size in window.inputs):
        raise s.error("a gradient by its weights needs an input of fixed height and width")
    return weight_gradient(data, grad, windows=window, shape=shape, group=s.attr("group", 1))


def _by_bias(s: GradientSite) -> Tensor:
    return s.dy.sum([0, *range(2, s.rank)], keepdims=False)


@rule("ConvTranspose", since=1, until=22)
def conv_transpose(s: GradientSite) -> Grads:
    """A convolution of dy by the same weights; by the weights, that of this convolution."""
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
    if s.wants(1):
        places = [windows.Axis(*each) for each in zip(kernel, strides, dilations, begins, ends, strict=True)]
        yield 1, _by_weights(s, s.dy, s.x, windows.Windows(tuple(places), tuple(result), tuple(data)))
    if s.wants(2):
        yield 2, _by_bias(s)
    if not s.wants(0):
        return
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
