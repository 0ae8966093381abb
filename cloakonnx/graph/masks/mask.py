"""The mask: constant weights that multiply an activation or a weight of the model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import MaskError

FEATURE, ELEMENT = "feature", "element"
KERNEL, WEIGHT, OUTPUT_CHANNEL, INPUT_CHANNEL = "kernel", "weight", "output-channel", "input-channel"

PAIRED = frozenset({OUTPUT_CHANNEL, INPUT_CHANNEL})
"""Granularities of which a weight may carry one mask each."""

ON_WEIGHTS = frozenset({KERNEL, WEIGHT, *PAIRED})


@dataclass(frozen=True, eq=False)
class Mask:
    """Constant weights for a tensor of the model.

    Attributes:
        tap: Name of the tensor: an activation, or a weight of a layer.
        weights: float32; 1 keeps, 0 removes, learned weights lie in between or above. At an activation (F,), or the
            tap's shape without the batch axis for one weight an element. On a weight of the weight's rank, with its
            size or 1 along each axis.
        feature_axis: The axis that the weights of features run along; None takes the tap's own.
        granularity: What one weight multiplies: ``feature`` or ``element`` at an activation, None telling them apart by
            the weights' shape; ``kernel``, ``weight``, ``output-channel`` or ``input-channel`` on a weight.
        is_float16: Whether a file stores it as float16, cast to the type of the weight that it is on; its weights are
            rounded to that.

    Raises:
        MaskError: weights that are no finite numbers, or a single one without an axis; float16 at an activation.

    Examples:
        >>> import cloakonnx as ck
        >>> mask = ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)])
        >>> mask.removed, mask.weights.dtype
        ([0], dtype('float32'))
    """

    tap: str
    weights: NDArray[np.float32]
    feature_axis: int | None = None
    granularity: str | None = None
    is_float16: bool = False

    def __post_init__(self) -> None:
        """Check the weights and keep a private float32 copy."""
        given = np.asarray(self.weights)
        if given.ndim == 0 or given.size == 0 or given.dtype.kind not in "fiub":
            raise MaskError(
                f"a mask for {self.tap!r} must be a vector of numbers, or have the shape of a sample there, not "
                f"{given.dtype} {given.shape}"
            )
        with np.errstate(over="ignore"):  # an error below
            weights = given.astype(np.float32)
        if not np.isfinite(weights).all():
            raise MaskError(f"the mask for {self.tap!r} has a weight that is NaN or infinite in float32")
        if self.is_float16:
            weights = self._in_float16(weights)
        weights.setflags(write=False)
        object.__setattr__(self, "weights", weights)
        if self.granularity in {None, ELEMENT}:  # a vector of elements is one of features
            object.__setattr__(self, "granularity", FEATURE if weights.ndim == 1 else ELEMENT)

    def _in_float16(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.on_weight:
            raise MaskError(
                f"the mask for {self.tap!r} is at an activation; only masks on weights are stored as float16"
            )
        with np.errstate(over="ignore"):  # an error below
            rounded = weights.astype(np.float16).astype(np.float32)
        if not np.isfinite(rounded).all():
            raise MaskError(f"the mask for {self.tap!r} has a weight that overflows float16")
        return rounded

    def as_float16(self) -> Mask:
        """Return the mask as it is stored as float16; raises MaskError where it can't be."""
        return dataclasses.replace(self, is_float16=True)

    @property
    def on_weight(self) -> bool:
        """Whether it multiplies a weight of the model, not an activation."""
        return self.granularity in ON_WEIGHTS

    @property
    def size(self) -> int:
        """Number of its weights."""
        return self.weights.size

    @property
    def key(self) -> str:
        """Identifies it among the masks of a model: the tensor, and which of a pair it is."""
        return self.key_of(self.tap, self.granularity)

    @staticmethod
    def key_of(tap: str, granularity: str | None) -> str:
        """Return the key of a mask."""
        return f"{tap} ({granularity})" if granularity in PAIRED else tap

    @property
    def removed(self) -> list[int]:
        """Indices of the features (or elements, counted in C order) that the mask sets to 0, ascending."""
        return [int(i) for i in np.flatnonzero(self.weights == 0)]

    @property
    def change(self) -> float:
        """Root mean square of (weight - 1): how far the mask is from one that does nothing."""
        return math.sqrt(float(np.square(self.weights.astype(np.float64) - 1).mean()))


def most_changed(masks: Iterable[Mask], count: int) -> list[Mask]:
    """Return the masks that change something, those that change most first, at most ``count`` of them."""
    ranked = sorted((mask for mask in masks if mask.change), key=lambda mask: mask.change, reverse=True)
    return ranked[:count]


def largest_relative_error(pairs: Iterable[tuple[Mask, Mask]]) -> float:
    """Return the largest |b - a| / |a| of the weights of pairs of masks; where a is 0, b has to be."""
    worst = 0.0
    for exact, stored in pairs:
        a, b = (mask.weights.astype(np.float64) for mask in (exact, stored))
        error = np.abs(b - a)[a != 0] / np.abs(a[a != 0])
        worst = max(worst, float(error.max(initial=0.0)), float("inf") if b[a == 0].any() else 0.0)
    return worst
