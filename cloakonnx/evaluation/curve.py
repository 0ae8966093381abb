"""Clean and static accuracy under many masks in one pass: the backbone runs once for each image, the head per mask.

DeepCloak's own script runs the whole network twice for each of its 31 masks (Gao et al., arXiv 1702.06763).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import PairBatch
from cloakonnx.errors import DataError
from cloakonnx.evaluation.accuracies import Accuracy
from cloakonnx.graph import Mask
from cloakonnx.runtime import Classifier, SplitClassifier

_COMPARED = 16
"""Samples on which the two parts of the model are compared with the whole."""

_KINDS = 2  # clean, static


class Curve:
    """Counts correct samples, mask by mask.

    The counts are those of the hardened models, run one by one: where rounding may decide, the hardened model itself
    is asked.

    Args:
        split: The model, cut at the tap.
        masks: Of features, all at that tap.
        whole: The model without a mask.
        harden: Makes the classifier with a mask.
        batch_size: Samples that a hardened model is asked at a time.
    """

    def __init__(
        self,
        split: SplitClassifier,
        masks: Sequence[Mask],
        *,
        whole: Callable[[], Classifier],
        harden: Callable[[Mask], Classifier],
        batch_size: int,
    ) -> None:
        self._split, self._masks, self._whole, self._harden = split, masks, whole, harden
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
            self._split.compare(self._whole(), batch.clean[:_COMPARED], len(self._masks[0].weights))
        wrong = y[(y < 0) | (y >= self._split.classes)]
        if len(wrong):
            raise DataError(f"label {int(wrong[0])} does not fit the model, which has {self._split.classes} classes")
        weights = [mask.weights for mask in self._masks]
        for kind, x in enumerate((batch.clean, batch.adversarial)):
            found = self._split.predict(x, weights)
            self._correct[:, kind] += ((found.classes == y) & ~found.close).sum(axis=1)
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
        classifier = self._harden(self._masks[index])
        x, y, kinds = np.concatenate(waiting.x), np.concatenate(waiting.y), np.concatenate(waiting.kinds)
        for start in range(0, len(x), self._batch_size):
            part = slice(start, start + self._batch_size)
            right = classifier.predict(x[part]) == y[part]
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
