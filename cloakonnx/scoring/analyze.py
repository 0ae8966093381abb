"""From a model and pairs to an analysis: two passes of the backbone a batch, sums per feature, a score each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack, attacks_of
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import Seen, of_gradients, of_randomness, of_ties
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.head import MarginGradient
from cloakonnx.classifier.reading import reading
from cloakonnx.data.batch import Batch, PairBatch
from cloakonnx.data.given import Pairs
from cloakonnx.data.loaded import check_labelled
from cloakonnx.data.samples import Dataset, FittedPairs, SamplesLike, sample_hashes
from cloakonnx.engine.batches import Engine, Tell, Work, map_batches
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.shards.part import end_of_part, engine_or, own_batches
from cloakonnx.errors import DataError, OptionError
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.graph.masks.insert import check_opset
from cloakonnx.graph.masks.taps import Tap, find_tap
from cloakonnx.runtime.session import Chunk
from cloakonnx.scoring.analysis import Analysis, SampleSet, TapScores
from cloakonnx.scoring.criteria import Criterion
from cloakonnx.scoring.criteria import criterion as criterion_of
from cloakonnx.scoring.sums import AttributionReducer, ClassReducer, Reducer, Sums

DEFAULT_BATCH_SIZE = 64


PairSource: TypeAlias = FittedPairs | AttackedPairs
"""Clean samples with their adversarial versions: read from two sources, or attacked on the fly."""


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """What scoring takes from a batch.

    Attributes:
        parts: Sums over as many pairs as the graph takes at a time.
        largest_difference: Largest |adversarial - clean|.
        seen: Ties, and whether gradients gave a direction, where pairs are made.
    """

    parts: tuple[Sums, ...]
    largest_difference: float
    seen: Seen


@dataclass(frozen=True)
class ScoringWork:
    """The sums of every batch.

    Attributes:
        classifier: The classifier.
        tap: The tensor.
        wanted: The criterion.
        making: What makes pairs of clean batches; None where they are given.
        name: The clean samples' source.
    """

    classifier: Classifier
    tap: Tap
    wanted: Criterion
    making: Work[Batch, PairBatch] | None
    name: str

    @property
    def result(self) -> type[ScoredBatch]:
        """The type of a batch's result."""
        return ScoredBatch

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        return {
            "model": self.classifier.model.sha256,
            "tap": [self.tap.name, self.tap.feature_axis],
            "criterion": self.wanted.name,
            "attack": None if self.making is None else self.making.record,
            **self.classifier.record,
        }

    def start(self, worker: int = 0) -> Callable[[Batch | PairBatch, Tell], ScoredBatch]:
        """Return what reduces a batch to sums."""
        classifier = self.classifier.for_worker(worker)
        reduction = _Reduction(classifier, self.tap, self.wanted)
        activations = classifier.activations([self.tap.name, *reduction.sides])
        pair = None if self.making is None else self.making.start(worker)

        def score(batch: Batch | PairBatch, tell: Tell) -> ScoredBatch:
            if isinstance(batch, Batch):
                assert pair is not None  # clean batches come only where pairs are made
                batch = pair(batch, tell)
            y = self._labels(batch) if self.wanted.labels else np.zeros(0, np.int64)
            parts = []
            both = zip(activations.chunks(batch.clean), activations.chunks(batch.adversarial), strict=True)
            for clean, adversarial in both:
                own = y[clean.start : clean.start + _length(clean)]
                parts.append(reduction(clean, adversarial, own, start=batch.start + clean.start))
            seen = Seen(batch.tied, batch.climbed, batch.still)
            return ScoredBatch(tuple(parts), float(np.abs(batch.adversarial - batch.clean).max()), seen)

        return score

    def _labels(self, batch: PairBatch) -> NDArray[np.int64]:
        if batch.y is None:
            raise DataError(_missing_labels(self.name, self.wanted), parameter=("criterion", "labels"))
        return batch.y


def _missing_labels(name: str, wanted: Criterion) -> str:
    return (
        f"{name} has no labels; {{criterion}} {wanted.name} needs the true ones (y in an .npz, {{labels}} for an .npy)"
    )


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
    model: ModelLike,
    samples: SamplesLike | Pairs | PairSource,
    *,
    attack: str | Attack | None = None,
    tap: str | None = None,
    feature_axis: int | None = None,
    criterion: str = "deepcloak",
    batch_size: int = DEFAULT_BATCH_SIZE,
    engine: Engine | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
    on_doubt: Callable[[str], None] = lambda said: None,
    **settings: Any,
) -> Analysis:
    """Score the features of a tap by how far they move between clean inputs and their adversarial versions.

    Args:
        model: The classifier without masks of its own, or a model or path that stands for one.
        samples: Clean samples (:class:`cloakonnx.Samples`) and an ``attack`` that makes their adversarial versions on
            the fly; or both, as :class:`cloakonnx.Pairs`.
        attack: An attack, or the name of one. Every sample takes all steps, fooled or not.
        tap: The tensor; None for the default one.
        feature_axis: Axis of the tensor that its features run along; its own where None.
        criterion: One of :data:`CRITERIA`.
        batch_size: Samples per batch; memory grows with it, and not with their number.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_progress: Called with the number of samples after every batch.
        on_doubt: Called at the end with each sentence on what makes the scores worth less: noise inside the model,
            and where pairs are made, ties and gradients of 0.
        settings: With the name of an attack: its settings, ``eps`` among them.

    Raises:
        OptionError: an unknown criterion or attack, or settings that the attack does not take.
        TapError, ModelError: the tap can't be scored or later masked, or has no linear head although the criterion
            needs one.
        DataError: the pairs do not fit one another or the model, or have no labels although the criterion needs them.
        DifferentiationError: the graph after the tap has no gradient although the criterion needs one.
        InferenceError: ONNX Runtime fails, or an activation is not finite.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=20)
        >>> analysis = ck.analyze("samples/digits_cnn.onnx", data, attack=ck.attacks.FGSM(eps=1 / 16))
        >>> analysis.scores.tap, analysis.scores.scores.shape
        ('/6/Relu_output_0', (64,))
    """
    wanted = criterion_of(criterion)
    classifier = classifier_of(model)
    pairs = _pairs(classifier, samples, attack, settings)
    classifier.check_unmasked("scoring")
    check_opset(classifier.model)
    chosen = find_tap(classifier.model, tap, axis=feature_axis)
    engine = engine_or(engine, lambda: default_engine(classifier.provider, pairs.clean, batch_size))
    classifier = classifier.with_threads(engine.threads)
    if wanted.labels:
        check_labelled(pairs.clean, _missing_labels(pairs.clean.source.name, wanted), parameter=("criterion", "labels"))
    pairs.clean.fitted_to(classifier)  # samples that do not fit are an error before any graph is made
    classifier, notes = reading(classifier, pairs.clean, inside="scoring")
    work = ScoringWork(classifier, chosen, wanted, pairs.making(engine.threads), pairs.clean.source.name)
    sums: Sums | None = None
    hashes: list[str] = []
    largest, seen = 0.0, Seen()
    batches: Iterator[Batch | PairBatch] = pairs.batches(batch_size, wanted=own_batches(engine))
    with map_batches(work, batches, engine=engine, on_progress=on_progress) as handled:
        for batch, found in handled:
            for part in found.parts:
                sums = part if sums is None else sums.merge(part)
            hashes += sample_hashes(batch.x if isinstance(batch, Batch) else batch.clean)
            largest, seen = max(largest, found.largest_difference), seen + found.seen
    end_of_part(engine)
    if sums is None:
        raise DataError(f"{pairs.clean.source.name} is empty: it has no samples")
    classifier.model.check_unchanged()
    needed = chosen.name if work.making is None else classifier.output_name
    noise = random_ops(classifier.model.proto, needed)
    for said in (*of_randomness(noise), *of_ties(seen.tied), *of_gradients(seen)):
        on_doubt(said)
    return Analysis(
        model_name=classifier.model.name,
        model_sha256=classifier.model.sha256,
        preprocessing=pairs.clean.preprocessing,
        samples=SampleSet(
            clean=pairs.clean.source.name,
            adversarial=pairs.adversarial_name,
            count=len(hashes),
            largest_difference=largest,
            hashes=tuple(hashes),
        ),
        provider=classifier.provider.name,
        threads=classifier.provider.threads,
        notes=notes,
        attack=pairs.attack,
        scores=TapScores(
            tap=chosen.name,
            feature_axis=chosen.feature_axis,
            dtype=chosen.dtype,
            criterion=criterion,
            scores=wanted.scores(sums),
            values_per_feature=sums.moments.count,
        ),
    )


def _pairs(
    classifier: Classifier,
    samples: SamplesLike | Pairs | PairSource,
    attack: str | Attack | None,
    settings: Mapping[str, Any],
) -> PairSource:
    """Return pairs: those given, or clean samples whose adversarial versions an attack makes on the fly."""
    if isinstance(samples, (Pairs, FittedPairs, AttackedPairs)):
        if attack is not None or settings:
            raise OptionError(
                "{attack} makes adversarial versions, and these are given with the pairs", parameter="attack"
            )
        return FittedPairs.of(samples, classifier) if isinstance(samples, Pairs) else samples
    if attack is None:
        raise OptionError(
            "adversarial versions of the samples are needed: give {attack}, which makes them, or Pairs(clean, "
            "adversarial)",
            parameter="attack",
        )
    eps = settings.get("eps", ())
    rest = {key: value for key, value in settings.items() if key != "eps"}
    one, *more = attacks_of(attack, eps, rest)
    if more:
        raise OptionError("{eps} must be one number here", parameter="eps")
    dataset = Dataset.of(samples, classifier)
    return AttackedPairs(dataset, classifier, one.with_settings(early_stop=False))


def _length(chunk: Chunk) -> int:
    value = chunk.values[0]
    return int(value.shape[0] if isinstance(value, np.ndarray) else value.shape()[0])
