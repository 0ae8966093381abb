"""Arithmetic and other elementwise ops; broadcasting is undone in one place, Emitter.unbroadcast."""

from __future__ import annotations

import math

import numpy as np

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import Grads, rule, unary


def _fit(e: Emitter, s: Site, grad: str, index: int) -> str:
    """Sum a gradient of the output's shape down to the shape of one operand."""
    others = [name for i, name in enumerate(s.node.input) if i != index and name]
    return e.unbroadcast(grad, s.x(index), s.y(), others)


@rule("Add", since=6, until=14)
def add(e: Emitter, s: Site) -> Grads:
    """Both operands get dy."""
    for i in s.wanted:
        yield i, _fit(e, s, s.dy, i)


@rule("Sum", since=6, until=13)
def sum_(e: Emitter, s: Site) -> Grads:
    """Every operand gets dy."""
    for i in s.wanted:
        yield i, _fit(e, s, s.dy, i)


@rule("Mean", since=6, until=13)
def mean(e: Emitter, s: Site) -> Grads:
    """Every operand gets dy / n."""
    share = e.scaled(s.dy, 1 / len(s.node.input), s.y())
    for i in s.wanted:
        yield i, _fit(e, s, share, i)


@rule("Sub", since=6, until=14)
def sub(e: Emitter, s: Site) -> Grads:
    """Dy and -dy."""
    if s.wants(0):
        yield 0, _fit(e, s, s.dy, 0)
    if s.wants(1):
        yield 1, _fit(e, s, e.negate(s.dy), 1)


@rule("Mul", since=6, until=14)
def mul(e: Emitter, s: Site) -> Grads:
    """Dy times the other operand."""
    for i in s.wanted:
        yield i, _fit(e, s, e.op("Mul", s.dy, s.x(1 - i)), i)


@rule("Div", since=6, until=14)
def div(e: Emitter, s: Site) -> Grads:
    """Dy / b and -dy * y / b."""
    share = e.op("Div", s.dy, s.x(1))
    if s.wants(0):
        yield 0, _fit(e, s, share, 0)
    if s.wants(1):
        yield 1, _fit(e, s, e.negate(e.op("Mul", share, s.y())), 1)


@unary("Neg", since=6, until=13)
def neg(e: Emitter, s: Site) -> str:
    """-dy."""
    return e.negate(s.dy)


def _share_of_winner(e: Emitter, s: Site) -> Grads:
    """Dy goes to the operand that is the result; operands that tie share it equally."""
    equal = [e.cast(e.op("Equal", x, s.y()), s.y()) for x in s.node.input]
    share = s.dy
    if len(equal) > 1:
        share = e.op("Div", s.dy, e.op("Sum", *equal))
    for i in s.wanted:
        yield i, _fit(e, s, e.op("Mul", share, equal[i]), i)


@rule("Max", since=6, until=13)
def max_(e: Emitter, s: Site) -> Grads:
    """Dy to the largest operand."""
    return _share_of_winner(e, s)


@rule("Min", since=6, until=13)
def min_(e: Emitter, s: Site) -> Grads:
    """Dy to the smallest operand."""
    return _share_of_winner(e, s)


@unary("Abs", since=6, until=13)
def abs_(e: Emitter, s: Site) -> str:
    """Dy * sign(x)."""
    return e.op("Mul", s.dy, e.op("Sign", s.x()))


@unary("Exp", since=6, until=13)
def exp(e: Emitter, s: Site) -> str:
    """Dy * y."""
    return e.op("Mul", s.dy, s.y())


@unary("Log", since=6, until=13)
def log(e: Emitter, s: Site) -> str:
    """Dy / x."""
    return e.op("Div", s.dy, s.x())


@unary("Sqrt", since=6, until=13)
def sqrt(e: Emitter, s: Site) -> str:
    """Dy / 2y."""
    return e.op("Div", s.dy, e.op("Add", s.y(), s.y()))


@unary("Reciprocal", since=6, until=13)
def reciprocal(e: Emitter, s: Site) -> str:
    """-dy * y ** 2."""
    return e.negate(e.op("Mul", s.dy, e.op("Mul", s.y(), s.y())))


@unary("Sin", since=7, until=22)
def sin(e: Emitter, s: Site) -> str:
    """Dy * cos(x)."""
    return e.op("Mul", s.dy, e.op("Cos", s.x()))


@unary("Cos", since=7, until=22)
def cos(e: Emitter, s: Site) -> str:
    """-dy * sin(x)."""
    return e.negate(e.op("Mul", s.dy, e.op("Sin", s.x())))


@unary("Erf", since=9, until=13)
def erf(e: Emitter, s: Site) -> str:
    """Dy * 2 / sqrt(pi) * exp(-x ** 2)."""
    bell = e.op("Exp", e.negate(e.op("Mul", s.x(), s.x())))
    return e.op("Mul", s.dy, e.scaled(bell, 2 / math.sqrt(math.pi), s.x()))


@rule("Pow", since=7, until=15)
def pow_(e: Emitter, s: Site) -> Grads:
    """Dy * p * x ** (p - 1), and dy * y * log(x), 0 where x is not positive."""
    if s.wants(0):
        yield 0, _fit(e, s, _pow_base(e, s), 0)
    if s.wants(1):
        positive = e.op("Greater", s.x(0), e.number(0, s.x(0)))
        safe = e.op("Where", positive, s.x(0), e.number(1, s.x(0)))
        yield 1, _fit(e, s, e.op("Mul", s.dy, e.op("Mul", s.y(), e.op("Log", safe))), 1)


def _pow_base(e: Emitter, s: Site) -> str:
    power = s.value(1)
    if power is not None and power.size == 1:
        p = float(np.ravel(power)[0])
        if p == 1:
            return s.dy
        lower = s.x(0) if p == 2 else e.op("Pow", s.x(0), e.number(p - 1, s.x(0)))
        return e.op("Mul", s.dy, e.scaled(lower, p, s.x(0)))
    exponent = s.x(1) if s.info.elem_type(s.x(1)) == s.info.elem_type(s.x(0)) else e.cast(s.x(1), s.x(0))
    slope = e.op("Mul", exponent, e.op("Pow", s.x(0), e.op("Sub", exponent, e.number(1, s.x(0)))))
    zero = e.number(0, s.x(0))
    return e.op("Mul", s.dy, e.op("Where", e.op("Equal", exponent, zero), zero, slope))  # 0 * x ** -1 at x = 0


@rule("Where", since=9, until=16)
def where(e: Emitter, s: Site) -> Grads:
    """Dy to the branch that was taken."""
    zero = e.number(0, s.y())
    if s.wants(1):
        yield 1, _fit(e, s, e.op("Where", s.x(0), s.dy, zero), 1)
    if s.wants(2):
        yield 2, _fit(e, s, e.op("Where", s.x(0), zero, s.dy), 2)


@unary("Identity", until=25)
def identity(e: Emitter, s: Site) -> str:
    """Dy."""
    return s.dy


@unary("Cast", since=6, until=25)
def cast(e: Emitter, s: Site) -> str:
    """Dy cast back; by integers, which only a straight-through gradient reaches, dy as it is."""
    if not s.info.is_float(s.x()):
        return s.dy
    return e.cast(s.dy, s.x())


@unary("CastLike", since=15, until=25)
def cast_like(e: Emitter, s: Site) -> str:
    """Dy cast back."""
    return e.cast(s.dy, s.x())


@unary("Dropout", since=1, until=22, note="inference mode")
def dropout(e: Emitter, s: Site) -> str:
    """Dy: at inference Dropout does nothing."""
    training = s.value(2)
    if s.has(2) and (training is None or bool(training)):
        raise s.error("it is in training mode")
    return s.dy
