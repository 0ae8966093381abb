"""Results of an evaluation on a batch, or on all batches joined: outcomes sample by sample, work added up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.evaluation.results import AtEps, RandomMask, Robustness, Stage
from cloakonnx.evaluation.samples import Turned
from cloakonnx.statistics import Accuracy, Paired

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
class FoundOfModel:
    """One model at one eps; the fields are those of :class:`Robustness`, sample by sample."""

    robust: Outcomes
    noise: Outcomes
    control: Outcomes
    stages: tuple[Stage, ...]

    @property
    def converged(self) -> int:
        """How many samples hold a stage's attack that has converged for each of them; 0 where none has."""
        return next((stage.robust for stage in self.stages if stage.robust and stage.robust == stage.converged), 0)

    def result(self) -> Robustness:
        """Count."""
        return Robustness(count(self.robust), count(self.noise), count(self.control), self.stages)


@dataclass(frozen=True, eq=False)
class FoundAtEps:
    """Both models at one eps; the fields are those of :class:`AtEps`, sample by sample.

    ``static_baseline`` is what the inputs made on the baseline left of the baseline itself.
    """

    eps: float
    static: Outcomes
    static_baseline: Outcomes
    hardened: FoundOfModel
    baseline: FoundOfModel
    random_masks: tuple[Outcomes, ...]

    @property
    def gain(self) -> Gain:
        """What the masks gain, against replayed inputs and against attacks that see them."""
        return Gain(
            self.eps,
            static=Paired.of(self.static, self.static_baseline),
            adaptive=Paired.of(self.hardened.robust, self.baseline.robust),
        )


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that was found on a batch, or on all.

    Attributes:
        clean: Which clean samples the hardened model gets right.
        clean_baseline: The same for the baseline.
        clean_random: The same for each random mask.
        at: One for each eps.
        unscored: For how many clean samples the scores of model and baseline are no numbers; they are not right.
        tied: For how many clean samples several classes share the largest score of model and baseline.
        labels: Of the samples.
        decided: The classes of model and baseline for the clean samples.
        turned: Samples that were gained and lost at the first eps; None where none are kept.
    """

    clean: Outcomes
    clean_baseline: Outcomes
    clean_random: tuple[Outcomes, ...]
    at: tuple[FoundAtEps, ...]
    unscored: tuple[int, int]
    tied: tuple[int, int]
    labels: NDArray[np.int64]
    decided: tuple[NDArray[np.int64], NDArray[np.int64]]
    turned: Turned | None = None

    def results(self) -> tuple[AtEps, ...]:
        """Return what was found at each eps, counted."""
        return tuple(
            AtEps(
                eps=found.eps,
                static=count(found.static),
                hardened=found.hardened.result(),
                baseline=found.baseline.result(),
                pairs=Paired.of(found.hardened.robust, found.baseline.robust),
                random_masks=tuple(
                    RandomMask(count(clean), count(control))
                    for clean, control in zip(self.clean_random, found.random_masks, strict=True)
                ),
            )
            for found in self.at
        )


def count(outcomes: Outcomes) -> Accuracy:
    """Return how many are right."""
    return Accuracy(int(outcomes.sum()), len(outcomes))
