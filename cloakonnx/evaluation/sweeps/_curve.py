"""The one pass of a sweep: every mask's clean and static accuracy, the random masks' too, and the samples' digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from cloakonnx.data import sample_hashes
from cloakonnx.evaluation.curve import Curve
from cloakonnx.evaluation.plan import CONTROL_MASKS, shuffled
from cloakonnx.evaluation.result import DataRecord
from cloakonnx.evaluation.sweep_result import OfMask, Point, Twins
from cloakonnx.evaluation.sweep_setup import Labelled, Setup, amount_text
from cloakonnx.graph import Mask, Model, find_tap, hardened
from cloakonnx.runtime import Classifier, SplitClassifier
from cloakonnx.scoring import Analysis
from cloakonnx.selection import Amount

_LEVEL = 1e-3
"""How close to a whole level of 1/255 a largest difference must be to be taken for it."""


class Pass:
    """Runs the backbone once over each image.

    Args:
        setup: The model and the samples.
        masks: The mask of each amount, all at one tap.
        analysis: What they come from, to tell how many of the samples it has seen.

    Raises:
        TapError: the class scores do not depend on the tap.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(self, setup: Setup, masks: Mapping[Amount, Mask], analysis: Analysis) -> None:
        self._setup, self._masks = setup, masks
        self._known = frozenset(analysis.samples.hashes)
        first = next(iter(masks.values()))
        tap = find_tap(setup.model, first.tap, axis=first.feature_axis)
        self._distinct: dict[bytes, Mask] = {}
        for mask in masks.values():
            for each in (mask, *self._random(mask)):
                self._distinct.setdefault(each.weights.tobytes(), each)
        split = SplitClassifier(
            setup.model,
            tap,
            provider=setup.provider,
            normalisation=setup.pairs.clean.normalisation,
            input_name=setup.input_name,
            output_name=setup.output_name,
        )
        self._curve = Curve(
            split,
            list(self._distinct.values()),
            whole=lambda: self._classifier(setup.model),
            harden=lambda mask: self._classifier(hardened(setup.model, [mask])),
            batch_size=setup.batch_size,
        )
        self._digests = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self.count = self._seen = 0
        self._largest = 0.0

    def run(self, on_progress: Callable[[float], None]) -> tuple[Point, ...]:
        """Go over the samples; return the curve.

        Raises:
            DataError: no labels, or labels that are no classes.
            InferenceError: the model can't be run in parts, or fails.
        """
        for batch in self._setup.batches():
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
        name = self._setup.pairs.clean.source.name
        return DataRecord(name, self.count, hashlib.sha256(both).hexdigest(), seen=self._seen)

    def twins(self) -> Twins:
        """Return what the adversarial samples were."""
        return Twins(self._setup.pairs.adversarial.source.name, self._digests[2].hexdigest(), self.largest)

    def _note(self, batch: Labelled) -> None:
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
        return [each for i in range(CONTROL_MASKS) for each in shuffled([mask], self._setup.seed, i)]

    def _classifier(self, model: Model) -> Classifier:
        return Classifier(
            model,
            provider=self._setup.provider,
            normalisation=self._setup.pairs.clean.normalisation,
            input_name=self._setup.input_name,
            output_name=self._setup.output_name,
        )
