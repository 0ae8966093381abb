"""Rounding and quantisation: gradients of zero, and what goes straight through instead where that is asked for."""

from __future__ import annotations

from onnx import TensorProto

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import straight_through, unary

_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
}


def _as_is(e: Emitter, s: Site) -> str:
    """Dy, as if the op were not there."""
    return s.dy


for _op, _until in (("Round", 22), ("Floor", 13), ("Ceil", 13)):
    straight_through(_op, until=_until, note="dy")(_as_is)


@straight_through("Sign", until=13, note="dy where abs(x) <= 1")
def sign(e: Emitter, s: Site) -> str:
    """Dy where |x| <= 1 (Hubara et al. 2016, arXiv 1602.02830, equation 4)."""
    inside = e.op("LessOrEqual", e.op("Abs", s.x()), e.number(1, s.x()))
    return e.op("Mul", s.dy, e.cast(inside, s.x()))


@straight_through("QuantizeLinear", until=25, note="dy / scale inside the range of the integers; no blocks")
def quantize(e: Emitter, s: Site) -> str:
    """Dy / scale where the value is not cut off, as PyTorch's fake quantisation has it."""
    scale = _along(e, s, 1)
    limits = _RANGES.get(s.info.elem_type(s.y()))
    if limits is None:
        raise s.error("only integers of 4, 8 and 16 bits are passed straight through")
    levels = e.op("Round", e.op("Div", s.x(), scale))
    if s.has(2):
        levels = e.op("Add", levels, e.cast(_along(e, s, 2), s.x()))
    above = e.op("GreaterOrEqual", levels, e.number(limits[0], s.x()))
    below = e.op("LessOrEqual", levels, e.number(limits[1], s.x()))
    inside = e.cast(e.op("And", above, below), s.x())
    return e.op("Mul", e.op("Div", s.dy, scale), inside)


@unary("DequantizeLinear", since=10, until=25, note="of what was quantised straight-through; no blocks")
def dequantize(e: Emitter, s: Site) -> str:
    """Dy * scale, by the integers as if they were real."""
    return e.op("Mul", s.dy, _along(e, s, 1))


def _along(e: Emitter, s: Site, index: int) -> str:
    """Return scale or zero point in a shape that broadcasts along the axis that it belongs to."""
    name = s.x(index)
    if s.attr("block_size", 0):
        raise s.error("quantisation by blocks has no rule")
    rank = s.info.rank(name)
    if rank == 0 or s.info.static(name) == (1,):
        return e.op("Reshape", name, e.constant([], "int64")) if rank else name
    shape = s.shape(s.x(), "input")
    axis = s.attr("axis", 1) % len(shape)
    return e.op("Reshape", name, e.ints(-1, *(1 for _ in shape[axis + 1 :])))
