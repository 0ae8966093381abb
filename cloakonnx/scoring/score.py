"""From a model and pairs to an analysis: two passes of the backbone a batch, sums per feature, a score each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cloakonnx.data import Dataset, PairBatch, sample_hashes
from cloakonnx.errors import DataError
from cloakonnx.graph import Model, check_opset, find_tap
from cloakonnx.runtime import Activations, Provider
from cloakonnx.scoring.accumulator import Moments
from cloakonnx.scoring.analysis import Analysis, SampleSet, TapScores
from cloakonnx.scoring.criteria import criterion
from cloakonnx.scoring.reduction import Reducer

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


def analyze(
    model: Model,
    pairs: PairSource,
    *,
    provider: Provider,
    tap: str | None = None,
    feature_axis: int | None = None,
    criterion_name: str = "deepcloak",
    batch_size: int = DEFAULT_BATCH_SIZE,
    input_name: str | None = None,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> Analysis:
    """Score the features of a tap by how far they move between clean inputs and their adversarial twins.

    Args:
        model: The model.
        pairs: Clean and adversarial samples.
        provider: Where it runs.
        tap: The tensor; None for the default one.
        feature_axis: Overrules its feature axis.
        criterion_name: ``deepcloak``, ``relative`` or ``standardised``.
        batch_size: Samples at a time; memory grows with it, and not with their number.
        input_name: The data input, where there are several.
        on_progress: Called with the number of samples after every batch.

    Raises:
        TapError, ModelError: the tap can't be scored or later masked.
        DataError: the pairs do not fit one another or the model.
        InferenceError: ONNX Runtime fails, or an activation is not finite.
    """
    to_scores = criterion(criterion_name)
    check_opset(model)
    chosen = find_tap(model, tap, axis=feature_axis)
    activations = Activations(
        model, [chosen.name], provider=provider, normalisation=pairs.clean.normalisation, input_name=input_name
    )
    reducer = Reducer(chosen, provider, full=criterion_name != "deepcloak")
    moments: Moments | None = None
    tally = _Tally()
    for batch in pairs.batches(batch_size):
        both = zip(activations.chunks(batch.clean), activations.chunks(batch.adversarial), strict=True)
        for clean, adversarial in both:
            found = reducer(clean.values[0], adversarial.values[0], start=batch.start + clean.start)
            moments = found if moments is None else moments.merge(found)
        tally.add(batch)
        on_progress(tally.samples)
    if moments is None:
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
        provider=provider.name,
        attack=pairs.attack,
        scores=TapScores(
            tap=chosen.name,
            feature_axis=chosen.feature_axis,
            dtype=chosen.dtype,
            criterion=criterion_name,
            scores=to_scores(moments),
            values_per_feature=moments.count,
        ),
    )
