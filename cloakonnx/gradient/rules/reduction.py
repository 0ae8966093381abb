"""Reductions; their axes are an input since the canonical form is of opset 18 or later."""

from __future__ import annotations

import math

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import unary
from cloakonnx.graph.build import Operand, Tensor


def _nothing(s: GradientSite) -> bool:
    """Whether the node reduces over no axis at all."""
    axes = s.value(1)
    return bool(s.attr("noop_with_empty_axes", 0)) and (not s.has(1) or (axes is not None and axes.size == 0))


def _over_all(s: GradientSite) -> bool:
    axes = s.value(1)
    return not s.has(1) or (axes is not None and axes.size == 0)


def _kept(s: GradientSite, reduced: Tensor) -> Tensor:
    """Give a reduced tensor its axes of size 1 back."""
    if s.attr("keepdims", 1) or _nothing(s) or _over_all(s):  # a scalar broadcasts as it is
        return reduced
    return reduced.op("Unsqueeze", s.input(1))


def _count(s: GradientSite) -> Operand:
    """How many values each sum takes."""
    shape, axes = s.x.dims, s.value(1)
    if shape is not None and (_over_all(s) or axes is not None):
        taken = range(len(shape)) if _over_all(s) or axes is None else axes.ravel().tolist()
        sizes = [shape[a] for a in taken]
        known = [d for d in sizes if isinstance(d, int)]
        if len(known) == len(sizes):
            return math.prod(known)
    return (s.x.op("Size") / s.y.op("Size")).cast(s.x)


@unary("ReduceSum", since=1, until=13)
def reduce_sum(s: GradientSite) -> Tensor:
    """Dy, repeated."""
    return s.dy if _nothing(s) else _kept(s, s.dy).expanded_as(s.x)


@unary("ReduceMean", since=1, until=18)
def reduce_mean(s: GradientSite) -> Tensor:
    """Dy / count, repeated."""
    return s.dy if _nothing(s) else (_kept(s, s.dy) / _count(s)).expanded_as(s.x)


def _extreme(s: GradientSite) -> Tensor:
    if _nothing(s):
        return s.dy
    best = s.x.equals(_kept(s, s.y)).cast(s.x)
    axes = [] if _over_all(s) else [s.input(1)]
    return _kept(s, s.dy) / best.op("ReduceSum", *axes, keepdims=1) * best


@unary("ReduceMax", since=1, until=20)
def reduce_max(s: GradientSite) -> Tensor:
    """Dy goes to the maximum; places that tie share it equally."""
    return _extreme(s)


@unary("ReduceMin", since=1, until=20)
def reduce_min(s: GradientSite) -> Tensor:
    """Dy goes to the minimum; places that tie share it equally."""
    return _extreme(s)


@unary("ReduceL1", since=1, until=18)
def reduce_l1(s: GradientSite) -> Tensor:
    """Dy * sign(x)."""
    return _kept(s, s.dy) * s.x.sign()


@unary("ReduceL2", since=1, until=18)
def reduce_l2(s: GradientSite) -> Tensor:
    """Dy * x / y, 0 where y is 0."""
    y = _kept(s, s.y)
    return _kept(s, s.dy) / y.equals(0).where(1, y) * s.x


@unary("ReduceSumSquare", since=1, until=18)
def reduce_sum_square(s: GradientSite) -> Tensor:
    """2 * dy * x."""
    return _kept(s, s.dy) * 2 * s.x


@unary("ReduceLogSumExp", since=1, until=18)
def reduce_log_sum_exp(s: GradientSite) -> Tensor:
    """Dy * exp(x - y)."""
    return _kept(s, s.dy) * (s.x - _kept(s, s.y)).exp()


@unary("ReduceLogSum", since=1, until=18)
def reduce_log_sum(s: GradientSite) -> Tensor:
    """Dy / exp(y), repeated."""
    return (_kept(s, s.dy) / _kept(s, s.y).exp()).expanded_as(s.x)


@unary("ReduceProd", since=1, until=18)
def reduce_prod(s: GradientSite) -> Tensor:
    """Dy times the product of the others, also where some of them are 0."""
    zeros = s.x.equals(0).cast(s.x)
    safe = s.x.equals(0).where(1, s.x)
    rest = _again(s, safe) / safe
    others = (_again(s, zeros, "ReduceSum") - zeros).equals(0).cast(s.x)  # no other one is 0
    return _kept(s, s.dy) * rest * others


def _again(s: GradientSite, x: Tensor, op: str = "ReduceProd") -> Tensor:
    """Reduce along the node's axes, which stay with size 1."""
    axes = [s.input(1)] if s.has(1) else []
    return x.op(op, *axes, keepdims=1, noop_with_empty_axes=s.attr("noop_with_empty_axes", 0))


@unary("CumSum", since=11, until=14)
def cum_sum(s: GradientSite) -> Tensor:
    """Dy summed up from the other end."""
    reverse, exclusive = s.attr("reverse", 0), s.attr("exclusive", 0)
    return s.dy.op("CumSum", s.input(1), reverse=1 - reverse, exclusive=exclusive)
