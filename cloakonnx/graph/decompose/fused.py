"""Ops that ONNX Runtime's optimiser fuses out of several (com.microsoft), decomposed into standard ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import MICROSOFT, Node, Outputs, decomposition
from cloakonnx.graph.index.custom import CONV

_EPSILON = 1e-12


def given(s: Node, names: Sequence[str]) -> dict[str, Any]:
    """Return those attributes that the node has."""
    return {name: s.attr(name) for name in names if s.attr(name) is not None}


def activated(s: Node, x: Tensor, parameters: Sequence[float]) -> Tensor:
    """Apply the activation that the node names, with its parameters in order."""
    name = s.attr("activation")
    values = [*parameters, None, None]
    if name in {None, ""}:
        return x
    if name in {"Relu", "Tanh", "Sigmoid", "Softplus", "Softsign"}:
        return x.op(name)
    if name in {"LeakyRelu", "Elu", "ThresholdedRelu"}:
        return x.op(name) if values[0] is None else x.op(name, alpha=values[0])
    if name == "HardSigmoid":
        return x.op(name, alpha=0.2 if values[0] is None else values[0], beta=0.5 if values[1] is None else values[1])
    if name == "Clip":
        return x.op("Clip", values[0], values[1])
    if name == "HardSwish":
        return x.op("HardSwish")
    raise s.error(f"its activation {name} is unknown")


def convolved(s: Node, x: Tensor) -> Tensor:
    """Return the convolution of a node with its weights and bias, before what is fused behind it."""
    return x.op("Conv", s.input(1), s.optional(2), **given(s, CONV))


@decomposition("FusedConv", domain=MICROSOFT)
def fused_conv(s: Node) -> Tensor:
    """Conv, a sum and an activation."""
    y = convolved(s, s.x)
    return activated(s, y + s.input(3) if s.has(3) else y, s.attr("activation_params") or ())


@decomposition("NhwcConv", domain=MICROSOFT)
@decomposition("NhwcFusedConv", domain=MICROSOFT)
def nhwc_conv(s: Node) -> Tensor:
    """FusedConv of images whose channels come last, as those of the weights do."""
    rank = len(s.shape(0))
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    weights = s.input(1).transpose(first)
    y = s.x.transpose(first).op("Conv", weights, s.optional(2), **given(s, CONV)).transpose(last)
    return activated(s, y + s.input(3) if s.has(3) else y, s.attr("activation_params") or ())


@decomposition("FusedGemm", domain=MICROSOFT)
def fused_gemm(s: Node) -> Tensor:
    """Gemm and an activation."""
    y = s.x.op("Gemm", s.input(1), s.optional(2), **given(s, ("alpha", "beta", "transA", "transB")))
    return activated(s, y, list(given(s, ("activation_alpha", "activation_beta")).values()))


@decomposition("FusedMatMul", domain=MICROSOFT)
@decomposition("TransposeMatMul", domain=MICROSOFT)
def fused_matmul(s: Node) -> Tensor:
    """MatMul of matrices that are transposed, times a number."""
    return _matmul(s)


@decomposition("FusedMatMulActivation", domain=MICROSOFT)
def fused_matmul_activation(s: Node) -> Tensor:
    """FusedMatMul and an activation."""
    return activated(s, _matmul(s), list(given(s, ("activation_alpha", "activation_beta")).values()))


def _matmul(s: Node) -> Tensor:
    sides = []
    for position, letter in enumerate("AB"):
        x, rank = s.input(position), len(s.shape(position))
        order = list(range(rank))
        if s.attr(f"transBatch{letter}", 0):
            order = [*order[1:-1], 0, rank - 1]
        if s.attr(f"trans{letter}", 0) and rank > 1:
            order[-2:] = order[:-3:-1]
        sides.append(x if order == list(range(rank)) else x.transpose(order))
    return sides[0].op("MatMul", sides[1]) * s.number("alpha", 1.0)


def gelu(x: Tensor) -> Tensor:
    """Return x times the normal distribution at x."""
    return x * 0.5 * ((x * math.sqrt(0.5)).op("Erf") + 1)


def fast_gelu(x: Tensor) -> Tensor:
    """Return GELU as its approximation by tanh has it."""
    return x * 0.5 * ((math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).op("Tanh") + 1)


@decomposition("BiasGelu", domain=MICROSOFT)
def bias_gelu(s: Node) -> Tensor:
    """GELU of a sum."""
    return gelu(s.x + s.input(1))


@decomposition("FastGelu", domain=MICROSOFT)
def fast_gelu_(s: Node) -> Tensor:
    """GELU by tanh, of a sum where there is a bias."""
    return fast_gelu(s.x + s.input(1) if s.has(1) else s.x)


@decomposition("GemmFastGelu", domain=MICROSOFT)
def gemm_fast_gelu(s: Node) -> Tensor:
    """MatMul and GELU by tanh."""
    y = s.x.op("MatMul", s.input(1))
    return fast_gelu(y + s.input(2) if s.has(2) else y)


@decomposition("QuickGelu", domain=MICROSOFT)
def quick_gelu(s: Node) -> Tensor:
    """x times the sigmoid of alpha x."""
    return s.x * (s.x * s.number("alpha", 1.702)).op("Sigmoid")


@decomposition("BiasAdd", domain=MICROSOFT)
def bias_add(s: Node) -> Tensor:
    """The sum of all three."""
    return s.x + s.input(1) + s.input(2)


@decomposition("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(s: Node) -> Tensor:
    """The first half of a sum times GELU of the second."""
    width = s.shape(1)[-1]
    if not isinstance(width, int):
        raise s.error("the size of its bias is unknown")
    left, right = (s.x + s.input(1)).split([width // 2] * 2, -1)
    return left * gelu(right)


@decomposition("BiasDropout", domain=MICROSOFT, note="inference mode")
def bias_dropout(s: Node) -> Tensor:
    """The sum, and a residual where there is one."""
    y = s.x + s.input(1)
    return y + s.input(2) if s.has(2) else y


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None, axes: Sequence[int], epsilon: float) -> Tensor:
    """Return x standardised over axes, times a scale, plus a bias."""
    centred = x - x.mean(axes)
    y = centred / ((centred * centred).mean(axes) + epsilon).sqrt() * scale
    return y if bias is None else y + bias


def rms_norm(x: Tensor, scale: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    """Return x over its root mean square, times a scale."""
    return x / ((x * x).mean(axes) + epsilon).sqrt() * scale


@decomposition("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(s: Node) -> Outputs:
    """LayerNormalization of a sum, which is the fourth output."""
    total = _summed(s, 4)
    return [layer_norm(total, s.input(2), s.optional(3), [-1], s.number("epsilon", _EPSILON)), None, None, total]


@decomposition("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(s: Node) -> Outputs:
    """Normalisation by the root mean square of a sum, which is the fourth output."""
    total = _summed(s, 3)
    return [rms_norm(total, s.input(2), [-1], s.number("epsilon", _EPSILON)), None, None, total]


def _summed(s: Node, bias: int) -> Tensor:
    total = s.x + s.input(1)
    return total + s.input(bias) if s.has(bias) else total


@decomposition("SimplifiedLayerNormalization")
def simplified_layer_normalization(s: Node) -> Outputs:
    """Normalisation by the root mean square."""
    rank = len(s.shape(0))
    axes = list(range(s.attr("axis", -1) % rank, rank))
    return [rms_norm(s.x, s.input(1), axes, s.number("epsilon", 1e-5))]


@decomposition("GroupNorm", domain=MICROSOFT)
def group_norm(s: Node) -> Tensor:
    """GroupNormalization of images whose channels may come last, and SiLU where asked for."""
    rank, groups = len(s.shape(0)), s.attr("groups")
    is_last = bool(s.attr("channels_last", 1))
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    x = s.x.transpose(first) if is_last else s.x
    rows = x.reshape(s.build.ints(0, groups, -1))
    unit = layer_norm(rows, s.build.constant(np.ones(1, x.dtype)), None, [-1], s.number("epsilon", 1e-5))
    ones = [1] * (rank - 2)
    y = unit.reshape(x.op("Shape")) * s.input(1).reshape(-1, *ones) + s.input(2).reshape(-1, *ones)
    y = y * y.op("Sigmoid") if s.attr("activation", 0) else y
    return y.transpose(last) if is_last else y
