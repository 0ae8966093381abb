"""Normalisation."""

from __future__ import annotations

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import Node, decomposition

_LEAST = 1e-9
"""Epsilon that ONNX adds to the standard deviation."""


@decomposition("MeanVarianceNormalization", until=13)
def mean_variance_normalization(s: Node) -> Tensor:
    """(x - mean) / standard deviation, over axes of which the first is mostly the batch."""
    axes = s.attr("axes") or [0, 2, 3]
    centred = s.x - s.x.mean(axes)
    return centred / ((centred * centred).mean(axes).sqrt() + _LEAST)
