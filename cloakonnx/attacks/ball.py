"""The eps balls, a class for each norm: check, start in it, step, project, measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.random import Stream
from cloakonnx.errors import OptionError
from cloakonnx.text import Written

if TYPE_CHECKING:
    from cloakonnx.graph.build import Tensor

Norm: TypeAlias = Literal["linf", "l2"]

_TINY = float(np.finfo(np.float32).tiny)
"""Smaller than any length or gradient that matters: saturated samples have gradients of 1e-20."""


@dataclass(frozen=True)
class Ball:
    """A ball around each sample, in pixel space.

    Attributes:
        eps: Its radius.
    """

    name: ClassVar[str]

    eps: float

    def check(self, bounds: tuple[float, float], values: int) -> None:
        """Check that the ball makes sense in pixel space for samples of a number of values.

        Raises:
            OptionError: eps is negative, or larger than any two samples can differ.
        """
        low, high = bounds
        if not self.eps >= 0:
            raise OptionError(f"{{eps}} {self.eps:g} is negative", parameter="eps")
        widest = (high - low) * self.widest(values)
        if self.eps > widest:
            others = "; where values lie outside of it, {bounds} says so" if bounds == (0.0, 1.0) else ""
            raise OptionError(
                f"{{eps}} {self.eps:g} is wider than pixel space, [{low:g}, {high:g}], in {self.name} ({widest:.4g}); "
                f"eps is in the space of the data: 8/255, say{others}",
                parameter=("eps", "bounds"),
            )

    def widest(self, values: int) -> float:
        """Return the largest difference of two samples whose values are in [0, 1]."""
        raise NotImplementedError

    def inside(self, stream: Stream, x: NDArray[np.float32], *, draw: int = 0) -> NDArray[np.float32]:
        """Return x plus uniform noise in the ball."""
        raise NotImplementedError

    def edge(self, stream: Stream, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return x plus noise of size eps."""
        raise NotImplementedError

    def corner(self, stream: Stream, x: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return x plus the strongest noise of size eps: signs (Linf), a direction (L2)."""
        raise NotImplementedError

    def measure(self, delta: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N,) the size of each sample's perturbation."""
        raise NotImplementedError

    @staticmethod
    def direction(gradient: Tensor, axes: Sequence[int]) -> Tensor:
        """Return the step of size 1 that increases the loss most, as a formula; ``axes`` are a sample's."""
        raise NotImplementedError

    @staticmethod
    def projected(x: Tensor, origin: Tensor, eps: Tensor, axes: Sequence[int]) -> Tensor:
        """Return x brought into the ball around origin, as a formula; ``axes`` are a sample's."""
        raise NotImplementedError

    @staticmethod
    def pace(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how fast each value moves on the shortest way to a hyperplane with a normal of these sizes (FAB)."""
        raise NotImplementedError


class Linf(Ball):
    """The ball of the largest absolute value."""

    name = "linf"

    def widest(self, values: int) -> float:
        """Return 1."""
        return 1.0

    def inside(self, stream: Stream, x: NDArray[np.float32], *, draw: int = 0) -> NDArray[np.float32]:
        """Return x plus uniform noise in the cube."""
        noise = (2 * stream.uniform(x.shape[1:], draw=draw) - 1) * self.eps
        return np.asarray(x + noise, np.float32)

    def edge(self, stream: Stream, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return x plus uniform noise, scaled until its largest value is eps."""
        flat = (2 * stream.uniform(x.shape[1:]) - 1).reshape(len(x), -1)
        return _scaled(x, flat, np.abs(flat).max(axis=1), self.eps)

    def corner(self, stream: Stream, x: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return x plus or minus eps in every value."""
        return np.asarray(x + stream.signs(x.shape[1:]) * np.float32(self.eps))

    def measure(self, delta: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N,) the largest absolute value."""
        return np.asarray(np.abs(_flat(delta)).max(axis=1, initial=0.0))

    @staticmethod
    def direction(gradient: Tensor, axes: Sequence[int]) -> Tensor:
        """Return the signs."""
        return gradient.sign()

    @staticmethod
    def projected(x: Tensor, origin: Tensor, eps: Tensor, axes: Sequence[int]) -> Tensor:
        """Return x clipped to eps around origin in every value."""
        return x.op("Min", origin + eps).op("Max", origin - eps)

    @staticmethod
    def pace(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 for every value."""
        return np.ones_like(weight)


class L2(Ball):
    """The ball of the Euclidean length."""

    name = "l2"

    def widest(self, values: int) -> float:
        """Return the diagonal of the unit cube."""
        return math.sqrt(values)

    def inside(self, stream: Stream, x: NDArray[np.float32], *, draw: int = 0) -> NDArray[np.float32]:
        """Return x plus noise of uniform direction and radius u^(1/d) eps."""
        direction = stream.normal(x.shape[1:], draw=draw).reshape(len(x), -1)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radius = self.eps * stream.uniform((1,), draw=draw + 1) ** (1 / direction.shape[1])
        return np.asarray(x + (direction * radius).reshape(x.shape), np.float32)

    def edge(self, stream: Stream, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return x plus noise of uniform direction and length eps."""
        flat = stream.normal(x.shape[1:]).reshape(len(x), -1)
        return _scaled(x, flat, np.linalg.norm(flat, axis=1), self.eps)

    def corner(self, stream: Stream, x: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the same as :meth:`edge`."""
        return self.edge(stream, x)

    def measure(self, delta: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N,) the length."""
        return np.asarray(np.sqrt((_flat(delta) ** 2).sum(axis=1)))

    @staticmethod
    def direction(gradient: Tensor, axes: Sequence[int]) -> Tensor:
        """Return the gradient at length 1; scaled first, because the square of a small one underflows float32."""
        scaled = gradient / abs(gradient).max(axes).op("Max", _TINY)
        return scaled / _length(scaled, axes).op("Max", _TINY)

    @staticmethod
    def projected(x: Tensor, origin: Tensor, eps: Tensor, axes: Sequence[int]) -> Tensor:
        """Return x on the same ray from origin, at most eps away."""
        delta = x - origin
        length = _length(delta, axes)
        return origin + delta * (length.op("Min", eps) / length.op("Max", _TINY))

    @staticmethod
    def pace(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the normal itself."""
        return weight


BALLS: dict[str, type[Ball]] = {each.name: each for each in (Linf, L2)}


def ball(norm: str, eps: float) -> Ball:
    """Return the ball of a norm; raises OptionError for an unknown one."""
    if norm not in BALLS:
        raise OptionError(f"there is no norm {norm!r}; there are {' and '.join(BALLS)}")
    return BALLS[norm](eps)


def _length(x: Tensor, axes: Sequence[int]) -> Tensor:
    return x.op("ReduceL2", axes=list(axes), keepdims=1)


def _flat(delta: NDArray[np.floating]) -> NDArray[np.float64]:
    return delta.reshape(len(delta), math.prod(delta.shape[1:])).astype(np.float64)  # -1 fails without a sample


def _scaled(
    x: NDArray[np.float32], flat: NDArray[np.float64], size: NDArray[np.float64], eps: float
) -> NDArray[np.float32]:
    scaled = flat * (eps / np.maximum(size, 1e-12))[:, None]
    return np.asarray(x + scaled.reshape(x.shape), np.float32)


def radii_of(eps: float | Sequence[float]) -> tuple[float, ...]:
    """Return one eps or several as a tuple; NumPy's numbers are numbers."""
    each = (eps,) if isinstance(eps, Real) else tuple(eps)  # type: ignore[arg-type]
    return tuple(radius if isinstance(radius, Written) else float(radius) for radius in each)
