"""The mask: constant weights over the feature axis of one tap, or over all that it holds of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import MaskError


@dataclass(frozen=True, eq=False)
class Mask:
    """Constant weights for the features of a tap.

    Attributes:
        tap: Name of the tensor.
        weights: (F,) float32; 1 keeps a feature, 0 removes it, learned weights lie in between or above. Or one weight
            for every element of a sample: the tap's shape without the batch axis.
        feature_axis: The axis that the weights of features run along; None takes the tap's own.

    Raises:
        MaskError: weights that are no finite numbers, or a single one without an axis.
    """

    tap: str
    weights: NDArray[np.float32]
    feature_axis: int | None = None

    def __post_init__(self) -> None:
        """Check the weights and keep a private float32 copy."""
        given = np.asarray(self.weights)
        if given.ndim == 0 or given.size == 0 or given.dtype.kind not in "fiub":
            raise MaskError(
                f"a mask for {self.tap!r} must be a vector of numbers, or have the shape of a sample there, not "
                f"{given.dtype} {given.shape}"
            )
        with np.errstate(over="ignore"):  # told below
            weights = given.astype(np.float32)
        if not np.isfinite(weights).all():
            raise MaskError(f"the mask for {self.tap!r} has a weight that is NaN or infinite in float32")
        weights.setflags(write=False)
        object.__setattr__(self, "weights", weights)

    @property
    def removed(self) -> list[int]:
        """Indices of the features (or elements, counted in C order) that the mask sets to 0, ascending."""
        return [int(i) for i in np.flatnonzero(self.weights == 0)]
