"""The work of an attack on each batch, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.pairs import labels_of
from cloakonnx.attacks.presets import passing
from cloakonnx.attacks.targets import Targets
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import PASSES, Seen
from cloakonnx.classifier.reading import reading
from cloakonnx.data.batch import Batch
from cloakonnx.data.layout import Arrangement
from cloakonnx.data.levels import as_levels
from cloakonnx.data.loaded import check_labelled
from cloakonnx.data.samples import Dataset
from cloakonnx.engine.batches import Tell
from cloakonnx.errors import DataError, OptionError


@dataclass(frozen=True, eq=False)
class AttackedBatch:
    """Result of an attack on a batch.

    Attributes:
        x: Adversarial inputs in the layout of the data: uint8 where all are levels of 1/255, else float32.
        y: (N,) labels, or the model's own predictions.
        target: (N,) classes to reach; None where the attack is untargeted, or the labels are the targets.
        success: (N,) which fool the model (targeted: reach the target).
        unscored: (N,) for which the model gave scores that are NaN before the attack.
        correct: (N,) classified as labelled before (targeted: not as the target).
        decided: (N,) the model's classes before.
        is_predicted: Whether the labels are predictions.
        queries: Forward passes asked for, in samples.
        gradients: Gradients asked for, in samples.
        seen: Ties before the attack, and whether gradients gave a direction.
        converged: Samples that hold and for which more steps change nothing.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    target: NDArray[np.int64] | None
    success: NDArray[np.bool_]
    unscored: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    decided: NDArray[np.int64]
    is_predicted: bool
    queries: int
    gradients: int
    seen: Seen
    converged: int


@dataclass(frozen=True)
class AttackWork:
    """One attack on every batch.

    Attributes:
        classifier: The classifier.
        settings: The attack.
        round_levels: Whether to round to levels of 1/255, inward, before success is judged.
        targets: The classes to reach, of a targeted attack.
        name: The samples' source.
        arrangement: How its samples are laid out for the model.
        stored_shape: Shape of a stored sample.
    """

    classifier: Classifier
    settings: Attack
    round_levels: bool
    targets: Targets
    name: str
    arrangement: Arrangement
    stored_shape: tuple[int, ...]

    @classmethod
    def of(
        cls, classifier: Classifier, dataset: Dataset, settings: Attack, *, round_levels: bool, targets: Targets
    ) -> AttackWork:
        """Return the work on a dataset's samples; raises OptionError for settings that don't fit pixel space."""
        bounds = dataset.preprocessing.bounds
        ball(settings.norm, settings.eps).check(bounds, prod(dataset.stored_shape))
        if round_levels and bounds != (0.0, 1.0):
            raise OptionError(
                "{round_levels} takes levels of 1/255, so pixel space must be [0, 1]: leave out {bounds}",
                parameter=("round_levels", "bounds"),
            )
        return cls(
            classifier, settings, round_levels, targets, dataset.source.name, dataset.arrangement, dataset.stored_shape
        )

    @property
    def result(self) -> type[AttackedBatch]:
        """The type of a batch's result."""
        return AttackedBatch

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        known = self.classifier.probabilities
        return {
            **self.settings.record(),
            "model_sha256": self.classifier.model.sha256,
            "input": self.classifier.input_name,
            "output": self.classifier.output_name,
            "preprocessing": asdict(self.classifier.preprocessing),
            "round": self.round_levels,
            **({"targets": self.targets.record} if self._aims else {}),
            **({} if known is None else {"scores": "probabilities" if known else "logits"}),
            **self.classifier.record,
        }

    @property
    def missing_labels(self) -> str:
        """What is said where the labels are the classes to reach, and there are none."""
        return f"{self.name} has no labels; a targeted attack takes the classes to reach from them"

    @property
    def _aims(self) -> bool:
        """Whether the classes to reach are others than the labels."""
        return self.settings.is_targeted and self.targets.choice != "labels"

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], AttackedBatch]:
        """Return what attacks a batch."""
        classifier = self.classifier.for_worker(worker)
        victim = Victim(classifier, self.arrangement.sample_shape(self.stored_shape))
        return lambda batch, tell: self._attack(victim, batch)

    def _attack(self, victim: Victim, batch: Batch) -> AttackedBatch:
        targeted = self.settings.is_targeted
        if batch.y is None and targeted and not self._aims:
            raise DataError(self.missing_labels)
        x = batch.x
        before = victim.counts.queries, victim.counts.gradients
        predicted, tied = victim.decided(x)
        y = labels_of(batch, predicted, victim.task, name=self.name)
        aim = self.targets.choose(victim, x, y, batch.indices, seed=self.settings.seed) if self._aims else y
        found = self.settings.run(victim, x, aim, samples=batch.indices, in_levels=self.round_levels)
        adversarial, success = found.x, found.success
        stored = self.arrangement.undo(adversarial, self.stored_shape)
        levels = as_levels(stored) if self.classifier.bounds == (0.0, 1.0) else None
        if levels is not None:
            read_back = np.divide(np.rint(adversarial * 255), 255, dtype=np.float32)
            success = victim.confirmed(read_back, success, aim, targeted=targeted)
        return AttackedBatch(
            x=stored if levels is None else levels,
            y=y,
            target=aim if self._aims else None,
            success=success,
            unscored=victim.task.undecided(predicted),
            correct=victim.task.agrees(predicted, aim) ^ targeted,
            decided=predicted,
            is_predicted=batch.y is None,
            queries=victim.counts.queries - before[0],
            gradients=victim.counts.gradients - before[1],
            seen=Seen(int(tied.sum()), *victim.directions.taken(len(x))),
            converged=int((found.converged & ~success).sum()),
        )


def checked_works(
    classifier: Classifier, dataset: Dataset, attacks: Sequence[Attack], *, round_levels: bool, targets: Targets
) -> tuple[list[AttackWork], tuple[str, ...]]:
    """Return the work of each attack on a dataset's samples, and notes on how the model is run.

    The attacks are targeted all or none. Where the model's gradients are all 0, straight-through ones are taken.

    Raises:
        DataError, OptionError, ModelError, DifferentiationError: what makes no sense, as :func:`cloakonnx.attack` says.
    """
    sample = dataset.fitted_to(classifier)
    asked = [AttackWork.of(classifier, dataset, each, round_levels=round_levels, targets=targets) for each in attacks]
    if attacks[0].is_targeted and targets.choice == "labels":
        check_labelled(dataset, asked[0].missing_labels)
    classifier, notes = reading(classifier, dataset)
    classifier.prepare(sample)
    dataset.check_classes(classifier.classes)
    targets.check(classifier.classes, dataset.count())
    works = [replace(each, classifier=classifier) for each in asked]
    if any(each.by_gradient and not each.passes_straight for each in attacks) and Victim(classifier).must_pass:
        works = [replace(work, settings=each) for work, each in zip(works, passing(attacks), strict=True)]
        notes += (PASSES,)
    return works, notes
