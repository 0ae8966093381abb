"""The rules, one module a family of ops; importing this package fills the registry."""

from cloakonnx.gradient.rules import (
    activation,
    convolution,
    elementwise,
    flat,
    linear,
    normalization,
    pooling,
    quantization,
    reduction,
    resizing,
    selection,
    shaping,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "flat",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resizing",
    "selection",
    "shaping",
]
