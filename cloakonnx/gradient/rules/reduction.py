"""Reductions; their axes are an input since the canonical form is of opset 18 or later."""

from __future__ import annotations

import math

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import unary


def _nothing(s: Site) -> bool:
    """Whether the node reduces over no axis at all."""
    axes = s.value(1)
    return bool(s.attr("noop_with_empty_axes", 0)) and (not s.has(1) or (axes is not None and axes.size == 0))


def _over_all(s: Site) -> bool:
    axes = s.value(1)
    return not s.has(1) or (axes is not None and axes.size == 0)


def _kept(e: Emitter, s: Site, name: str) -> str:
    """Give a reduced tensor its axes of size 1 back."""
    if s.attr("keepdims", 1):
        return name
    if _over_all(s):  # a scalar broadcasts as it is
        return name
    return e.op("Unsqueeze", name, s.x(1))


def _count(e: Emitter, s: Site) -> str:
    """How many values each sum takes, in the type of the data."""
    shape, axes = s.info.shape(s.x()), s.value(1)
    if shape is not None and (_over_all(s) or axes is not None):
        taken = range(len(shape)) if _over_all(s) or axes is None else axes.ravel().tolist()
        sizes = [shape[a] for a in taken]
        known = [d for d in sizes if isinstance(d, int)]
        if len(known) == len(sizes):
            return e.number(math.prod(known), s.x())
    ratio = e.op("Div", e.op("Size", s.x()), e.op("Size", s.y()))
    return e.cast(ratio, s.x())


@unary("ReduceSum", since=1, until=13)
def reduce_sum(e: Emitter, s: Site) -> str:
    """Dy, repeated."""
    return s.dy if _nothing(s) else e.expand_like(_kept(e, s, s.dy), s.x())


@unary("ReduceMean", since=1, until=18)
def reduce_mean(e: Emitter, s: Site) -> str:
    """Dy / count, repeated."""
    return s.dy if _nothing(s) else e.expand_like(e.op("Div", _kept(e, s, s.dy), _count(e, s)), s.x())


def _extreme(e: Emitter, s: Site) -> str:
    if _nothing(s):
        return s.dy
    best = e.cast(e.op("Equal", s.x(), _kept(e, s, s.y())), s.x())
    axes = [] if _over_all(s) else [s.x(1)]
    ties = e.op("ReduceSum", best, *axes, keepdims=1)
    return e.op("Mul", e.op("Div", _kept(e, s, s.dy), ties), best)


@unary("ReduceMax", since=1, until=20)
def reduce_max(e: Emitter, s: Site) -> str:
    """Dy goes to the maximum; places that tie share it equally."""
    return _extreme(e, s)


@unary("ReduceMin", since=1, until=20)
def reduce_min(e: Emitter, s: Site) -> str:
    """Dy goes to the minimum; places that tie share it equally."""
    return _extreme(e, s)


@unary("ReduceL1", since=1, until=18)
def reduce_l1(e: Emitter, s: Site) -> str:
    """Dy * sign(x)."""
    return e.op("Mul", s.dy if _nothing(s) else _kept(e, s, s.dy), e.op("Sign", s.x()))


@unary("ReduceL2", since=1, until=18)
def reduce_l2(e: Emitter, s: Site) -> str:
    """Dy * x / y, 0 where y is 0."""
    dy, y = (n if _nothing(s) else _kept(e, s, n) for n in (s.dy, s.y()))
    zero = e.op("Equal", y, e.number(0, s.x()))
    return e.op("Mul", e.op("Div", dy, e.op("Where", zero, e.number(1, s.x()), y)), s.x())


@unary("ReduceSumSquare", since=1, until=18)
def reduce_sum_square(e: Emitter, s: Site) -> str:
    """2 * dy * x."""
    return e.op("Mul", e.scaled(s.dy if _nothing(s) else _kept(e, s, s.dy), 2, s.x()), s.x())


@unary("ReduceLogSumExp", since=1, until=18)
def reduce_log_sum_exp(e: Emitter, s: Site) -> str:
    """Dy * exp(x - y)."""
    dy, y = (n if _nothing(s) else _kept(e, s, n) for n in (s.dy, s.y()))
    return e.op("Mul", dy, e.op("Exp", e.op("Sub", s.x(), y)))
