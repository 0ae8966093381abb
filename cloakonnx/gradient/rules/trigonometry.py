"""Trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import unary
from cloakonnx.graph.build import Tensor


@unary("Sin", since=7, until=22)
def sin(s: GradientSite) -> Tensor:
    """Dy * cos(x)."""
    return s.dy * s.x.op("Cos")


@unary("Cos", since=7, until=22)
def cos(s: GradientSite) -> Tensor:
    """-dy * sin(x)."""
    return -(s.dy * s.x.op("Sin"))


@unary("Tan", since=7, until=22)
def tan(s: GradientSite) -> Tensor:
    """Dy * (1 + y ** 2)."""
    return s.dy * (s.y * s.y + 1)


@unary("Asin", since=7, until=22)
def asin(s: GradientSite) -> Tensor:
    """Dy / sqrt(1 - x ** 2)."""
    return s.dy / (1 - s.x * s.x).sqrt()


@unary("Acos", since=7, until=22)
def acos(s: GradientSite) -> Tensor:
    """-dy / sqrt(1 - x ** 2)."""
    return -(s.dy / (1 - s.x * s.x).sqrt())


@unary("Atan", since=7, until=22)
def atan(s: GradientSite) -> Tensor:
    """Dy / (1 + x ** 2)."""
    return s.dy / (s.x * s.x + 1)


@unary("Sinh", since=9, until=22)
def sinh(s: GradientSite) -> Tensor:
    """Dy * cosh(x)."""
    return s.dy * s.x.op("Cosh")


@unary("Cosh", since=9, until=22)
def cosh(s: GradientSite) -> Tensor:
    """Dy * sinh(x)."""
    return s.dy * s.x.op("Sinh")


@unary("Asinh", since=9, until=22)
def asinh(s: GradientSite) -> Tensor:
    """Dy / sqrt(x ** 2 + 1)."""
    return s.dy / (s.x * s.x + 1).sqrt()


@unary("Acosh", since=9, until=22)
def acosh(s: GradientSite) -> Tensor:
    """Dy / sqrt(x ** 2 - 1)."""
    return s.dy / (s.x * s.x - 1).sqrt()


@unary("Atanh", since=9, until=22)
def atanh(s: GradientSite) -> Tensor:
    """Dy / (1 - x ** 2)."""
    return s.dy / (1 - s.x * s.x)
