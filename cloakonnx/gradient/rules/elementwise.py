"""Arithmetic and other elementwise ops; broadcasting is undone in one place, _broadcast."""

from __future__ import annotations

import math

import numpy as np

from cloakonnx.gradient._broadcast import summed_to
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.graph.build import Tensor


def _fit(s: GradientSite, grad: Tensor, position: int) -> Tensor:
    """Sum a gradient of the output's shape down to the shape of one operand."""
    others = [s.input(i) for i, name in enumerate(s.node.input) if i != position and name]
    return summed_to(grad, s.input(position), s.y, others)


@rule("Add", since=6, until=14)
def add(s: GradientSite) -> Grads:
    """Both operands get dy."""
    for i in s.wanted:
        yield i, _fit(s, s.dy, i)


@rule("Sum", since=6, until=13)
def sum_(s: GradientSite) -> Grads:
    """Every operand gets dy."""
    for i in s.wanted:
        yield i, _fit(s, s.dy, i)


@rule("Mean", since=6, until=13)
def mean(s: GradientSite) -> Grads:
    """Every operand gets dy / n."""
    share = s.dy * (1 / len(s.node.input))
    for i in s.wanted:
        yield i, _fit(s, share, i)


@rule("Sub", since=6, until=14)
def sub(s: GradientSite) -> Grads:
    """Dy and -dy."""
    if s.wants(0):
        yield 0, _fit(s, s.dy, 0)
    if s.wants(1):
        yield 1, _fit(s, -s.dy, 1)


@rule("Mul", since=6, until=14)
def mul(s: GradientSite) -> Grads:
    """Dy times the other operand."""
    for i in s.wanted:
        yield i, _fit(s, s.dy * s.input(1 - i), i)


@rule("Div", since=6, until=14)
def div(s: GradientSite) -> Grads:
    """Dy / b and -dy * y / b."""
    share = s.dy / s.input(1)
    if s.wants(0):
        yield 0, _fit(s, share, 0)
    if s.wants(1):
        yield 1, _fit(s, -(share * s.y), 1)


@unary("Neg", since=6, until=13)
def neg(s: GradientSite) -> Tensor:
    """-dy."""
    return -s.dy


def _share_of_winner(s: GradientSite) -> Grads:
    """Dy goes to the operand that is the result; operands that tie share it equally."""
    equal = [s.build.tensor(x).equals(s.y).cast(s.y) for x in s.node.input]
    share = s.dy / s.build.op("Sum", *equal) if len(equal) > 1 else s.dy
    for i in s.wanted:
        yield i, _fit(s, share * equal[i], i)


@rule("Max", since=6, until=13)
def max_(s: GradientSite) -> Grads:
    """Dy to the largest operand."""
    return _share_of_winner(s)


@rule("Min", since=6, until=13)
def min_(s: GradientSite) -> Grads:
    """Dy to the smallest operand."""
    return _share_of_winner(s)


@unary("Abs", since=6, until=13)
def abs_(s: GradientSite) -> Tensor:
    """Dy * sign(x)."""
    return s.dy * s.x.sign()


@unary("Exp", since=6, until=13)
def exp(s: GradientSite) -> Tensor:
    """Dy * y."""
    return s.dy * s.y


@unary("Log", since=6, until=13)
def log(s: GradientSite) -> Tensor:
    """Dy / x."""
    return s.dy / s.x


@unary("Sqrt", since=6, until=13)
def sqrt(s: GradientSite) -> Tensor:
    """Dy / 2y."""
    return s.dy / (s.y + s.y)


@unary("Reciprocal", since=6, until=13)
def reciprocal(s: GradientSite) -> Tensor:
    """-dy * y ** 2."""
    return -(s.dy * (s.y * s.y))


@unary("Erf", since=9, until=13)
def erf(s: GradientSite) -> Tensor:
    """Dy * 2 / sqrt(pi) * exp(-x ** 2)."""
    return s.dy * ((-(s.x * s.x)).exp() * (2 / math.sqrt(math.pi)))


@rule("Mod", since=10, until=13)
def mod(s: GradientSite) -> Grads:
    """Dy, and -dy times the quotient without its fraction."""
    if s.wants(0):
        yield 0, _fit(s, s.dy, 0)
    if s.wants(1):
        quotient = s.x / s.input(1)
        yield 1, _fit(s, -(s.dy * (quotient.sign() * abs(quotient).op("Floor"))), 1)


@rule("Pow", since=7, until=15)
def pow_(s: GradientSite) -> Grads:
    """Dy * p * x ** (p - 1), and dy * y * log(x), 0 where x is not positive."""
    if s.wants(0):
        yield 0, _fit(s, _pow_base(s), 0)
    if s.wants(1):
        safe = (s.x > 0).where(s.x, 1)
        yield 1, _fit(s, s.dy * (s.y * safe.log()), 1)


def _pow_base(s: GradientSite) -> Tensor:
    power = s.value(1)
    if power is not None and power.size == 1:
        p = float(np.ravel(power)[0])
        return s.dy if p == 1 else s.dy * (s.x ** (p - 1) * p)
    exponent = s.input(1)
    exponent = exponent if exponent.elem_type == s.x.elem_type else exponent.cast(s.x)
    slope = exponent * s.x ** (exponent - 1)
    return s.dy * exponent.equals(0).where(0, slope)  # 0 * x ** -1 at x = 0


@rule("Where", since=9, until=16)
def where(s: GradientSite) -> Grads:
    """Dy to the branch that was taken."""
    if s.wants(1):
        yield 1, _fit(s, s.x.where(s.dy, 0), 1)
    if s.wants(2):
        yield 2, _fit(s, s.x.where(0, s.dy), 2)


@unary("Identity", until=25)
def identity(s: GradientSite) -> Tensor:
    """Dy."""
    return s.dy


@unary("Cast", since=6, until=25)
def cast(s: GradientSite) -> Tensor:
    """Dy cast back; by integers, which only a straight-through gradient reaches, dy as it is."""
    return s.dy.cast(s.x) if s.index.is_float(s.x.name) else s.dy


@rule("CastLike", since=15, until=25)
def cast_like(s: GradientSite) -> Grads:
    """Dy cast back; the second input only says the type."""
    if s.wants(0):
        yield 0, s.dy.cast(s.x)


@unary("Dropout", since=1, until=22, note="inference mode")
def dropout(s: GradientSite) -> Tensor:
    """Dy: at inference Dropout does nothing."""
    training = s.value(2)
    if s.has(2) and (training is None or bool(training)):
        raise s.error("it is in training mode")
    return s.dy
