"""Ops that have no gradient rule of their own, written out as formulas over standard ops, one module a family.

Importing this package fills the registry.
"""

from cloakonnx.graph.decompose import (
    attention,
    blocked,
    fused,
    learning,
    normalization,
    pooling,
    quantised,
    recurrent,
    sampling,
    schema,
    spectral,
)

__all__ = [
    "attention",
    "blocked",
    "fused",
    "learning",
    "normalization",
    "pooling",
    "quantised",
    "recurrent",
    "sampling",
    "schema",
    "spectral",
]
