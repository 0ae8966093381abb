"""Pools by a p-norm, as an average of powers."""

from __future__ import annotations

import math

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import Node, decomposition


@decomposition("LpPool", until=22, note="dilations from opset 19 on")
def lp_pool(s: Node) -> Tensor:
    """The p-th root of the sum of powers in each window."""
    kernel = s.attr("kernel_shape")
    given = {key: s.attr(key) for key in ("auto_pad", "ceil_mode", "dilations", "pads", "strides")}
    kept = {key: value for key, value in given.items() if value is not None}
    if set(kept.get("dilations", [1])) == {1}:
        kept.pop("dilations", None)
    elif s.build.opset < 19:
        raise s.error("its windows are dilated: export the model at opset 19 or later")
    if not kept.get("ceil_mode"):
        mean = _power(s).op("AveragePool", kernel_shape=kernel, count_include_pad=1, **kept)
        return _root(s, mean * math.prod(kernel))
    # A window that reaches past the end averages what there is of it.
    mean = _power(s).op("AveragePool", kernel_shape=kernel, **kept)
    return _root(s, mean * (s.x.zeros() + 1).op("LpPool", kernel_shape=kernel, p=1, **kept))


@decomposition("GlobalLpPool", until=22)
def global_lp_pool(s: Node) -> Tensor:
    """The p-th root of the sum of powers of each channel."""
    return _root(s, _power(s).sum(range(2, len(s.shape(0)))))


def _power(s: Node) -> Tensor:
    return abs(s.x) ** s.number("p", 2)


def _root(s: Node, total: Tensor) -> Tensor:
    """The root, and 0 with a gradient of 0 where everything is 0."""
    return (total > 0).where((total > 0).where(total, 1) ** (1 / s.number("p", 2)), 0)
