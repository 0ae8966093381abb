"""What was found on a batch, and the same joined over all batches: outcomes sample by sample, work added up."""

from __future__ import annotations

from collections.abc import Sequence
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

    @classmethod
    def joined(cls, parts: Sequence[FoundOfModel]) -> FoundOfModel:
        """Join batches."""
        return cls(
            np.concatenate([part.robust for part in parts]),
            np.concatenate([part.noise for part in parts]),
            np.concatenate([part.control for part in parts]),
            tuple(map(_sum, zip(*(part.stages for part in parts), strict=True))),
        )

    def result(self) -> Robustness:
        """Count."""
        return Robustness(count(self.robust), count(self.noise), count(self.control), self.stages)


@dataclass(frozen=True, eq=False)
class FoundAtEps:
    """Both models at one eps; the fields are those of :class:`AtEps`, sample by sample.

    ``static_baseline`` is what the inputs made on the baseline left of the baseline itself.
    """

    static: Outcomes
    static_baseline: Outcomes
    hardened: FoundOfModel
    baseline: FoundOfModel
    random_masks: tuple[Outcomes, ...]

    @classmethod
    def joined(cls, parts: Sequence[FoundAtEps]) -> FoundAtEps:
        """Join batches."""
        return cls(
            np.concatenate([part.static for part in parts]),
            np.concatenate([part.static_baseline for part in parts]),
            FoundOfModel.joined([part.hardened for part in parts]),
            FoundOfModel.joined([part.baseline for part in parts]),
            _each([part.random_masks for part in parts]),
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
        turned: Samples that were gained and lost at the first eps; None where none are kept.
    """

    clean: Outcomes
    clean_baseline: Outcomes
    clean_random: tuple[Outcomes, ...]
    at: tuple[FoundAtEps, ...]
    unscored: tuple[int, int]
    turned: Turned | None = None

    @classmethod
    def joined(cls, parts: Sequence[Found]) -> Found:
        """Join batches, in order."""
        turned = [part.turned for part in parts if part.turned is not None]
        return cls(
            np.concatenate([part.clean for part in parts]),
            np.concatenate([part.clean_baseline for part in parts]),
            _each([part.clean_random for part in parts]),
            tuple(map(FoundAtEps.joined, zip(*(part.at for part in parts), strict=True))),
            (sum(part.unscored[0] for part in parts), sum(part.unscored[1] for part in parts)),
            Turned.joined(turned) if len(turned) == len(parts) else None,
        )

    def results(self, eps: Sequence[float]) -> tuple[AtEps, ...]:
        """Return what was found at each eps, counted."""
        return tuple(
            AtEps(
                eps=each,
                static=count(found.static),
                hardened=found.hardened.result(),
                baseline=found.baseline.result(),
                pairs=Paired.of(found.hardened.robust, found.baseline.robust),
                random_masks=tuple(
                    RandomMask(count(clean), count(control))
                    for clean, control in zip(self.clean_random, found.random_masks, strict=True)
                ),
            )
            for each, found in zip(eps, self.at, strict=True)
        )

    def gains(self, eps: Sequence[float]) -> tuple[Gain, ...]:
        """Return what the masks gain at each eps, against replayed inputs and against attacks that see them."""
        return tuple(
            Gain(
                each,
                static=Paired.of(found.static, found.static_baseline),
                adaptive=Paired.of(found.hardened.robust, found.baseline.robust),
            )
            for each, found in zip(eps, self.at, strict=True)
        )


def count(outcomes: Outcomes) -> Accuracy:
    """Return how many are right."""
    return Accuracy(int(outcomes.sum()), len(outcomes))


def _each(parts: Sequence[tuple[Outcomes, ...]]) -> tuple[Outcomes, ...]:
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def _sum(stages: Sequence[Stage]) -> Stage:
    counts = {key: sum(getattr(s, key) for s in stages) for key in ("attacked", "robust", "queries", "gradients")}
    return Stage(stages[0].name, stages[0].settings, **counts)
