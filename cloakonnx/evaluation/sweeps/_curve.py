"""The one pass of a sweep: every mask's clean and static accuracy, the random masks' too, and the samples' digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.split import SplitClassifier
from cloakonnx.data.samples import FittedPairs, sample_hashes
from cloakonnx.engine.batches import Engine, Tell, map_batches
from cloakonnx.engine.shards.part import own_batches
from cloakonnx.evaluation.controls import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.results import DataRecord
from cloakonnx.evaluation.sweeps._amounts import LabelledPairs, amount_text, labelled
from cloakonnx.evaluation.sweeps.record import OfMask, Point, Twins
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import Tap, find_tap
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.topk import Amount
from cloakonnx.statistics import Accuracy

_LEVEL = 1e-3
"""How close to a whole level of 1/255 a largest difference must be to be taken for it."""


class Pass:
    """Runs the backbone once over each image.

    Args:
        classifier: The classifier without a mask.
        pairs: Clean and adversarial samples.
        masks: The mask of each amount, all at one tap.
        analysis: What they come from, to tell how many of the samples it has seen.
        seed: Random seed.
        batch_size: Samples at a time.
        engine: Where batches are handled.
        finds_eps: Whether :attr:`largest` is needed; a shard then reads the batches of others as well.

    Raises:
        DataError: samples that do not fit the model.
    """

    def __init__(
        self,
        classifier: Classifier,
        pairs: FittedPairs,
        masks: Mapping[Amount, Mask],
        analysis: Analysis,
        *,
        seed: int,
        batch_size: int,
        engine: Engine,
        finds_eps: bool,
    ) -> None:
        self._classifier, self._pairs, self._masks, self._engine = classifier, pairs, masks, engine
        self._seed, self._batch_size = seed, batch_size
        self._own = None if finds_eps else own_batches(engine)
        self._known = frozenset(analysis.samples.hashes)
        first = next(iter(masks.values()))
        self._tap = find_tap(classifier.model, first.tap, axis=first.feature_axis)
        self._distinct: dict[bytes, Mask] = {}
        for mask in masks.values():
            for each in (mask, *self._random(mask)):
                self._distinct.setdefault(each.weights.tobytes(), each)
        pairs.clean.fitted_to(classifier)  # samples that do not fit are an error before any graph is made
        self._digests = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self.count = self._seen = 0
        self._largest = 0.0
        self.asked = 0
        """How many images the hardened models themselves were asked."""

    def run(self, on_progress: Callable[[float], None]) -> tuple[Point, ...]:
        """Go over the samples; return the curve.

        Raises:
            DataError: no labels, or labels that are no classes.
            TapError: the class scores do not depend on the tap.
            InferenceError: the model can't be run in parts, or fails.
        """
        correct = np.zeros((len(self._distinct), _KINDS), np.int64)
        with map_batches(
            self.work(),
            self._noted(),
            engine=self._engine,
            on_progress=on_progress,
        ) as handled:
            for _, found in handled:
                correct += found.correct
                self.asked += found.asked
        counted = {
            key: OfMask(Accuracy(clean, self.count), Accuracy(static, self.count))
            for key, (clean, static) in zip(self._distinct, correct.tolist(), strict=True)
        }

        def of(mask: Mask) -> OfMask:
            return counted[mask.weights.tobytes()]

        return tuple(
            Point(
                remove=amount_text(amount),
                removed=len(mask.removed),
                clean=of(mask).clean,
                static=of(mask).static,
                random_masks=tuple(map(of, self._random(mask))),
            )
            for amount, mask in self._masks.items()
        )

    def work(self) -> CurveWork:
        """Return what is done with each batch; raises DataError where there are no labels."""
        probe = next(labelled(self._pairs, COMPARED)).clean.x
        return CurveWork(self._classifier, self._tap, tuple(self._distinct.values()), probe)

    @property
    def largest(self) -> float:
        """Largest |adversarial - clean| in pixel space; a whole level of 1/255 where it is one except for rounding."""
        return rounded(self._largest)

    def data_record(self) -> DataRecord:
        """Return what the clean samples were."""
        both = self._digests[0].digest() + self._digests[1].digest()
        name = self._pairs.clean.source.name
        return DataRecord(name, self.count, hashlib.sha256(both).hexdigest(), seen=self._seen)

    def twins(self) -> Twins:
        """Return what the adversarial samples were."""
        return Twins(self._pairs.adversarial.source.name, self._digests[2].hexdigest(), self.largest)

    def _noted(self) -> Iterator[LabelledPairs]:
        """Yield the samples, and note what they are; a shard that does not have all notes nothing."""
        for batch in labelled(self._pairs, self._batch_size, wanted=self._own):
            if self._own is None:
                self._note(batch)
            yield batch

    def _note(self, batch: LabelledPairs) -> None:
        clean = batch.clean
        parts = clean.x.tobytes(), clean.y.tobytes(), batch.adversarial.tobytes()
        for digest, part in zip(self._digests, parts, strict=True):
            digest.update(part)
        self.count += batch.size
        self._largest = max(self._largest, float(np.abs(batch.adversarial - clean.x).max(initial=0)))
        if self._known:
            self._seen += sum(each in self._known for each in sample_hashes(clean.x))

    def _random(self, mask: Mask) -> list[Mask]:
        """Return the masks that remove as many features at random."""
        if not mask.removed:
            return []
        return [each for i in range(CONTROL_MASKS) for each in shuffled([mask], self._seed, i)]


def rounded(largest: float) -> float:
    """Return a difference in pixel space; a whole level of 1/255 where it is one except for rounding."""
    levels = round(largest * 255)
    return levels / 255 if levels and abs(largest * 255 - levels) < _LEVEL else largest


COMPARED = 16
"""Samples on which the two parts of the model are compared with the whole."""

_KINDS = 2  # clean, static


@dataclass(frozen=True, eq=False)
class CurveBatch:
    """Correct samples of a batch.

    Attributes:
        correct: (masks, 2) int64: how many clean and adversarial samples are right under each mask.
        asked: How many images the hardened models were asked.
    """

    correct: NDArray[np.int64]
    asked: int


@dataclass(frozen=True, eq=False)
class CurveWork:
    """Counts the correct samples of a batch, mask by mask.

    The counts are those of the hardened models, run one by one: where rounding may decide, the hardened model itself
    is asked.

    Attributes:
        classifier: The classifier without a mask.
        tap: Where the masks are.
        masks: Of features.
        probe: (N, ...) the first samples, on which the two parts of the model are compared with the whole.
    """

    classifier: Classifier
    tap: Tap
    masks: tuple[Mask, ...]
    probe: NDArray[np.float32]

    @property
    def result(self) -> type[CurveBatch]:
        """The type of a batch's result."""
        return CurveBatch

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        return {
            "model": self.classifier.model.sha256,
            "masks": [[mask.tap, mask.feature_axis, mask.removed] for mask in self.masks],
            **self.classifier.record,
        }

    def start(self, worker: int = 0) -> Callable[[LabelledPairs, Tell], CurveBatch]:
        """Return what counts in a batch.

        Raises:
            TapError: the class scores do not depend on the tap.
            InferenceError: ONNX Runtime refuses a part, or the model can't be run in parts.
        """
        classifier = self.classifier.for_worker(worker)
        split = SplitClassifier(classifier, self.tap)
        split.compare(self.probe, len(self.masks[0].weights))
        return lambda batch, tell: self._counted(classifier, split, batch)

    def _counted(self, classifier: Classifier, split: SplitClassifier, batch: LabelledPairs) -> CurveBatch:
        y, images = batch.clean.y, (batch.clean.x, batch.adversarial)
        classifier.task.check(y, split.classes)
        found = [split.predict(x, [mask.weights for mask in self.masks]) for x in images]
        surely = [(classifier.task.agrees(each.classes, y) & ~each.close).sum(axis=1) for each in found]
        correct = np.stack(surely, axis=1)
        asked = 0
        for index, mask in enumerate(self.masks):
            close = [each.close[index] for each in found]
            count = int(sum(each.sum() for each in close))
            if not count:
                continue
            asked += count
            right = classifier.with_masks([mask]).right(
                np.concatenate([x[which] for x, which in zip(images, close, strict=True)]),
                np.concatenate([y[which] for which in close]),
            )
            kinds = np.repeat(np.arange(_KINDS), [int(which.sum()) for which in close])
            correct[index] += np.bincount(kinds[right], minlength=_KINDS)
        return CurveBatch(correct, asked)
