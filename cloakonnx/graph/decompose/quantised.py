"""Ops on integers as their real numbers: dequantised inputs, the op, and its result quantised again.

The gradient of such an op is 0 or not there. Straight-through it is that of the real numbers, within their range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.fused import given
from cloakonnx.graph.decompose.ranges import RANGES, cuts_as_activation
from cloakonnx.graph.decompose.registry import MICROSOFT, Node, Outputs, decomposition
from cloakonnx.graph.index.custom import CONV, POOL


def _shaped(s: Node, tensor: Tensor, rank: int, axis: int) -> Tensor:
    """Return a scale or zero point so that it broadcasts along the axis that it belongs to."""
    dims = tensor.dims
    if dims in {(), (1,)}:
        return tensor.reshape(s.build.ints())
    return tensor.reshape(*(-1 if a == axis else 1 for a in range(rank)))


def _real(s: Node, data: int, scale: int, zero: int, axis: int = 1) -> Tensor:
    """Return an input as the real numbers that its integers stand for."""
    rank = max(len(s.shape(data)), 1)
    by = _shaped(s, s.input(scale), rank, axis % rank)
    return _shifted(s, data, zero, axis, to=by.elem_type) * by


def _shifted(s: Node, data: int, zero: int, axis: int, *, to: int = TensorProto.FLOAT) -> Tensor:
    """Return integers without their zero point as floats."""
    x, rank = s.input(data).cast(to), max(len(s.shape(data)), 1)
    return x - _shaped(s, s.input(zero), rank, axis % rank).cast(to) if s.has(zero) else x


def _integers(s: Node, y: Tensor, scale: int, zero: int, *, axis: int | None = None) -> Tensor:
    """Return real numbers as integers: over the scale, rounded, shifted, held within the range where that matters."""
    by = s.input(scale)
    kind = s.input(zero).elem_type if s.has(zero) else TensorProto.UINT8
    if kind not in RANGES:
        raise s.error("only integers of 4, 8 and 16 bits are passed straight through")
    rank = len(s.shape(0))
    by = by.reshape(s.build.ints()) if axis is None else _shaped(s, by, rank, axis % rank)
    levels = (y / by).op("Round")
    if s.has(zero):
        shift = s.input(zero)
        shift = shift.reshape(s.build.ints()) if axis is None else _shaped(s, shift, rank, axis % rank)
        levels = levels + shift.cast(levels)
    given_zero = s.value(zero) if s.has(zero) else np.zeros(())
    return (levels.op("Clip", *RANGES[kind]) if cuts_as_activation(given_zero, kind) else levels).cast(kind)


@decomposition("QuantizeLinear", domain=MICROSOFT, rounds=True)
def quantize_linear(s: Node) -> Tensor:
    """As the standard op."""
    return _integers(s, s.x, 1, 2, axis=s.attr("axis", 1))


@decomposition("DequantizeLinear", domain=MICROSOFT, integers=[0])
def dequantize_linear(s: Node) -> Tensor:
    """As the standard op."""
    return _real(s, 0, 1, 2, s.attr("axis", 1))


@decomposition("QLinearConv", until=10, rounds=True, integers=[0])
@decomposition("QLinearConv", domain=MICROSOFT, rounds=True, integers=[0], note="channels first")
def qlinear_conv(s: Node) -> Tensor:
    """Conv."""
    if s.attr("channels_last", 0):
        raise s.error("channels last have no formula")
    bias = None
    if s.has(8):
        bias = s.input(8).cast(s.input(1)) * s.input(1) * s.input(4).reshape(-1)
    y = _real(s, 0, 1, 2).op("Conv", _real(s, 3, 4, 5, 0), bias, **given(s, CONV))
    return _integers(s, y, 6, 7)


@decomposition("QLinearMatMul", until=21, rounds=True, integers=[0, 3])
def qlinear_matmul(s: Node) -> Tensor:
    """MatMul."""
    y = _real(s, 0, 1, 2, -2).op("MatMul", _real(s, 3, 4, 5, -1))
    return _integers(s, y, 6, 7)


@decomposition("QGemm", domain=MICROSOFT, rounds=True, integers=[0, 3])
def qgemm(s: Node) -> Tensor:
    """Gemm; of real numbers where no scale of the result is given."""
    bias = None
    if s.has(6):
        bias = s.input(6).cast(s.input(1)) * s.input(1) * s.input(4) * s.number("alpha", 1.0)
    axis = 0 if s.attr("transB", 0) else 1
    y = _real(s, 0, 1, 2).op("Gemm", _real(s, 3, 4, 5, axis), bias, **given(s, ("alpha", "transA", "transB")))
    return _integers(s, y, 7, 8) if s.has(7) else y


def _pairwise(op: str) -> Callable[[Node], Tensor]:
    def formula(s: Node) -> Tensor:
        return _integers(s, _real(s, 0, 1, 2).op(op, _real(s, 3, 4, 5)), 6, 7)

    return formula


for _op in ("Add", "Mul"):
    decomposition(f"QLinear{_op}", domain=MICROSOFT, rounds=True, integers=[0, 3])(_pairwise(_op))


def _single(op: str, names: Sequence[str] = (), **fixed: Any) -> Callable[[Node], Tensor]:
    def formula(s: Node) -> Tensor:
        if s.attr("channels_last", 0):
            raise s.error("channels last have no formula")
        return _integers(s, _real(s, 0, 1, 2).op(op, **given(s, names), **fixed), 3, 4)

    return formula


for _op, _names in {"Sigmoid": (), "LeakyRelu": ("alpha",), "AveragePool": POOL, "GlobalAveragePool": ()}.items():
    decomposition(f"QLinear{_op}", domain=MICROSOFT, rounds=True, integers=[0])(_single(_op, _names))


@decomposition("QLinearSoftmax", domain=MICROSOFT, rounds=True, integers=[0])
def qlinear_softmax(s: Node) -> Tensor:
    """Softmax."""
    return _integers(s, _real(s, 0, 1, 2).op("Softmax", axis=s.attr("axis", -1)), 3, 4)


@decomposition("QLinearReduceMean", domain=MICROSOFT, rounds=True, integers=[0])
def qlinear_reduce_mean(s: Node) -> Tensor:
    """ReduceMean."""
    x = _real(s, 0, 1, 2)
    axes = s.attr("axes") or list(range(len(s.shape(0))))
    return _integers(s, x.op("ReduceMean", s.build.ints(*axes), keepdims=s.attr("keepdims", 1)), 3, 4)


@decomposition("QLinearConcat", domain=MICROSOFT, rounds=True, integers=range(2, 62, 3))
def qlinear_concat(s: Node) -> Tensor:
    """Concat."""
    first, *rest = [_real(s, i, i + 1, i + 2) for i in range(2, len(s.node.input), 3)]
    y = first.op("Concat", *rest, axis=s.attr("axis"))
    return _integers(s, y, 0, 1)


@decomposition("QLinearWhere", domain=MICROSOFT, rounds=True, integers=[1, 4])
def qlinear_where(s: Node) -> Tensor:
    """Where."""
    y = s.x.where(_real(s, 1, 2, 3), _real(s, 4, 5, 6))
    return _integers(s, y, 7, 8)


@decomposition("DynamicQuantizeMatMul", domain=MICROSOFT, rounds=True)
def dynamic_quantize_matmul(s: Node) -> Tensor:
    """MatMul of a real matrix and a quantised one."""
    y = s.x.op("MatMul", _real(s, 1, 2, 3, -1))
    return y + s.input(4) if s.has(4) else y


@decomposition("MatMulIntegerToFloat", domain=MICROSOFT, rounds=True, integers=[0, 1])
def matmul_integer_to_float(s: Node) -> Tensor:
    """MatMul of two quantised matrices, as real numbers."""
    y = _real(s, 0, 2, 4, -2).op("MatMul", _real(s, 1, 3, 5, -1))
    return y + s.input(6) if s.has(6) else y


@decomposition("MatMulNBits", domain=MICROSOFT, note="no g_idx")
def matmul_nbits(s: Node) -> Tensor:
    """MatMul with weights of a few bits, packed into bytes by blocks."""
    rows, columns, bits, block = (s.attr(name) for name in ("K", "N", "bits", "block_size"))
    if s.has(4) or bits not in {2, 4, 8}:
        raise s.error("g_idx and numbers of bits other than 2, 4 and 8 have no formula")
    blocks = -(-rows // block)
    by = s.input(2).reshape(columns, blocks, 1)
    values = _unpacked(s.input(1), bits).cast(by).reshape(columns, blocks, -1)
    zero: Tensor | float = float(1 << (bits - 1))
    if s.has(3):
        packed = s.input(3)
        found = packed if packed.dtype.kind == "f" else _unpacked(packed.reshape(columns, -1), bits)
        found = found.reshape(columns, -1).op("Slice", s.build.ints(0), s.build.ints(blocks), s.build.ints(1))
        zero = found.cast(by).reshape(columns, blocks, 1)
    weights = ((values - zero) * by).reshape(columns, -1)
    weights = weights.op("Slice", s.build.ints(0), s.build.ints(rows), s.build.ints(1)).transpose([1, 0])
    y = s.x.op("MatMul", weights if weights.elem_type == s.x.elem_type else weights.cast(s.x))
    return y + s.input(5) if s.has(5) else y


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """Return numbers of a few bits that lie in bytes, the lowest bits first, along a new last axis."""
    if bits == 8:
        return packed.unsqueeze(-1)
    parts = []
    for place in range(8 // bits):
        shift = packed.builder.constant(np.array(bits * place, np.uint8))
        low = packed.op("BitShift", shift, direction="RIGHT") if place else packed
        parts.append(low.op("Mod", packed.builder.constant(np.array(1 << bits, np.uint8))).unsqueeze(-1))
    return parts[0].op("Concat", *parts[1:], axis=-1)


@decomposition("DynamicQuantizeLinear", until=11, rounds=True)
def dynamic_quantize_linear(s: Node) -> Outputs:
    """x divided by the dynamic scale; scale and zero point are those that ONNX Runtime computed, and get no gradient.

    What the scale does to the integers and what it does to their real numbers cancel each other.
    """
    for name, elem_type in zip(s.node.output[1:3], (TensorProto.FLOAT, TensorProto.UINT8), strict=True):
        s.build.index.learn(name, elem_type, ())
    scale, zero = (s.build.tensor(name) for name in s.node.output[1:3])
    levels = (s.x / scale).op("Round") + zero.cast(TensorProto.FLOAT)
    return [levels.op("Clip", 0, 255).cast(TensorProto.UINT8), None, None]


@decomposition("MatMulInteger", until=10, rounds=True, integers=[0, 1])
def matmul_integer(s: Node) -> Tensor:
    """MatMul of integers without their zero points."""
    left, right = (_shifted(s, i, 2 + i, axis) for i, axis in ((0, -2), (1, -1)))
    return left.op("MatMul", right).op("Round").cast(TensorProto.INT32)


@decomposition("ConvInteger", until=10, rounds=True, integers=[0])
def conv_integer(s: Node) -> Tensor:
    """Conv of integers without their zero points."""
    left, right = _shifted(s, 0, 2, 1), _shifted(s, 1, 3, 0)
    return left.op("Conv", right, **given(s, CONV)).op("Round").cast(TensorProto.INT32)
