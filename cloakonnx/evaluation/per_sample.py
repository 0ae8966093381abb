"""What became of each sample of an evaluation, and accuracy by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.samples import Dataset
from cloakonnx.entries import OMITTED, Whole, derived
from cloakonnx.evaluation.consistency import check_length
from cloakonnx.evaluation.outcomes import Found, FoundOfModel
from cloakonnx.evaluation.results import AtEps
from cloakonnx.statistics import Accuracy

WRONG, ROBUST = "wrong", "robust"
"""Outcomes besides the names of the stages that a sample can fall to."""


@dataclass(frozen=True)
class ClassAccuracy:
    """The samples of one class.

    Attributes:
        label: The class.
        name: Its name; left out where it has none.
        clean: Clean accuracy of the model.
        robust: Robust accuracy of the model at each eps.
    """

    label: Whole
    name: Annotated[str | None, OMITTED]
    clean: Accuracy
    robust: tuple[Accuracy, ...]


@dataclass(frozen=True)
class PerSample:
    """What became of each sample, in the order of the data.

    Attributes:
        labels: Label of each sample.
        predicted: Predicted class of each clean sample.
        outcomes: For each eps, of each sample: ``wrong`` where the clean sample is misclassified, ``robust``, or the
            stage of the worst case that it fell to first (``pgd``, ``replayed inputs``, ...).
        names: Names of the samples' files; left out where one file has them all.
        classes: Names of the classes; left out where labels are numbers.
    """

    labels: tuple[Whole, ...]
    predicted: tuple[Whole, ...]
    outcomes: tuple[tuple[str, ...], ...]
    names: Annotated[tuple[str, ...], OMITTED] = ()
    classes: Annotated[tuple[str, ...], OMITTED] = ()

    @property
    @derived("per_class")
    def per_class(self) -> tuple[ClassAccuracy, ...]:
        """Accuracy of the samples of each class."""
        labels = np.array(self.labels)
        at = [np.array(each) for each in self.outcomes]
        found = []
        for label in np.unique(labels):
            of_class = labels == label
            count = int(of_class.sum())
            right = count if not at else int((at[0][of_class] != WRONG).sum())
            robust = tuple(Accuracy(int((each[of_class] == ROBUST).sum()), count) for each in at)
            name = self.classes[label] if label < len(self.classes) else None
            found.append(ClassAccuracy(int(label), name, Accuracy(right, count), robust))
        return tuple(found)

    @classmethod
    def of(cls, found: Found, dataset: Dataset) -> PerSample:
        """Return what became of the model's samples.

        Args:
            found: Everything that was found.
            dataset: The samples, for the names of files and classes.
        """
        labels, predicted = (tuple(map(int, each)) for each in (found.labels, found.decided[0]))
        outcomes = tuple(tuple(outcomes_of(found.clean, each.hardened)) for each in found.at)
        names = dataset.names(np.arange(len(labels)))
        return cls(labels, predicted, outcomes, tuple(names or ()), dataset.class_names or ())

    def check(self, results: Sequence[AtEps], clean: Accuracy, *, where: str) -> None:
        """Check the outcomes against each other and against the counts; raises ValueError."""
        for key in ("labels", "predicted", *(("names",) if self.names else ())):
            check_length(getattr(self, key), clean.count, f"{where}.{key}")
        check_length(self.outcomes, len(results), f"{where}.outcomes")
        for i, (outcomes, at) in enumerate(zip(self.outcomes, results, strict=True)):
            here = f"{where}.outcomes[{i}]"
            check_length(outcomes, clean.count, here)
            known = {WRONG, ROBUST, *(stage.name for stage in at.hardened.stages)}
            unknown = next((each for each in outcomes if each not in known), None)
            if unknown is not None:
                raise ValueError(f"{here} has {unknown[:40]!r}, which is no stage")
            for outcome, count in (
                (WRONG, clean.count - clean.correct),
                (ROBUST, at.hardened.robust.correct),
            ):
                if outcomes.count(outcome) != count:
                    raise ValueError(f"{here} has {outcomes.count(outcome)} samples {outcome}, the counts say {count}")


def outcomes_of(clean: NDArray[np.bool_], found: FoundOfModel) -> list[str]:
    """Return what became of each sample of a model at one eps; see :class:`PerSample`."""
    names = np.array([*(stage.name for stage in found.stages), ROBUST])  # -1, the last, is what stands
    return list(map(str, np.where(clean, names[found.by], WRONG)))
