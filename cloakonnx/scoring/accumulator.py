"""Sums over clean/adversarial pairs that grow with the features, not with the samples, and that merge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Moments:
    """What all criteria need of a tap's activations, per feature, in float64.

    Attributes:
        count: Values behind each feature's sums: samples times the size of every other axis.
        abs_delta: (F,) sum of |adversarial - clean|.
        abs_clean: (F,) sum of |clean|.
        mean: (F,) mean of clean.
        m2: (F,) sum of squared deviations of clean from its mean.
    """

    count: int
    abs_delta: NDArray[np.float64]
    abs_clean: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def zero(cls, features: int) -> Moments:
        """Return the moments of no pairs."""
        return cls(0, *(np.zeros(features) for _ in range(4)))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of pairs together.

        Source: Chan, Golub and LeVeque (1979), Updating Formulae and a Pairwise Algorithm, eq. 2.1, for mean and m2.
        """
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.abs_delta + other.abs_delta,
            self.abs_clean + other.abs_clean,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta * delta * (self.count * other.count / count),
        )
