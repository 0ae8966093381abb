"""From a model and pairs to an analysis: two passes of the backbone a batch, sums per feature, a score each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.head import MarginGradient
from cloakonnx.data.samples import Dataset, PairBatch, sample_hashes
from cloakonnx.errors import DataError
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.graph.masks.taps import Tap, find_tap
from cloakonnx.runtime.session import Chunk
from cloakonnx.scoring.analysis import Analysis, SampleSet, TapScores
from cloakonnx.scoring.criteria import Criterion, criterion
from cloakonnx.scoring.sums import AttributionReducer, ClassReducer, Reducer, Sums

DEFAULT_BATCH_SIZE = 64


class PairSource(Protocol):
    """Clean samples with their adversarial twins: read from two sources, or attacked on the fly."""

    @property
    def clean(self) -> Dataset:
        """The clean samples."""

    @property
    def adversarial_name(self) -> str | None:
        """Name of the source of the twins, None where they are made on the fly."""

    @property
    def attack(self) -> Mapping[str, Any] | None:
        """Settings of the attack that makes them, None where they were given."""

    def batches(self, size: int) -> Iterator[PairBatch]:
        """Yield matching batches."""


@dataclass
class _Tally:
    """What is kept of the samples gone through."""

    hashes: list[str] = field(default_factory=list)
    largest: float = 0.0
    samples: int = 0

    def add(self, batch: PairBatch) -> None:
        """Count a batch."""
        self.hashes += sample_hashes(batch.clean)
        self.largest = max(self.largest, float(np.abs(batch.adversarial - batch.clean).max()))
        self.samples += len(batch.clean)


class _Reduction:
    """The sums that a criterion asks for, from a batch of activations."""

    def __init__(self, classifier: Classifier, tap: Tap, wanted: Criterion) -> None:
        provider = classifier.provider
        self._moments = Reducer(tap, provider, full=wanted.clean)
        self._classes = ClassReducer(tap, provider) if wanted.classes else None
        self._gradient: MarginGradient | None = None
        if wanted.attributed is not None:
            linear = wanted.name if wanted.linear else None
            self._gradient = MarginGradient(classifier, tap, linear=linear)
            kind = self._gradient.elem_type
            self._attribution = AttributionReducer(tap, provider, wanted.attributed, gradient_type=kind)

    @property
    def sides(self) -> tuple[str, ...]:
        """Tensors that are needed beside the tap."""
        return () if self._gradient is None else self._gradient.sides

    def __call__(self, clean: Chunk, adversarial: Chunk, y: NDArray[np.int64], *, start: int) -> Sums:
        """Return the sums of one chunk; y may be empty where no labels are needed."""
        tap, moved = clean.values[0], adversarial.values[0]
        moments = self._moments(tap, moved, start=start)
        classes = attribution = None
        if self._classes is not None:
            classes = self._classes(tap, y, count=moments.count // len(y))
        if self._gradient is not None:
            gradient = self._gradient(adversarial.values, y)
            attribution = self._attribution(tap, moved, gradient, start=start)
        return Sums(moments, classes, attribution)


def analyze(
    classifier: Classifier,
    pairs: PairSource,
    *,
    tap: str | None = None,
    feature_axis: int | None = None,
    criterion_name: str = "deepcloak",
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> Analysis:
    """Score the features of a tap by how far they move between clean inputs and their adversarial twins.

    Args:
        classifier: The classifier.
        pairs: Clean and adversarial samples, fitted to it.
        tap: The tensor; None for the default one.
        feature_axis: Overrules its feature axis.
        criterion_name: One of :data:`CRITERIA`.
        batch_size: Samples at a time; memory grows with it, and not with their number.
        on_progress: Called with the number of samples after every batch.

    Raises:
        TapError, ModelError: the tap can't be scored or later masked, or has no linear head although the criterion
            needs one.
        DataError: the pairs do not fit one another or the model, or have no labels although the criterion needs them.
        DifferentiationError: the graph after the tap has no gradient although the criterion needs one.
        InferenceError: ONNX Runtime fails, or an activation is not finite.
    """
    wanted = criterion(criterion_name)
    classifier.check_unmasked("scoring")
    model = classifier.model
    check_opset(model)
    chosen = find_tap(model, tap, axis=feature_axis)
    pairs.clean.fitted_to(classifier)  # samples that do not fit are an error before any graph is made
    reduction = _Reduction(classifier, chosen, wanted)
    activations = classifier.activations([chosen.name, *reduction.sides])
    sums: Sums | None = None
    tally = _Tally()
    for batch in pairs.batches(batch_size):
        y = _labels(batch, pairs, criterion_name) if wanted.labels else np.zeros(0, np.int64)
        both = zip(activations.chunks(batch.clean), activations.chunks(batch.adversarial), strict=True)
        for clean, adversarial in both:
            own = y[clean.start : clean.start + _length(clean)]
            found = reduction(clean, adversarial, own, start=batch.start + clean.start)
            sums = found if sums is None else sums.merge(found)
        tally.add(batch)
        on_progress(tally.samples)
    if sums is None:
        raise DataError(f"{pairs.clean.source.name} is empty: it has no samples")
    return Analysis(
        model_name=model.name,
        model_sha256=model.sha256,
        preprocessing=pairs.clean.preprocessing,
        samples=SampleSet(
            clean=pairs.clean.source.name,
            adversarial=pairs.adversarial_name,
            count=tally.samples,
            largest_difference=tally.largest,
            hashes=tuple(tally.hashes),
        ),
        provider=classifier.provider.name,
        attack=pairs.attack,
        scores=TapScores(
            tap=chosen.name,
            feature_axis=chosen.feature_axis,
            dtype=chosen.dtype,
            criterion=criterion_name,
            scores=wanted.scores(sums),
            values_per_feature=sums.moments.count,
        ),
    )


def _labels(batch: PairBatch, pairs: PairSource, name: str) -> NDArray[np.int64]:
    if batch.y is None:
        raise DataError(
            f"{pairs.clean.source.name} has no labels; --criterion {name} needs the true ones (y in an .npz, --labels "
            "for an .npy)"
        )
    return batch.y


def _length(chunk: Chunk) -> int:
    value = chunk.values[0]
    return int(value.shape[0] if isinstance(value, np.ndarray) else value.shape()[0])
