"""The one pass of a sweep: every mask's clean and static accuracy, the random masks' too, and the samples' digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.split import SplitClassifier
from cloakonnx.data.samples import PairBatch, Pairs, sample_hashes
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

    Raises:
        TapError: the class scores do not depend on the tap.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        classifier: Classifier,
        pairs: Pairs,
        masks: Mapping[Amount, Mask],
        analysis: Analysis,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self._classifier, self._pairs, self._masks = classifier, pairs, masks
        self._seed, self._batch_size = seed, batch_size
        self._known = frozenset(analysis.samples.hashes)
        first = next(iter(masks.values()))
        tap = find_tap(classifier.model, first.tap, axis=first.feature_axis)
        self._distinct: dict[bytes, Mask] = {}
        for mask in masks.values():
            for each in (mask, *self._random(mask)):
                self._distinct.setdefault(each.weights.tobytes(), each)
        pairs.clean.fitted_to(classifier)  # samples that do not fit are an error before any graph is made
        self._curve = Curve(classifier, tap, list(self._distinct.values()), batch_size=batch_size)
        self._digests = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self.count = self._seen = 0
        self._largest = 0.0

    def run(self, on_progress: Callable[[float], None]) -> tuple[Point, ...]:
        """Go over the samples; return the curve.

        Raises:
            DataError: no labels, or labels that are no classes.
            InferenceError: the model can't be run in parts, or fails.
        """
        for batch in labelled(self._pairs, self._batch_size):
            self._curve.add(batch.pairs, batch.y)
            self._note(batch)
            on_progress(self.count)
        found = dict(zip(self._distinct, self._curve.accuracies(), strict=True))

        def of(mask: Mask) -> OfMask:
            return OfMask(*found[mask.weights.tobytes()])

        return tuple(
            Point(amount_text(amount), len(mask.removed), of(mask), tuple(map(of, self._random(mask))))
            for amount, mask in self._masks.items()
        )

    @property
    def asked(self) -> int:
        """How many images the hardened models themselves were asked."""
        return self._curve.asked

    @property
    def largest(self) -> float:
        """Largest |adversarial - clean| in pixel space; a whole level of 1/255 where it is one but for rounding."""
        levels = round(self._largest * 255)
        return levels / 255 if levels and abs(self._largest * 255 - levels) < _LEVEL else self._largest

    def data_record(self) -> DataRecord:
        """Return what the clean samples were."""
        both = self._digests[0].digest() + self._digests[1].digest()
        name = self._pairs.clean.source.name
        return DataRecord(name, self.count, hashlib.sha256(both).hexdigest(), seen=self._seen)

    def twins(self) -> Twins:
        """Return what the adversarial samples were."""
        return Twins(self._pairs.adversarial.source.name, self._digests[2].hexdigest(), self.largest)

    def _note(self, batch: LabelledPairs) -> None:
        pairs = batch.pairs
        parts = pairs.clean.tobytes(), batch.y.tobytes(), pairs.adversarial.tobytes()
        for digest, part in zip(self._digests, parts, strict=True):
            digest.update(part)
        self.count += len(batch.y)
        self._largest = max(self._largest, float(np.abs(pairs.adversarial - pairs.clean).max(initial=0)))
        if self._known:
            self._seen += sum(each in self._known for each in sample_hashes(pairs.clean))

    def _random(self, mask: Mask) -> list[Mask]:
        """Return the masks that remove as many features at random."""
        if not mask.removed:
            return []
        return [each for i in range(CONTROL_MASKS) for each in shuffled([mask], self._seed, i)]


_COMPARED = 16
"""Samples on which the two parts of the model are compared with the whole."""

_KINDS = 2  # clean, static


class Curve:
    """Counts correct samples, mask by mask.

    The counts are those of the hardened models, run one by one: where rounding may decide, the hardened model itself
    is asked.

    Args:
        classifier: The classifier without a mask.
        tap: Where the masks are.
        masks: Of features.
        batch_size: Samples that a hardened model is asked at a time.
    """

    def __init__(
        self,
        classifier: Classifier,
        tap: Tap,
        masks: Sequence[Mask],
        *,
        batch_size: int,
    ) -> None:
        self._classifier, self._split, self._masks = classifier, SplitClassifier(classifier, tap), masks
        self._batch_size = batch_size
        self._correct = np.zeros((len(masks), _KINDS), np.int64)
        self._asked = 0
        self._count = 0
        self._close: list[_Close] = [_Close() for _ in masks]

    @property
    def asked(self) -> int:
        """How many images the hardened models were asked, all masks together."""
        return self._asked

    def add(self, batch: PairBatch, y: NDArray[np.int64]) -> None:
        """Count a batch.

        Raises:
            DataError: a label that is no class of the model.
            InferenceError: the model can't be run in parts, or fails.
        """
        if not self._count:
            self._split.compare(batch.clean[:_COMPARED], len(self._masks[0].weights))
        self._classifier.task.check(y, self._split.classes)
        weights = [mask.weights for mask in self._masks]
        for kind, x in enumerate((batch.clean, batch.adversarial)):
            found = self._split.predict(x, weights)
            self._correct[:, kind] += (self._classifier.task.agrees(found.classes, y) & ~found.close).sum(axis=1)
            for index in np.flatnonzero(found.close.any(axis=1)):
                close = found.close[index]
                self._close[index].add(x[close], y[close], kind)
                self._ask(int(index), least=self._batch_size)
        self._count += len(y)

    def accuracies(self) -> list[tuple[Accuracy, Accuracy]]:
        """Return clean and static accuracy under each mask."""
        for index in range(len(self._masks)):
            self._ask(index, least=1)
        correct = self._correct.tolist()
        return [(Accuracy(clean, self._count), Accuracy(static, self._count)) for clean, static in correct]

    def _ask(self, index: int, *, least: int) -> None:
        """Ask a hardened model where that many samples have gathered."""
        waiting = self._close[index]
        if waiting.count < least:
            return
        classifier = self._classifier.with_masks([self._masks[index]])
        x, y, kinds = np.concatenate(waiting.x), np.concatenate(waiting.y), np.concatenate(waiting.kinds)
        for start in range(0, len(x), self._batch_size):
            part = slice(start, start + self._batch_size)
            right = classifier.right(x[part], y[part])
            self._correct[index] += np.bincount(kinds[part][right], minlength=_KINDS)
        self._asked += len(x)
        self._close[index] = _Close()


class _Close:
    """Samples that only the hardened model can tell."""

    def __init__(self) -> None:
        self.x: list[NDArray[np.float32]] = []
        self.y: list[NDArray[np.int64]] = []
        self.kinds: list[NDArray[np.int64]] = []
        self.count = 0

    def add(self, x: NDArray[np.float32], y: NDArray[np.int64], kind: int) -> None:
        self.x.append(x)
        self.y.append(y)
        self.kinds.append(np.full(len(y), kind))
        self.count += len(y)
