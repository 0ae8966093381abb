"""A classifier under many masks at one tap: the backbone runs once for a batch, then only the head, once for each mask.

The two parts round as the whole model does, or nearly so: ONNX Runtime fuses nodes across the tap where nothing is in
the way. So the parts are first compared with the whole on some samples, and samples whose two highest scores lie closer
together than such differences can reach are named as close: only the hardened model itself can tell their class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.task import class_scores
from cloakonnx.errors import InferenceError
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.graph.subgraphs.head import mask_input, masked_head
from cloakonnx.runtime.session import Session, Value, to_numpy

_SAFETY = 10.0
"""How much further than on the samples of the comparison scores may differ on others."""

_LEAST = 1e-6
"""Differences of this share of the largest score are always allowed for; float32 rounds by 6e-8."""

_MOST = 0.02
"""Share of the largest score that the parts may differ by; float16 models reach a few thousandths."""


_TOGETHER = 1 << 19
"""Values of the tap, all masks together, that one run of the head takes."""


class Decided(NamedTuple):
    """Classes of a batch under masks.

    Attributes:
        classes: (masks, N) predicted.
        close: (masks, N) where rounding may have decided.
    """

    classes: NDArray[np.int64]
    close: NDArray[np.bool_]


class SplitClassifier:
    """A classifier, cut at a tap.

    Args:
        classifier: The classifier, without a mask at the tap.
        tap: Where the masks go.

    Raises:
        ModelError: input or output is ambiguous.
        TapError: the output does not depend on the tap, or the graph after it reads a tensor of unknown type.
        InferenceError: ONNX Runtime refuses a part.
    """

    def __init__(self, classifier: Classifier, tap: Tap) -> None:
        self._classifier, self._tap = classifier, tap
        model, self._output = classifier.model, classifier.output_name
        self._head = masked_head(model, tap, self._output)
        self._backbone = classifier.activations([tap.name, *self._head.sides])
        self._session = Session(self._head.proto, classifier.provider, folder=model.folder)
        # The overhead of a run outweighs a small head, so many masks go in one. Side inputs hold one batch only.
        self._together = (
            not self._head.sides and self._session.fixed_batch is None and tap.elem_type != onnx.TensorProto.BFLOAT16
        )
        self._slack: float | None = None
        self.classes = 0
        """How many there are; 0 until :meth:`compare` has seen scores."""

    def compare(self, batch: NDArray[np.float32], features: int) -> None:
        """Compare the parts with the whole model on a few samples in pixel space; call it before :meth:`predict`.

        Raises:
            InferenceError: they differ by more than rounding explains.
        """
        scores = self._classifier.scores(batch)
        difference = self._compared(batch, features, scores)
        scale = float(np.abs(scores)[np.isfinite(scores)].max(initial=0))
        if self._together and not difference <= _MOST * scale:
            self._together = False  # a head that does not take any number of samples
            difference = self._compared(batch, features, scores)
        if not difference <= _MOST * scale:
            raise InferenceError(
                f"{self._classifier.name} cut at {self._tap.name!r} gives scores that differ by {difference:.3g} from "
                f"its own (largest: {scale:.3g}): does it draw random numbers? The model can't be run in parts there"
            )
        self._slack = max(_SAFETY * difference, _LEAST * scale)
        self.classes = max(scores.shape[1], 2)

    def predict(self, batch: NDArray[np.float32], masks: Sequence[NDArray[np.float32]]) -> Decided:
        """Return the classes of a batch in pixel space under masks, (F,) weights each; the backbone runs once.

        Raises:
            InferenceError: the output is not one row of scores a sample.
        """
        assert self._slack is not None  # compare() comes first
        scores = self._scores(batch, masks)
        rows = scores.reshape(-1, scores.shape[-1])
        shape = scores.shape[:2]
        close = ~(self._gaps(rows) > self._slack)
        return Decided(self._classifier.task.decide(rows).reshape(shape), close.reshape(shape))

    def _compared(self, batch: NDArray[np.float32], features: int, scores: NDArray[np.float32]) -> float:
        """Return how far scores without a mask are from the whole model's, beside another mask in the same run.

        Twice, because what draws random numbers may begin with the same ones as the whole model. The other mask
        would change the scores of a head that mixes the samples of a run.
        """
        ones, zeros = np.ones(features, np.float32), np.zeros(features, np.float32)
        try:
            first, _, second = self._scores(batch, [ones, zeros, ones])
        except InferenceError:
            if self._together:
                return np.inf
            raise
        return max(_difference(first, scores), _difference(second, scores))

    def _gaps(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N,) how far the highest score is above the next; NaN stays NaN, which is above nothing."""
        if scores.shape[1] == 1:
            return np.asarray(np.abs(scores[:, 0] - np.float32(self._classifier.task.threshold)))
        with np.errstate(invalid="ignore"):
            top = np.partition(scores, -2, axis=1)[:, -2:]
            return np.asarray(top[:, 1] - top[:, 0])

    def _scores(self, batch: NDArray[np.float32], masks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return (masks, N, classes)."""
        parts = []
        for (tap, *sides), real, filled in self._backbone.filled(batch):
            given = dict(zip(self._head.sides, sides, strict=True))
            feed = {name: value for name, value in given.items() if name in self._session.inputs}
            size = max(_TOGETHER // max(_size(tap), 1), 1) if self._together else 1
            found = [
                self._run(tap, feed, masks[start : start + size], filled)[:, :real]
                for start in range(0, len(masks), size)
            ]
            parts.append(np.concatenate(found))
        return np.concatenate(parts, axis=1)

    def _run(
        self, tap: Value, feed: dict[str, Value], masks: Sequence[NDArray[np.float32]], count: int
    ) -> NDArray[np.float32]:
        """Run the head for some masks at once; return (masks, N, classes)."""
        weights = mask_input(self._tap, masks)
        if len(masks) > 1:
            values = to_numpy(tap)
            tap = np.tile(values, (len(masks), *(1 for _ in values.shape[1:])))
            weights = np.repeat(weights, len(values), axis=0)
        (output,) = self._session.run({**feed, self._head.unmasked: tap, self._head.mask: weights})
        scores = class_scores(np.atleast_1d(to_numpy(output)), len(masks) * count, self._output)
        return scores.reshape(len(masks), count, -1)


def _size(value: Value) -> int:
    return math.prod(value.shape if isinstance(value, np.ndarray) else value.shape())


def _difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference of finite scores; infinity where others are finite."""
    finite = np.isfinite(wanted)
    if found.shape != wanted.shape or (finite != np.isfinite(found)).any():
        return np.inf
    return float(np.abs(found[finite] - wanted[finite]).max(initial=0))
