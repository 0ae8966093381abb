"""Activation functions, each from its output where that is enough: a fused forward kernel keeps nothing else."""

from __future__ import annotations

import math

from onnx import TensorProto

from cloakonnx.gradient._broadcast import summed_to
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.graph.build import Tensor

_STEEP = 1e30
"""min(1, 1e30 * y) is 1 for any positive float32 that a network gives in practice, and 0 for 0."""

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


@unary("Relu", since=6, until=14)
def relu(s: GradientSite) -> Tensor:
    """Dy where y > 0, from the output, so that a Relu fused into a convolution stays fused."""
    return s.dy * _step(s.y)


def _step(y: Tensor) -> Tensor:
    """1 where ``y``, which is never negative, is positive, else 0."""
    if y.builder.provider == "cpu" and y.elem_type == TensorProto.FLOAT:
        # One node, and one of the few that onnxruntime runs in the blocked layout of its convolutions.
        return y.op("HardSigmoid", alpha=_STEEP, beta=0.0)
    return y.sign()


@unary("LeakyRelu", since=6, until=16)
def leaky_relu(s: GradientSite) -> Tensor:
    """Dy, times alpha where x <= 0."""
    return (s.x > 0).where(s.dy, s.dy * s.number("alpha", 0.01))


@rule("PRelu", since=7, until=16)
def prelu(s: GradientSite) -> Grads:
    """Dy, times the slope where x <= 0; the slope gets dy * x there."""
    s.only(0, 1)
    above = s.x > 0
    if s.wants(0):
        yield 0, above.where(s.dy, s.dy * s.input(1))
    if s.wants(1):
        yield 1, summed_to(above.where(0, s.dy * s.x), s.input(1), s.y)


@unary("Elu", since=6, until=22)
def elu(s: GradientSite) -> Tensor:
    """Dy, times y + alpha where x <= 0."""
    return (s.x > 0).where(s.dy, s.dy * (s.y + s.number("alpha", 1.0)))


@unary("Selu", since=6, until=22)
def selu(s: GradientSite) -> Tensor:
    """Dy * gamma, or dy * (y + gamma * alpha) where x <= 0."""
    alpha, gamma = s.number("alpha", _SELU_ALPHA), s.number("gamma", _SELU_GAMMA)
    return s.dy * (s.x > 0).where(gamma, s.y + alpha * gamma)


@unary("Celu", since=12, until=28)
def celu(s: GradientSite) -> Tensor:
    """Dy, times exp(x / alpha) = y / alpha + 1 where x <= 0."""
    return (s.x > 0).where(s.dy, s.dy * (s.y * (1 / s.number("alpha", 1.0)) + 1))


@unary("ThresholdedRelu", since=10, until=22)
def thresholded_relu(s: GradientSite) -> Tensor:
    """Dy where x > alpha."""
    return (s.x > s.number("alpha", 1.0)).where(s.dy, 0)


@unary("Softplus", since=1, until=22)
def softplus(s: GradientSite) -> Tensor:
    """Dy * sigmoid(x)."""
    return s.dy * s.x.op("Sigmoid")


@unary("Softsign", since=1, until=22)
def softsign(s: GradientSite) -> Tensor:
    """Dy / (1 + |x|) ** 2."""
    root = abs(s.x) + 1
    return s.dy / (root * root)


@unary("Clip", since=6, until=13)
def clip(s: GradientSite) -> Tensor:
    """Dy where x is inside or on a bound: pixels that lie on the bounds of their range keep their gradient."""
    return s.x.equals(s.y).where(s.dy, 0)


@unary("Sigmoid", since=6, until=13)
def sigmoid(s: GradientSite) -> Tensor:
    """Dy * y * (1 - y)."""
    return s.dy * (s.y * (1 - s.y))


@unary("HardSigmoid", since=6, until=22)
def hard_sigmoid(s: GradientSite) -> Tensor:
    """Dy * alpha where 0 < y < 1."""
    return ((s.y > 0) & (s.y < 1)).where(s.dy * s.number("alpha", 0.2), 0)


@unary("HardSwish", since=14, until=22)
def hard_swish(s: GradientSite) -> Tensor:
    """Dy times 0 below -3, x / 3 + 1 / 2 up to 3, 1 above."""
    upper = (s.x < 3).where(s.x * (1 / 3) + 0.5, 1)
    return s.dy * (s.x > -3).where(upper, 0)


@unary("Tanh", since=6, until=13)
def tanh(s: GradientSite) -> Tensor:
    """Dy * (1 - y ** 2)."""
    return s.dy * (1 - s.y * s.y)


@unary("Gelu", since=20, until=20)
def gelu(s: GradientSite) -> Tensor:
    """Dy times the slope of x * Phi(x), or of its tanh approximation."""
    return s.dy * (_tanh_slope(s.x) if s.attr("approximate", "none") == "tanh" else _gelu_slope(s.x))


@unary("Gelu", since=1, until=1, domain="com.microsoft")
def gelu_contrib(s: GradientSite) -> Tensor:
    """Dy times the slope of x * Phi(x)."""
    return s.dy * _gelu_slope(s.x)


def _gelu_slope(x: Tensor) -> Tensor:
    share = 0.5 * (1 + (x * (1 / math.sqrt(2))).op("Erf"))
    bell = (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    return share + x * bell


def _tanh_slope(x: Tensor) -> Tensor:
    root = math.sqrt(2 / math.pi)
    square = x * x
    t = (x * (root + square * (root * 0.044715))).op("Tanh")
    inner_slope = root + square * (3 * root * 0.044715)
    return 0.5 * (1 + t + x * (1 - t * t) * inner_slope)


@unary("Mish", since=18, until=22)
def mish(s: GradientSite) -> Tensor:
    """Dy * (t + x * (1 - t ** 2) * sigmoid(x)) with t = tanh(softplus(x))."""
    t = s.x.op("Softplus").op("Tanh")
    return s.dy * (t + s.x * ((1 - t * t) * s.x.op("Sigmoid")))


@unary("Swish", since=24, until=24)
def swish(s: GradientSite) -> Tensor:
    """Dy * (g + a * x * g * (1 - g)) with g = sigmoid(a * x)."""
    scaled = s.x * s.number("alpha", 1.0)
    gate = scaled.op("Sigmoid")
    return s.dy * (gate + gate * (1 - gate) * scaled)


@unary("Softmax", since=1, until=13)
def softmax(s: GradientSite) -> Tensor:
    """Y * (dy - sum(dy * y))."""
    return s.y * (s.dy - (s.dy * s.y).sum(s.attr("axis", -1)))


@unary("LogSoftmax", since=1, until=13)
def log_softmax(s: GradientSite) -> Tensor:
    """Dy - exp(y) * sum(dy)."""
    return s.dy - s.y.exp() * s.dy.sum(s.attr("axis", -1))
