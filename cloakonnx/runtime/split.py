"""A classifier under many masks at one tap: the backbone runs once for a batch, then only the head, once for each mask.

The two parts round as the whole model does, or nearly so: ONNX Runtime fuses nodes across the tap where nothing is in
the way. So the parts are first compared with the whole on some samples, and samples whose two highest scores lie closer
together than such differences can reach are named as close: only the hardened model itself can tell their class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import InferenceError
from cloakonnx.graph import Model, Normalisation, Tap, masked_head
from cloakonnx.runtime.classifier import Activations, Classifier, class_scores, predicted, single_score_threshold
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session, Value, to_numpy

_SAFETY = 10.0
"""How much further than on the samples of the comparison scores may differ on others."""

_LEAST = 1e-6
"""Differences of this share of the largest score are always reckoned with; float32 rounds by 6e-8."""

_MOST = 0.02
"""Share of the largest score that the parts may differ by; float16 models reach a few thousandths."""


class Decided(NamedTuple):
    """What a mask makes of a batch.

    Attributes:
        classes: (N,) predicted.
        close: (N,) where rounding may have decided.
    """

    classes: NDArray[np.int64]
    close: NDArray[np.bool_]


class SplitClassifier:
    """A classifier, cut at a tap.

    Args:
        model: The model, without a mask at the tap.
        tap: Where the masks go.
        provider: Where it runs.
        normalisation: From pixel space to the model's input.
        input_name: The data input; needed where there are several.
        output_name: The class scores; needed where there are several outputs.

    Raises:
        ModelError: input or output can't be told.
        TapError: the output does not depend on the tap, or the graph after it reads a tensor of unknown type.
        InferenceError: ONNX Runtime refuses a part.
    """

    def __init__(
        self,
        model: Model,
        tap: Tap,
        *,
        provider: Provider,
        normalisation: Normalisation | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        self._output = model.output(output_name).name
        self._threshold = single_score_threshold(model, self._output)
        self._tap, self._name = tap, model.name
        self._head = masked_head(model, tap, self._output)
        self._backbone = Activations(
            model,
            [tap.name, *self._head.sides],
            provider=provider,
            normalisation=normalisation,
            input_name=input_name,
        )
        self._session = Session(self._head.proto, provider, folder=model.folder)
        self._slack: float | None = None
        self.classes = 0
        """How many there are; 0 until :meth:`compare` has seen scores."""

    def compare(self, whole: Classifier, batch: NDArray[np.float32], features: int) -> None:
        """Compare the parts with the whole model on a few samples in pixel space; call it before :meth:`predict`.

        Raises:
            InferenceError: they differ by more than rounding explains.
        """
        scores, ones = whole.logits(batch), np.ones(features, np.float32)
        # Twice, because what draws random numbers may well begin with the same ones as the whole model.
        difference = max(_difference(found, scores) for _ in range(2) for found in self._scores(batch, [ones]))
        scale = float(np.abs(scores)[np.isfinite(scores)].max(initial=0))
        if not difference <= _MOST * scale:
            raise InferenceError(
                f"{self._name} cut at {self._tap.name!r} gives scores that differ by {difference:.3g} from its own "
                f"(largest: {scale:.3g}): does it draw random numbers? The model can't be run in parts there"
            )
        self._slack = max(_SAFETY * difference, _LEAST * scale)
        self.classes = max(scores.shape[1], 2)

    def predict(self, batch: NDArray[np.float32], masks: Sequence[NDArray[np.float32]]) -> Iterator[Decided]:
        """Yield what each mask, (F,) weights, makes of a batch in pixel space; the backbone runs once.

        Raises:
            InferenceError: the output is not one row of scores a sample.
        """
        assert self._slack is not None  # compare() comes first
        for scores in self._scores(batch, masks):
            yield Decided(predicted(scores, self._threshold), ~(self._gaps(scores) > self._slack))

    def _gaps(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N,) how far the highest score is above the next; NaN stays NaN, which is above nothing."""
        if scores.shape[1] == 1:
            return np.asarray(np.abs(scores[:, 0] - np.float32(self._threshold)))
        with np.errstate(invalid="ignore"):
            top = np.partition(scores, -2, axis=1)[:, -2:]
            return np.asarray(top[:, 1] - top[:, 0])

    def _scores(
        self, batch: NDArray[np.float32], masks: Sequence[NDArray[np.float32]]
    ) -> Iterator[NDArray[np.float32]]:
        wide = np.float64 if self._tap.elem_type == onnx.TensorProto.DOUBLE else np.float32
        shaped = [mask.astype(wide).reshape(self._tap.mask_shape) for mask in masks]
        parts: list[list[NDArray[np.float32]]] = [[] for _ in masks]
        for (tap, *sides), real, filled in self._backbone.filled(batch):
            feed: dict[str, Value] = dict(zip(self._head.sides, sides, strict=True))
            feed[self._head.unmasked] = tap
            feed = {name: value for name, value in feed.items() if name in self._session.inputs}
            for mask, found in zip(shaped, parts, strict=True):
                (output,) = self._session.run({**feed, self._head.mask: mask})
                values = np.atleast_1d(to_numpy(output))
                found.append(class_scores(values, filled, self._output)[:real])
        return (np.concatenate(found) for found in parts)


def _difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference of finite scores; infinity where others are finite."""
    finite = np.isfinite(wanted)
    if found.shape != wanted.shape or (finite != np.isfinite(found)).any():
        return np.inf
    return float(np.abs(found[finite] - wanted[finite]).max(initial=0))
