"""Adaptive accuracy under several masks from one attack session: the mask is an input of the backward graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.samples import FittedPairs
from cloakonnx.engine.batches import Engine, Tell, map_batches
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.shards.part import end_of_part, own_batches
from cloakonnx.engine.trees import joined
from cloakonnx.evaluation.compared import Conditions, model_digests
from cloakonnx.evaluation.comparison import Comparison
from cloakonnx.evaluation.controls import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.estimate import MOST_TRIED, WORTH_IT, Estimate
from cloakonnx.evaluation.outcomes import Found
from cloakonnx.evaluation.results import AtEps
from cloakonnx.evaluation.sweeps._amounts import labelled
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.statistics import Paired


class MaskedBatch(NamedTuple):
    """A batch under one of the masks.

    Attributes:
        mask: Index of the mask.
        samples: The samples.
    """

    mask: int
    samples: LabelledBatch

    @property
    def size(self) -> int:
        """How many samples there are."""
        return self.samples.size

    @property
    def indices(self) -> NDArray[np.int64]:
        """(B,) indices of the samples in the whole data."""
        return self.samples.indices

    def digest(self) -> str:
        """Return the sha256 of samples and labels, in hex digits."""
        return self.samples.digest()


@dataclass(frozen=True)
class MaskedWork:
    """A model with each of some masks under attack, beside itself without one.

    Attributes:
        classifier: The classifier with a mask of 1 at the tap, so that all masks share its sessions.
        masks: Of features, all at one tap.
        conditions: The attacks.
    """

    classifier: Classifier
    masks: tuple[Mask, ...]
    conditions: Conditions

    @classmethod
    def of(cls, classifier: Classifier, masks: Sequence[Mask], conditions: Conditions) -> MaskedWork:
        """Return the work on a classifier without a mask."""
        none = Mask(masks[0].tap, np.ones_like(masks[0].weights), masks[0].feature_axis)
        return cls(classifier.with_masks([none]), tuple(masks), conditions)

    @property
    def result(self) -> type[Found]:
        """The type of a batch's result."""
        return Found

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        control = self.comparisons()[0].control_settings()
        return {
            "model": model_digests(self.classifier.model),
            "masks": [[mask.tap, mask.feature_axis, mask.removed] for mask in self.masks],
            **self.conditions.record(self.classifier, control, CONTROL_MASKS),
        }

    def start(self, worker: int = 0) -> Callable[[MaskedBatch, Tell], Found]:
        """Return what evaluates a batch under its mask; all masks share the sessions."""
        comparisons = self.comparisons(worker)

        def on(batch: MaskedBatch, tell: Tell) -> Found:
            self.classifier.task.check(batch.samples.y, self.classifier.classes)
            return comparisons[batch.mask].on(batch.samples, tell)

        return on

    def comparisons(self, worker: int = 0) -> list[Comparison]:
        """Return the comparison for each mask, in the sessions of a worker."""
        bare = self.classifier.for_worker(worker)
        victim = Victim(bare, self.conditions.sample)
        seed = self.conditions.seed
        return [
            self.conditions.comparison(
                victim.of(bare.with_masks([mask])),
                victim.of(bare),
                [victim.of(bare.with_masks(shuffled([mask], seed, i))) for i in range(CONTROL_MASKS)],
            )
            for mask in self.masks
        ]


class AttackedMasks:
    """Attacks all samples with every mask.

    Args:
        work: The model, its masks and the attacks.
        pairs: Clean and adversarial samples.
        engine: Where batches are handled.
        batch_size: Samples at a time.

    Raises:
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """

    def __init__(self, work: MaskedWork, pairs: FittedPairs, engine: Engine, *, batch_size: int) -> None:
        self._work, self._pairs, self._engine, self._batch_size = work, pairs, engine, batch_size
        self._first = work.comparisons()[0]
        self.control: Mapping[str, Any] = self._first.control_settings()
        """Settings of the control attack, except what depends on eps."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Which attacks are not made, in words."""
        return self._first.notes()

    def folder(self, output: Path) -> Folder:
        """Return where finished batches lie until the output is written."""
        return Folder(output, {**self._work.record, "batch_size": self._batch_size}, run="a sweep")

    @property
    def plan(self) -> Sequence[Attack]:
        """The attacks at the first radius."""
        return self._work.conditions.plans[0]

    @property
    def classes(self) -> int:
        """Of the model."""
        return self._work.classifier.classes

    def estimate(self, *, always: bool = False) -> Estimate:
        """Measure how long the attacks take, for all masks.

        Args:
            always: Whether the short attack is made for a run of seconds as well.
        """
        dataset = self._pairs.clean
        costs = self._first.costs(dataset.sample_shape, batch_size=self._batch_size)
        most = Estimate(
            costs.most(),
            dataset.count(),
            len(self._work.conditions.plans),
            CONTROL_MASKS,
            batch_size=self._batch_size,
            workers=self._engine.workers,
            rounds=len(self._work.masks),
        )
        if not always and most.seconds is not None and most.seconds < WORTH_IT:
            return most
        first = next(labelled(self._pairs, MOST_TRIED)).clean
        return replace(most, tried=costs.tried(first))

    def run(
        self,
        folder: Folder | None,
        *,
        resume: bool,
        on_estimate: Callable[[Estimate], None] | None,
        on_progress: Callable[[float], None],
    ) -> list[tuple[Paired, tuple[AtEps, ...]]]:
        """Attack all samples with every mask; return for each what became of the clean samples, and under attack.

        Args:
            folder: Where to keep finished batches, or None.
            resume: Whether to go on with those that are there.
            on_estimate: Called before the attacks with what they take at most.
            on_progress: Called with the number of samples that are done, all masks together, with fractions in between.

        Raises:
            DataError: a label that is no class of the model, or other samples than those that are resumed.
            OutputError: what is to be resumed was left by other settings.
        """
        parts: list[list[Found]] = [[] for _ in self._work.masks]
        with nullcontext() if folder is None else folder.opened(resume=resume):
            if on_estimate is not None:
                on_estimate(self.estimate())
            with map_batches(
                self._work,
                self._batches(),
                engine=self._engine,
                folder=folder,
                name=self._pairs.clean.source.name,
                on_progress=on_progress,
            ) as handled:
                for batch, found in handled:
                    parts[batch.mask].append(found)
        end_of_part(self._engine)
        together: Sequence[Found] = [joined(each) for each in parts]
        return [(_paired(found), found.results()) for found in together]

    def _batches(self) -> Iterator[MaskedBatch]:
        masks = len(self._work.masks)
        for each in labelled(self._pairs, self._batch_size, wanted=own_batches(self._engine, each=masks)):
            for mask in range(masks):
                yield MaskedBatch(mask, each.clean)


def _paired(found: Found) -> Paired:
    assert found.pairs is not None  # the baseline is the model without a mask
    return found.pairs
