"""Rounding and quantisation: gradients of zero, and what goes straight through instead where that is asked for."""

from __future__ import annotations

import numpy as np

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import straight_through, unary
from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.ranges import RANGES, cuts_as_activation


def _as_is(s: GradientSite) -> Tensor:
    """Dy, as if the op were not there."""
    return s.dy


for _op, _until in (("Round", 22), ("Floor", 13), ("Ceil", 13)):
    straight_through(_op, until=_until, note="dy")(_as_is)


@straight_through("Sign", until=13, note="dy where abs(x) <= 1")
def sign(s: GradientSite) -> Tensor:
    """Dy where |x| <= 1 (Hubara et al. 2016, arXiv 1602.02830, equation 4)."""
    return s.dy * (abs(s.x) <= 1).cast(s.x)


@straight_through("QuantizeLinear", until=25, note="dy / scale; 0 where a Relu in the range cuts off; no blocks")
def quantize(s: GradientSite) -> Tensor:
    """Dy / scale; where an end of the range stands for 0, nothing beyond it, as in PyTorch's fake quantisation."""
    scale, kind = _along(s, 1), s.y.elem_type
    if kind not in RANGES:
        raise s.error("only integers of 4, 8 and 16 bits are passed straight through")
    limits = RANGES[kind]
    if not cuts_as_activation(s.value(2) if s.has(2) else np.zeros(()), kind):
        return s.dy / scale
    levels = (s.x / scale).op("Round")
    if s.has(2):
        levels = levels + _along(s, 2).cast(s.x)
    inside = (levels >= limits[0]) & (levels <= limits[1])
    return s.dy / scale * inside.cast(s.x)


@unary("DequantizeLinear", since=10, until=25, note="of what was quantised straight-through; no blocks")
def dequantize(s: GradientSite) -> Tensor:
    """Dy * scale, by the integers as if they were real."""
    return s.dy * _along(s, 1)


def _along(s: GradientSite, position: int) -> Tensor:
    """Return scale or zero point in a shape that broadcasts along the axis that it belongs to."""
    given = s.input(position)
    if s.attr("block_size", 0):
        raise s.error("quantisation by blocks has no rule")
    if given.dims == ():
        return given
    if given.static == (1,):
        return given.reshape(s.build.ints())
    shape = s.shape(s.x, "input")
    axis = s.attr("axis", 1) % len(shape)
    return given.reshape(-1, *(1 for _ in shape[axis + 1 :]))
