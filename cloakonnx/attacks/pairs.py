"""Clean samples with adversarial versions that are made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.reading import reading
from cloakonnx.classifier.task import SingleLabel
from cloakonnx.data.batch import Batch, PairBatch
from cloakonnx.data.samples import Dataset, Wanted
from cloakonnx.engine.batches import Tell
from cloakonnx.errors import DataError


@dataclass(frozen=True)
class MakePairs:
    """Attacks every batch; every sample takes all steps, fooled or not, so that all are moved.

    Attributes:
        classifier: The classifier.
        settings: The attack.
        sample: Shape of a sample in the model's layout.
        name: The samples' source.
    """

    classifier: Classifier
    settings: Attack
    sample: tuple[int, ...]
    name: str

    @property
    def result(self) -> type[PairBatch]:
        """The type of a batch's result."""
        return PairBatch

    @property
    def record(self) -> dict[str, Any]:
        """The attack's settings."""
        return self.settings.record()

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], PairBatch]:
        """Return what gives a batch its adversarial version; without labels the model's own predictions stand in."""
        victim = Victim(self.classifier.for_worker(worker), self.sample)

        def pairs(batch: Batch, tell: Tell) -> PairBatch:
            predicted, tied = victim.decided(batch.x)
            y = labels_of(batch, predicted, victim.task, name=self.name)
            found = self.settings.run(victim, batch.x, y, samples=batch.indices)
            climbed, still = victim.directions.taken(len(y))
            return PairBatch(batch.x, found.x, batch.y, batch.start, int(tied.sum()), climbed, still)

        return pairs


@dataclass(frozen=True)
class AttackedPairs:
    """Clean samples and their adversarial versions, made on the fly.

    Attributes:
        clean: The samples; without labels the model's own predictions stand in.
        classifier: The classifier.
        settings: The attack.

    Raises:
        OptionError: its eps is wider than pixel space.
    """

    clean: Dataset
    classifier: Classifier
    settings: Attack

    def __post_init__(self) -> None:
        """Check the radius before any work is done."""
        norm, eps = self.settings.norm, self.settings.eps
        ball(norm, eps).check(self.clean.preprocessing.bounds, prod(self.clean.sample_shape))

    @property
    def adversarial_name(self) -> None:
        """There is no file of adversarial versions."""

    @property
    def attack(self) -> dict[str, Any]:
        """The settings, for records."""
        return self.settings.record()

    def making(self, threads: int | None) -> MakePairs:
        """Return the work that pairs :meth:`batches`, in sessions of that many intra-op threads."""
        classifier, _ = reading(self.classifier.with_threads(threads), self.clean)
        return MakePairs(classifier, self.settings, self.clean.fitted_to(classifier), self.clean.source.name)

    def batches(self, size: int, *, wanted: Wanted | None = None) -> Iterator[Batch]:
        """Yield the clean samples; of those that are not ``wanted`` as :meth:`Dataset.batches` does."""
        return self.clean.batches(size, wanted=wanted)


def labels_of(batch: Batch, predicted: NDArray[np.int64], task: SingleLabel, *, name: str) -> NDArray[np.int64]:
    """Return a batch's labels, or the model's predictions where it has none.

    Raises:
        DataError: no labels, and a sample for which the model predicts none either.
    """
    if batch.y is not None:
        return batch.y
    missing = np.flatnonzero(task.undecided(predicted))
    if len(missing):
        raise DataError(
            f"{name} has no labels, and the model's prediction can't stand in for that of sample "
            f"{batch.start + int(missing[0])}: its scores are no numbers (NaN); leave such samples out, or give labels"
        )
    return predicted
