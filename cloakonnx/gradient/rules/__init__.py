"""The rules, one module a family of ops; importing this package fills the registry."""

from cloakonnx.gradient.rules import (
    activation,
    convolution,
    einsum,
    elementwise,
    flat,
    linear,
    normalization,
    pooling,
    quantization,
    reduction,
    resizing,
    scatter,
    selection,
    shaping,
    trigonometry,
)

__all__ = [
    "activation",
    "convolution",
    "einsum",
    "elementwise",
    "flat",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resizing",
    "scatter",
    "selection",
    "shaping",
    "trigonometry",
]
