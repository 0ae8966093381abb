"""Activation functions, each from its output where that is enough: a fused forward kernel keeps nothing else."""

from __future__ import annotations

import math

from onnx import TensorProto

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import Grads, rule, unary

_STEEP = 1e30
"""min(1, 1e30 * y) is 1 for any positive float32 that a network can give in earnest, and 0 for 0."""

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def positive(e: Emitter, s: Site, name: str) -> str:
    """Condition: ``name`` > 0."""
    return e.op("Greater", name, e.number(0, s.x()))


@unary("Relu", since=6, until=14)
def relu(e: Emitter, s: Site) -> str:
    """Dy where y > 0, from the output, so that a Relu fused into a convolution stays fused."""
    return e.op("Mul", s.dy, _step(e, s.y()))


def _step(e: Emitter, y: str) -> str:
    """1 where ``y``, which is never negative, is positive, else 0."""
    if e.provider == "cpu" and e.info.elem_type(y) == TensorProto.FLOAT:
        # One node, and one of the few that onnxruntime runs in the blocked layout of its convolutions.
        return e.op("HardSigmoid", y, alpha=_STEEP, beta=0.0)
    return e.op("Sign", y)


@unary("LeakyRelu", since=6, until=16)
def leaky_relu(e: Emitter, s: Site) -> str:
    """Dy, times alpha where x <= 0."""
    alpha = s.attr("alpha", 0.01)
    return e.op("Where", positive(e, s, s.x()), s.dy, e.scaled(s.dy, alpha, s.x()))


@rule("PRelu", since=7, until=16)
def prelu(e: Emitter, s: Site) -> Grads:
    """Dy, times the slope where x <= 0; the slope gets dy * x there."""
    s.only(0, 1)
    above = positive(e, s, s.x())
    if s.wants(0):
        yield 0, e.op("Where", above, s.dy, e.op("Mul", s.dy, s.x(1)))
    if s.wants(1):
        grad = e.op("Where", above, e.number(0, s.x()), e.op("Mul", s.dy, s.x()))
        yield 1, e.unbroadcast(grad, s.x(1), s.y())


@unary("Elu", since=6, until=22)
def elu(e: Emitter, s: Site) -> str:
    """Dy, times y + alpha where x <= 0."""
    slope = e.op("Add", s.y(), e.number(s.attr("alpha", 1.0), s.x()))
    return e.op("Where", positive(e, s, s.x()), s.dy, e.op("Mul", s.dy, slope))


@unary("Selu", since=6, until=22)
def selu(e: Emitter, s: Site) -> str:
    """Dy * gamma, or dy * (y + gamma * alpha) where x <= 0."""
    alpha, gamma = s.attr("alpha", _SELU_ALPHA), s.attr("gamma", _SELU_GAMMA)
    slope = e.op("Add", s.y(), e.number(alpha * gamma, s.x()))
    return e.op("Mul", s.dy, e.op("Where", positive(e, s, s.x()), e.number(gamma, s.x()), slope))


@unary("Celu", since=12, until=28)
def celu(e: Emitter, s: Site) -> str:
    """Dy, times exp(x / alpha) = y / alpha + 1 where x <= 0."""
    slope = e.op("Add", e.scaled(s.y(), 1 / s.attr("alpha", 1.0), s.x()), e.number(1, s.x()))
    return e.op("Where", positive(e, s, s.x()), s.dy, e.op("Mul", s.dy, slope))


@unary("ThresholdedRelu", since=10, until=22)
def thresholded_relu(e: Emitter, s: Site) -> str:
    """Dy where x > alpha."""
    above = e.op("Greater", s.x(), e.number(s.attr("alpha", 1.0), s.x()))
    return e.op("Where", above, s.dy, e.number(0, s.x()))


@unary("Softplus", since=1, until=22)
def softplus(e: Emitter, s: Site) -> str:
    """Dy * sigmoid(x)."""
    return e.op("Mul", s.dy, e.op("Sigmoid", s.x()))


@unary("Softsign", since=1, until=22)
def softsign(e: Emitter, s: Site) -> str:
    """Dy / (1 + |x|) ** 2."""
    root = e.op("Add", e.op("Abs", s.x()), e.number(1, s.x()))
    return e.op("Div", s.dy, e.op("Mul", root, root))


@unary("Clip", since=6, until=13)
def clip(e: Emitter, s: Site) -> str:
    """Dy where x is inside or on a bound: pixels that lie on the bounds of their range keep their gradient."""
    inside = e.op("Equal", s.x(), s.y())
    return e.op("Where", inside, s.dy, e.number(0, s.x()))


@unary("Sigmoid", since=6, until=13)
def sigmoid(e: Emitter, s: Site) -> str:
    """Dy * y * (1 - y)."""
    rest = e.op("Sub", e.number(1, s.x()), s.y())
    return e.op("Mul", s.dy, e.op("Mul", s.y(), rest))


@unary("HardSigmoid", since=6, until=22)
def hard_sigmoid(e: Emitter, s: Site) -> str:
    """Dy * alpha where 0 < y < 1."""
    return e.op("Where", _between(e, s), e.scaled(s.dy, s.attr("alpha", 0.2), s.x()), e.number(0, s.x()))


def _between(e: Emitter, s: Site) -> str:
    above = e.op("Greater", s.y(), e.number(0, s.x()))
    return e.op("And", above, e.op("Less", s.y(), e.number(1, s.x())))


@unary("HardSwish", since=14, until=22)
def hard_swish(e: Emitter, s: Site) -> str:
    """Dy times 0 below -3, x / 3 + 1 / 2 up to 3, 1 above."""
    x = s.x()
    slope = e.op("Add", e.scaled(x, 1 / 3, x), e.number(0.5, x))
    upper = e.op("Where", e.op("Less", x, e.number(3, x)), slope, e.number(1, x))
    return e.op("Mul", s.dy, e.op("Where", e.op("Greater", x, e.number(-3, x)), upper, e.number(0, x)))


@unary("Tanh", since=6, until=13)
def tanh(e: Emitter, s: Site) -> str:
    """Dy * (1 - y ** 2)."""
    return e.op("Mul", s.dy, e.op("Sub", e.number(1, s.x()), e.op("Mul", s.y(), s.y())))


@unary("Gelu", since=20, until=20)
def gelu(e: Emitter, s: Site) -> str:
    """Dy times the slope of x * Phi(x), or of its tanh approximation."""
    return _gelu(e, s, s.attr("approximate", "none") == "tanh")


@unary("Gelu", since=1, until=1, domain="com.microsoft")
def gelu_contrib(e: Emitter, s: Site) -> str:
    """Dy times the slope of x * Phi(x)."""
    return _gelu(e, s, False)


def _gelu(e: Emitter, s: Site, approximate: bool) -> str:
    x = s.x()
    half, one = e.number(0.5, x), e.number(1, x)
    square = e.op("Mul", x, x)
    if not approximate:
        share = e.op("Mul", half, e.op("Add", one, e.op("Erf", e.scaled(x, 1 / math.sqrt(2), x))))
        bell = e.scaled(e.op("Exp", e.scaled(square, -0.5, x)), 1 / math.sqrt(2 * math.pi), x)
        return e.op("Mul", s.dy, e.op("Add", share, e.op("Mul", x, bell)))
    root = math.sqrt(2 / math.pi)
    inner = e.op("Mul", x, e.op("Add", e.number(root, x), e.scaled(square, root * 0.044715, x)))
    t = e.op("Tanh", inner)
    inner_slope = e.op("Add", e.number(root, x), e.scaled(square, 3 * root * 0.044715, x))
    bend = e.op("Mul", e.op("Mul", x, e.op("Sub", one, e.op("Mul", t, t))), inner_slope)
    return e.op("Mul", s.dy, e.op("Mul", half, e.op("Add", e.op("Add", one, t), bend)))


@unary("Mish", since=18, until=22)
def mish(e: Emitter, s: Site) -> str:
    """Dy * (t + x * (1 - t ** 2) * sigmoid(x)) with t = tanh(softplus(x))."""
    x = s.x()
    t = e.op("Tanh", e.op("Softplus", x))
    bend = e.op("Mul", e.op("Sub", e.number(1, x), e.op("Mul", t, t)), e.op("Sigmoid", x))
    return e.op("Mul", s.dy, e.op("Add", t, e.op("Mul", x, bend)))


@unary("Swish", since=24, until=24)
def swish(e: Emitter, s: Site) -> str:
    """Dy * (g + a * x * g * (1 - g)) with g = sigmoid(a * x)."""
    x, alpha = s.x(), s.attr("alpha", 1.0)
    gate = e.op("Sigmoid", e.scaled(x, alpha, x))
    bend = e.op("Mul", e.op("Mul", gate, e.op("Sub", e.number(1, x), gate)), e.scaled(x, alpha, x))
    return e.op("Mul", s.dy, e.op("Add", gate, bend))


@unary("Softmax", since=1, until=13)
def softmax(e: Emitter, s: Site) -> str:
    """Y * (dy - sum(dy * y))."""
    total = e.sum_over(e.op("Mul", s.dy, s.y()), [s.attr("axis", -1)], keepdims=True)
    return e.op("Mul", s.y(), e.op("Sub", s.dy, total))


@unary("LogSoftmax", since=1, until=13)
def log_softmax(e: Emitter, s: Site) -> str:
    """Dy - exp(y) * sum(dy)."""
    total = e.sum_over(s.dy, [s.attr("axis", -1)], keepdims=True)
    return e.op("Sub", s.dy, e.op("Mul", e.op("Exp", s.y()), total))
