"""Results of an evaluation on a batch, or on all batches joined: outcomes sample by sample, work added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.evaluation.results import AtEps, RandomMask, Robustness, Stage
from cloakonnx.evaluation.samples import Turned
from cloakonnx.statistics import Accuracy, Paired
from cloakonnx.text import Written

Outcomes = NDArray[np.bool_]
"""(N,) which samples are right."""


@dataclass(frozen=True)
class Gain:
    """Robust samples of the hardened model (first) and of the baseline (second) at one eps.

    Attributes:
        eps: The radius, in pixel space.
        static: Both under the inputs made on the baseline.
        adaptive: Both under their own attacks.
    """

    eps: float
    static: Paired
    adaptive: Paired


@dataclass(frozen=True, eq=False)
class Won:
    """The first input that each sample fell to.

    Attributes:
        index: (K,) int64, of the sample in the data.
        x: (K, ...) float32 pixels in the model's layout.
        predicted: (K,) int64, the model's class for it.
    """

    index: NDArray[np.int64]
    x: NDArray[np.float32]
    predicted: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FoundOfModel:
    """One model at one eps; the fields are those of :class:`Robustness`, sample by sample.

    ``by`` (N,) has the number of the stage that each sample fell to, -1 where it is robust or was not right; ``won``
    the inputs that won, None where they are not kept.
    """

    robust: Outcomes
    noise: Outcomes
    control: Outcomes
    stages: tuple[Stage, ...]
    by: NDArray[np.int16]
    won: Won | None = None

    @property
    def converged(self) -> int:
        """How many samples hold a stage's attack that has converged for each of them; 0 where none has."""
        return next((stage.robust for stage in self.stages if stage.robust and stage.robust == stage.converged), 0)

    def result(self) -> Robustness:
        """Count."""
        return Robustness(count(self.robust), count(self.noise), count(self.control), self.stages)


@dataclass(frozen=True, eq=False)
class FoundAtEps:
    """The models at one eps; the fields are those of :class:`AtEps`, sample by sample.

    ``static_baseline`` is what the inputs made on the baseline left of the baseline itself.
    """

    eps: float
    static: Outcomes | None
    static_baseline: Outcomes | None
    hardened: FoundOfModel
    baseline: FoundOfModel | None
    random_masks: tuple[Outcomes, ...]

    @property
    def gain(self) -> Gain | None:
        """The gain against replayed inputs and against attacks on the model itself; None without a baseline."""
        if self.static is None or self.static_baseline is None or self.baseline is None:
            return None
        return Gain(
            self.eps,
            static=Paired.of(self.static, self.static_baseline),
            adaptive=Paired.of(self.hardened.robust, self.baseline.robust),
        )

    def result(self, random_masks: tuple[RandomMask, ...], eps: float) -> AtEps:
        """Count; the controls are counted already, and eps may have the text that it was written as."""
        beside = self.baseline
        return AtEps(
            eps=self.eps,
            static=None if self.static is None else count(self.static),
            hardened=self.hardened.result(),
            baseline=None if beside is None else beside.result(),
            pairs=None if beside is None else Paired.of(self.hardened.robust, beside.robust),
            random_masks=random_masks,
            eps_text=eps.text if isinstance(eps, Written) else None,
        )


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that was found on a batch, or on all. What stands for each model has the model first.

    Attributes:
        clean: Which clean samples the model classifies correctly.
        clean_baseline: The same for the baseline; None without one.
        clean_random: The same for each random mask.
        at: One for each eps.
        unscored: For each model the number of clean samples whose scores are NaN; they are not right.
        tied: For each model the number of clean samples where several classes share the largest score.
        labels: Labels of the samples.
        decided: For each model the predicted classes of the clean samples.
        turned: Samples that were gained and lost at the first eps; None where none are kept.
    """

    clean: Outcomes
    clean_baseline: Outcomes | None
    clean_random: tuple[Outcomes, ...]
    at: tuple[FoundAtEps, ...]
    unscored: tuple[int, ...]
    tied: tuple[int, ...]
    labels: NDArray[np.int64]
    decided: tuple[NDArray[np.int64], ...]
    turned: Turned | None = None

    @property
    def pairs(self) -> Paired | None:
        """Clean samples that the model (first) and the baseline (second) get right; None without a baseline."""
        return None if self.clean_baseline is None else Paired.of(self.clean, self.clean_baseline)

    def results(self, eps: Sequence[float] = ()) -> tuple[AtEps, ...]:
        """Return what was found at each eps, counted; each as it was written where that is given."""
        return tuple(
            found.result(
                tuple(
                    RandomMask(count(clean), count(control))
                    for clean, control in zip(self.clean_random, found.random_masks, strict=True)
                ),
                written,
            )
            for found, written in zip(self.at, eps or [found.eps for found in self.at], strict=True)
        )


def count(outcomes: Outcomes) -> Accuracy:
    """Return how many are right."""
    return Accuracy(int(outcomes.sum()), len(outcomes))
