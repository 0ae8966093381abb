"""Normalisation with constant scale and bias."""

from __future__ import annotations

import numpy as np

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import unary


def _per_channel(e: Emitter, s: Site, name: str) -> str:
    """Give a vector over the channels the shape (C, 1, ...), which broadcasts over (N, C, ...)."""
    rank = len(s.shape(s.x(), "data input"))
    return e.op("Reshape", name, e.ints(-1, *(1 for _ in range(rank - 2))))


@unary("BatchNormalization", since=1, until=15, note="inference mode")
def batch_normalization(e: Emitter, s: Site) -> str:
    """Dy * scale / sqrt(var + eps)."""
    if s.attr("training_mode", 0):
        raise s.error("it is in training mode; export the model in evaluation mode")
    root = e.op("Sqrt", e.op("Add", s.x(4), e.number(s.attr("epsilon", 1e-5), s.x(4))))
    return e.op("Mul", s.dy, _per_channel(e, s, e.op("Div", s.x(1), root)))


def _standardised(e: Emitter, s: Site, x: str, g: str, axes: list[int]) -> str:
    """Gradient of (x - mean) / sqrt(var + eps) over ``axes`` for the gradient ``g`` of the quotient."""
    over = e.ints(*axes)
    centred = e.op("Sub", x, e.op("ReduceMean", x, over, keepdims=1))
    variance = e.op("ReduceMean", e.op("Mul", centred, centred), over, keepdims=1)
    root = e.op("Sqrt", e.op("Add", variance, e.number(s.attr("epsilon", 1e-5), s.x())))
    unit = e.op("Div", centred, root)
    mean = e.op("ReduceMean", g, over, keepdims=1)
    along = e.op("ReduceMean", e.op("Mul", g, unit), over, keepdims=1)
    return e.op("Div", e.op("Sub", e.op("Sub", g, mean), e.op("Mul", unit, along)), root)


@unary("LayerNormalization", since=17, until=17)
def layer_normalization(e: Emitter, s: Site) -> str:
    """The gradient of standardising over the last axes, of dy * scale."""
    rank = len(s.shape(s.x(), "data input"))
    axis = s.attr("axis", -1) % rank
    g = e.op("Mul", s.dy, s.x(1))
    return _standardised(e, s, s.x(), g, list(range(axis, rank)))


@unary("InstanceNormalization", since=6, until=22)
def instance_normalization(e: Emitter, s: Site) -> str:
    """The gradient of standardising over space, of dy * scale."""
    rank = len(s.shape(s.x(), "data input"))
    g = e.op("Mul", s.dy, _per_channel(e, s, s.x(1)))
    return _standardised(e, s, s.x(), g, list(range(2, rank)))


@unary("GroupNormalization", since=18, until=21)
def group_normalization(e: Emitter, s: Site) -> str:
    """The gradient of standardising over groups of channels and space, of dy * scale."""
    groups = s.attr("num_groups")
    split = e.ints(0, groups, -1)
    if s.opset >= 21:
        g = e.op("Reshape", e.op("Mul", s.dy, _per_channel(e, s, s.x(1))), split)
    else:  # one scale for each group
        g = e.op("Mul", e.op("Reshape", s.dy, split), e.op("Reshape", s.x(1), e.ints(-1, 1)))
    x = e.op("Reshape", s.x(), split)
    return e.reshape_like(_standardised(e, s, x, g, [2]), s.x())


@unary("RMSNormalization", since=23, until=23)
def rms_normalization(e: Emitter, s: Site) -> str:
    """The gradient of dividing by the root mean square over the last axes, of dy * scale."""
    rank = len(s.shape(s.x(), "data input"))
    over = e.ints(*range(s.attr("axis", -1) % rank, rank))
    square = e.op("ReduceMean", e.op("Mul", s.x(), s.x()), over, keepdims=1)
    root = e.op("Sqrt", e.op("Add", square, e.number(s.attr("epsilon", 1e-5), s.x())))
    g, unit = e.op("Mul", s.dy, s.x(1)), e.op("Div", s.x(), root)
    along = e.op("ReduceMean", e.op("Mul", g, unit), over, keepdims=1)
    return e.op("Div", e.op("Sub", g, e.op("Mul", unit, along)), root)


@unary("LpNormalization", since=1, until=22)
def lp_normalization(e: Emitter, s: Site) -> str:
    """(dy - d|x| * sum(dy * y)) / norm, where d|x| is y for p = 2 and sign(x) for p = 1."""
    axis, p = s.attr("axis", -1), s.attr("p", 2)
    norm = e.op("ReduceL1" if p == 1 else "ReduceL2", s.x(), e.ints(axis), keepdims=1)
    along = e.sum_over(e.op("Mul", s.dy, s.y()), [axis], keepdims=True)
    slope = e.op("Sign", s.x()) if p == 1 else s.y()
    return e.op("Div", e.op("Sub", s.dy, e.op("Mul", slope, along)), norm)


@unary("LRN", since=1, until=13)
def lrn(e: Emitter, s: Site) -> str:
    """With t = bias + alpha / n * (sum of x ** 2 over neighbouring channels): dy / t ** beta, less what t takes."""
    x = s.x()
    size, beta, alpha = s.attr("size"), s.attr("beta", 0.75), s.attr("alpha", 0.0001)
    channels = s.shape(x, "data input")[1]
    if not isinstance(channels, int):
        raise s.error("the number of its channels is unknown")
    offset = np.arange(channels) - np.arange(channels)[:, None]  # [c, c']: c' - c
    band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    share = alpha / size
    squares = _across(e, s, e.op("Mul", x, x), band)
    t = e.op("Add", e.scaled(squares, share, x), e.number(s.attr("bias", 1.0), x))
    power = e.op("Pow", t, e.number(-beta, x))
    direct = e.op("Mul", s.dy, power)
    taken = _across(e, s, e.op("Div", e.op("Mul", direct, x), t), band.T)
    return e.op("Sub", direct, e.op("Mul", e.scaled(taken, 2 * share * beta, x), x))


def _across(e: Emitter, s: Site, name: str, band: np.ndarray) -> str:
    """Sum over the channels that ``band`` names, as a product by it."""
    matrix = e.constant(band.astype(s.info.dtype(s.x())))
    flat = e.op("Reshape", name, e.ints(0, 0, -1))
    return e.reshape_like(e.op("MatMul", matrix, flat), s.x())
