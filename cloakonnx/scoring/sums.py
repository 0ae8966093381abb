"""Sums over clean/adversarial pairs that grow with the features, not with the samples, and that merge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Moments:
    """What criteria need of a tap's activations, per feature, in float64.

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


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums of the clean activations class by class.

    Attributes:
        labels: (C,) int64, ascending: the classes that came up.
        counts: (C,) int64: values behind each class's sums, for one feature.
        totals: (C, F) float64.
    """

    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.float64]

    def merge(self, other: ClassSums) -> ClassSums:
        """Return the sums of both together."""
        labels, places = np.unique(np.concatenate([self.labels, other.labels]), return_inverse=True)
        counts = np.zeros(len(labels), np.int64)
        totals = np.zeros((len(labels), self.totals.shape[1]))
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        np.add.at(totals, places, np.concatenate([self.totals, other.totals]))
        return ClassSums(labels, counts, totals)

    def between(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (F,) the sum of squared deviations of the classes' means from the mean, each as often as it counts."""
        counts = self.counts[:, None]
        return np.asarray((counts * (self.totals / counts - mean) ** 2).sum(axis=0))


@dataclass(frozen=True, eq=False)
class Attribution:
    """Value times gradient, summed.

    Attributes:
        samples: How many samples went in.
        total: (F,) float64 over samples and every axis but the feature axis.
    """

    samples: int
    total: NDArray[np.float64]

    def merge(self, other: Attribution) -> Attribution:
        """Return the sums of both together."""
        return Attribution(self.samples + other.samples, self.total + other.total)


@dataclass(frozen=True, eq=False)
class Sums:
    """All that a criterion asked for; None for what it did not."""

    moments: Moments
    classes: ClassSums | None = None
    attribution: Attribution | None = None

    def merge(self, other: Sums) -> Sums:
        """Return the sums of both sets of pairs together."""
        classes = self.classes.merge(other.classes) if self.classes and other.classes else None
        attribution = self.attribution.merge(other.attribution) if self.attribution and other.attribution else None
        return Sums(self.moments.merge(other.moments), classes, attribution)
