"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloakonnx.gradient._broadcast import summed_to
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.graph.build import Tensor

_EPSILON = 1e-5


def _per_channel(s: GradientSite, vector: Tensor) -> Tensor:
    """Give a vector over the channels the shape (C, 1, ...), which broadcasts over (N, C, ...)."""
    return vector.reshape(-1, *(1,) * (s.rank - 2))


@rule("BatchNormalization", since=1, until=15, note="inference mode")
def batch_normalization(s: GradientSite) -> Grads:
    """With u = (x - mean) / sqrt(var + eps): dy * scale / sqrt(var + eps); of the scale the sum of dy * u."""
    s.only(0, 1, 2)
    root = (s.input(4) + s.number("epsilon", _EPSILON)).sqrt()
    others = [0, *range(2, s.rank)]
    if s.wants(0):
        yield 0, s.dy * _per_channel(s, s.input(1) / root)
    if s.wants(1):
        unit = (s.x - _per_channel(s, s.input(3))) / _per_channel(s, root)
        yield 1, (s.dy * unit).sum(others, keepdims=False)
    if s.wants(2):
        yield 2, s.dy.sum(others, keepdims=False)


def _unit(x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """Return (x - mean) / sqrt(var + eps) over ``axes``, and the root."""
    centred = x - x.mean(axes)
    root = ((centred * centred).mean(axes) + epsilon).sqrt()
    return centred / root, root


def _standardised(x: Tensor, g: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    """Gradient of (x - mean) / sqrt(var + eps) over ``axes`` for the gradient ``g`` of the quotient."""
    unit, root = _unit(x, axes, epsilon)
    return (g - g.mean(axes) - unit * (g * unit).mean(axes)) / root


@rule("LayerNormalization", since=17, until=17)
def layer_normalization(s: GradientSite) -> Grads:
    """The gradient of standardising over the last axes, of dy * scale; of the scale the sum of dy times the unit."""
    s.only(0, 1, 2)
    axes, epsilon = range(s.attr("axis", -1) % s.rank, s.rank), s.number("epsilon", _EPSILON)
    if s.wants(0):
        yield 0, _standardised(s.x, s.dy * s.input(1), axes, epsilon)
    if s.wants(1):
        yield 1, summed_to(s.dy * _unit(s.x, axes, epsilon)[0], s.input(1), s.y)
    if s.wants(2):
        yield 2, summed_to(s.dy, s.input(2), s.y)


@unary("InstanceNormalization", since=6, until=22)
def instance_normalization(s: GradientSite) -> Tensor:
    """The gradient of standardising over space, of dy * scale."""
    g = s.dy * _per_channel(s, s.input(1))
    return _standardised(s.x, g, range(2, s.rank), s.number("epsilon", _EPSILON))


@unary("GroupNormalization", since=18, until=21)
def group_normalization(s: GradientSite) -> Tensor:
    """The gradient of standardising over groups of channels and space, of dy * scale."""
    split = (0, s.attr("num_groups"), -1)
    if s.build.opset >= 21:
        g = (s.dy * _per_channel(s, s.input(1))).reshape(*split)
    else:  # one scale for each group
        g = s.dy.reshape(*split) * s.input(1).reshape(-1, 1)
    return _standardised(s.x.reshape(*split), g, [2], s.number("epsilon", _EPSILON)).shaped_as(s.x)


@unary("RMSNormalization", since=23, until=23)
def rms_normalization(s: GradientSite) -> Tensor:
    """The gradient of dividing by the root mean square over the last axes, of dy * scale."""
    axes = range(s.attr("axis", -1) % s.rank, s.rank)
    root = ((s.x * s.x).mean(axes) + s.number("epsilon", _EPSILON)).sqrt()
    g, unit = s.dy * s.input(1), s.x / root
    return (g - unit * (g * unit).mean(axes)) / root


@unary("LpNormalization", since=1, until=22)
def lp_normalization(s: GradientSite) -> Tensor:
    """(dy - d|x| * sum(dy * y)) / norm, where d|x| is y for p = 2 and sign(x) for p = 1."""
    axis, p = s.attr("axis", -1), s.attr("p", 2)
    norm = s.x.op("ReduceL1" if p == 1 else "ReduceL2", s.build.ints(axis), keepdims=1)
    slope = s.x.sign() if p == 1 else s.y
    return (s.dy - slope * (s.dy * s.y).sum(axis)) / norm


@unary("LRN", since=1, until=13)
def lrn(s: GradientSite) -> Tensor:
    """With t = bias + alpha / n * (sum of x ** 2 over neighbouring channels): dy / t ** beta, less what t takes."""
    size, beta = int(s.attr("size")), s.number("beta", 0.75)
    offset = np.arange(s.channels) - np.arange(s.channels)[:, None]  # [c, c']: c' - c
    band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    share = s.number("alpha", 0.0001) / size
    t = _across(s, s.x * s.x, band) * share + s.number("bias", 1.0)
    direct = s.dy * t ** (-beta)
    taken = _across(s, direct * s.x / t, band.T)
    return direct - taken * (2 * share * beta) * s.x


def _across(s: GradientSite, tensor: Tensor, band: np.ndarray) -> Tensor:
    """Sum over the channels that ``band`` names, as a product by it."""
    matrix = s.build.constant(band.astype(s.x.dtype))
    return matrix.op("MatMul", tensor.reshape(0, 0, -1)).shaped_as(s.x)
