"""Robust accuracy of a hardened model, attacked itself, beside its baseline and controls.

What the field asks for (Carlini et al. 2019, arXiv 1902.06705; Tramer et al. 2020, arXiv 2002.08347; Croce and Hein
2020, arXiv 2003.01690): the attacks are made on the model with its masks, several of different kinds, one of them
without gradients; a sample counts as robust only if it withstands all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks import Settings, Victim, run_attack
from cloakonnx.data import Dataset, sample_hashes
from cloakonnx.errors import DataError, DifferentiationError, ModelError
from cloakonnx.evaluation.accuracies import Accuracy
from cloakonnx.evaluation.intervals import Paired
from cloakonnx.evaluation.plan import CONTROL_MASKS, check_eps, control, plan
from cloakonnx.evaluation.result import (
    AtEps,
    DataRecord,
    Evaluation,
    MaskRecord,
    ModelRecord,
    RandomMask,
    Robustness,
    Stage,
)
from cloakonnx.gradient import Loss
from cloakonnx.graph import Mask, Model, hardened, read_masks, stripped, stripped_sha256
from cloakonnx.runtime import Provider, input_shape
from cloakonnx.scoring import Analysis

_REPLAYED, _CONTROLS = "replayed inputs", "controls"

Inputs = list[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Adversarial inputs of a batch, each with the rows that it was made from."""


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    eps: Sequence[float],
    attack: str = "quick",
    baseline: Model | None = None,
    norm: Literal["linf", "l2"] = "linf",
    max_iter: int | None = None,
    restarts: int | None = None,
    seed: int = 0,
    provider: Provider,
    batch_size: int = 64,
    input_name: str | None = None,
    output_name: str | None = None,
    analysis: Analysis | None = None,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> Evaluation:
    """Attack a hardened model and its baseline in the same way, and compare them sample by sample.

    Args:
        model: The hardened model.
        dataset: Labelled samples, fitted to the model.
        eps: Radii of the balls, in pixel space.
        attack: A preset (``quick``) or an attack's name.
        baseline: What to compare with; the model with its masks taken out where None.
        norm: The balls' norm.
        max_iter: Steps of a single attack.
        restarts: Random starts of a single attack.
        seed: Of all random numbers.
        provider: Where it runs.
        batch_size: Samples at a time.
        input_name: The data input, where there are several.
        output_name: The class scores, where there are several outputs.
        analysis: What the masks come from, to tell how many of the samples it has seen.
        on_progress: Called with the number of samples that are done.

    Raises:
        ModelError: no masks and no baseline, or a baseline that takes other inputs or has other classes.
        DataError: no labels, or labels that are no classes.
        OptionError: an eps, attack or setting that makes no sense.
        DifferentiationError: an op without a gradient, under an attack that needs one.
    """
    bounds = dataset.preprocessing.bounds
    check_eps(eps, norm=norm, bounds=bounds, shape=dataset.sample_shape)
    plans = [plan(attack, eps=e, norm=norm, max_iter=max_iter, restarts=restarts, seed=seed) for e in eps]
    masks = read_masks(model)
    bare = stripped(model) if masks else None
    if baseline is None and bare is None:
        raise ModelError(f"{model.name} carries no cloakonnx masks to compare it without: name another with --baseline")
    other = baseline if baseline is not None else bare
    assert other is not None  # one of the two is there
    _check_alike(model, other, input_name)

    def victim(of: Model) -> Victim:
        return Victim(
            of,
            provider=provider,
            normalisation=dataset.normalisation,
            input_name=input_name,
            output_name=output_name,
            sample_shape=dataset.sample_shape,
            bounds=bounds,
        )

    first, second = victim(model), victim(other)
    if first.classes != second.classes:
        raise ModelError(
            f"{model.name} has {first.classes} classes, the baseline {other.name} {second.classes}; they can't be "
            "compared"
        )
    shuffled = [] if bare is None else [victim(hardened(bare, _shuffled(masks, seed, i))) for i in range(CONTROL_MASKS)]
    run = _Run(first, second, shuffled, plans, norm=norm, seed=seed)
    digests = hashlib.sha256(), hashlib.sha256()
    known = frozenset(analysis.samples.hashes) if analysis is not None else frozenset()
    count = seen = 0
    for batch in dataset.batches(batch_size):
        if batch.y is None:
            raise DataError(
                f"{dataset.source.name} has no labels; an evaluation needs them (--labels, or y in an .npz)"
            )
        first.check_labels(batch.y)
        for digest, values in zip(digests, (batch.x, batch.y), strict=True):
            digest.update(values.tobytes())
        indices = np.arange(batch.start, batch.start + len(batch.x))
        run.add(_Samples(batch.x, batch.y, indices, dataset.arrangement.channel_axis))
        count += len(batch.x)
        if known:
            seen += sum(each in known for each in sample_hashes(batch.x))
        on_progress(count)
    return Evaluation(
        model=ModelRecord(model.name, model.sha256),
        baseline=ModelRecord(other.name, stripped_sha256(model) if baseline is None else baseline.sha256),
        baseline_is_stripped=baseline is None,
        masks=tuple(MaskRecord(m.tap, len(m.weights), len(m.removed)) for m in masks),
        data=DataRecord(
            dataset.source.name,
            count,
            hashlib.sha256(digests[0].digest() + digests[1].digest()).hexdigest(),
            seen=None if analysis is None else seen,
        ),
        preprocessing=_plain(asdict(dataset.preprocessing)),
        attack=attack,
        norm=norm,
        seed=seed,
        batch_size=batch_size,
        provider=provider.name,
        control=run.control_settings(),
        clean=Paired.of(run.clean[0].all(), run.clean[1].all()),
        results=run.results(),
    )


def _check_alike(model: Model, baseline: Model, input_name: str | None) -> None:
    shapes = input_shape(model, input_name), input_shape(baseline, input_name)
    if None in shapes or shapes[0] == shapes[1]:
        return
    pairs = zip(shapes[0] or (), shapes[1] or (), strict=False)
    if len(shapes[0] or ()) != len(shapes[1] or ()) or any(a != b and None not in (a, b) for a, b in pairs):
        raise ModelError(
            f"{model.name} takes inputs of shape {shapes[0]}, the baseline {baseline.name} of {shapes[1]}; they can't "
            "be compared on the same samples"
        )


def _shuffled(masks: Sequence[Mask], seed: int, index: int) -> list[Mask]:
    """Return masks with the same weights in random places: as many features go, but others."""
    rng = np.random.default_rng([seed, index])
    return [Mask(mask.tap, rng.permutation(mask.weights), mask.feature_axis) for mask in masks]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass
class _Outcomes:
    """Which samples of all batches are right."""

    parts: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, part: NDArray[np.bool_]) -> None:
        self.parts.append(part.copy())

    def all(self) -> NDArray[np.bool_]:
        return np.concatenate(self.parts)

    def accuracy(self) -> Accuracy:
        outcomes = self.all()
        return Accuracy(int(outcomes.sum()), len(outcomes))


@dataclass
class _Tally:
    """One model at one eps, over all batches."""

    robust: _Outcomes = field(default_factory=_Outcomes)
    noise: _Outcomes = field(default_factory=_Outcomes)
    control: _Outcomes = field(default_factory=_Outcomes)
    stages: list[Stage] = field(default_factory=list)

    def add(self, trial: _Trial) -> None:
        self.robust.add(trial.standing)
        if not self.stages:
            self.stages = trial.stages
            return
        self.stages = [_sum(before, now) for before, now in zip(self.stages, trial.stages, strict=True)]

    def result(self) -> Robustness:
        return Robustness(self.robust.accuracy(), self.noise.accuracy(), self.control.accuracy(), tuple(self.stages))


def _sum(a: Stage, b: Stage) -> Stage:
    counts = {key: getattr(a, key) + getattr(b, key) for key in ("attacked", "robust", "queries", "gradients")}
    return Stage(a.name, a.settings, **counts)


@dataclass(frozen=True)
class _Samples:
    """A batch."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    indices: NDArray[np.int64]
    channel_axis: int


class _Trial:
    """One model at one eps on one batch: what still stands, and every input that was made."""

    def __init__(self, victim: Victim, batch: _Samples, correct: NDArray[np.bool_]) -> None:
        self._victim, self._batch = victim, batch
        self._correct = correct
        self.standing = correct.copy()
        self.inputs: Inputs = []
        self.stages: list[Stage] = []

    def attack(self, settings: Settings) -> None:
        """Attack what still stands."""
        standing = self.standing.copy()
        self._stage(settings.attack, settings.as_dict(), lambda: self._fell(settings, standing))

    def replay(self, inputs: Inputs) -> None:
        """Try inputs that were made on another model."""
        self._stage(_REPLAYED, None, lambda: self._fell_to(inputs))

    def controls(self, *each: Settings) -> list[NDArray[np.bool_]]:
        """Make other attacks on all correct samples; return what withstands each. What falls stands no more."""
        outcomes: list[NDArray[np.bool_]] = []

        def make() -> NDArray[np.bool_]:
            outcomes.extend(self._correct & ~self._fell(settings, self._correct) for settings in each)
            return np.asarray(~np.logical_and.reduce(outcomes))

        self._stage(_CONTROLS, None, make)
        return outcomes

    def _stage(self, name: str, settings: dict[str, Any] | None, make: Callable[[], NDArray[np.bool_]]) -> None:
        counts = self._victim.counts
        before = int(self.standing.sum()), counts.queries, counts.gradients
        self.standing &= ~make()
        self.stages.append(
            Stage(
                name,
                settings,
                attacked=before[0],
                robust=int(self.standing.sum()),
                queries=counts.queries - before[1],
                gradients=counts.gradients - before[2],
            )
        )

    def _fell(self, settings: Settings, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows = np.flatnonzero(which)
        fell = np.zeros(len(which), np.bool_)
        if len(rows):
            found = run_attack(
                self._victim,
                self._batch.x[rows],
                self._batch.y[rows],
                settings=settings,
                channel_axis=self._batch.channel_axis,
                samples=self._batch.indices[rows],
            )
            self.inputs.append((rows, found.x))
            fell[rows] = found.success
        return fell

    def _fell_to(self, inputs: Inputs) -> NDArray[np.bool_]:
        fell = np.zeros(len(self.standing), np.bool_)
        for rows, x in inputs:
            keep = self.standing[rows] & ~fell[rows]
            if keep.any():
                kept = rows[keep]
                fell[kept] = self._victim.predict(x[keep]) != self._batch.y[kept]
        return fell


class _Run:
    """Collects all that is counted, batch by batch."""

    def __init__(
        self,
        model: Victim,
        baseline: Victim,
        shuffled: Sequence[Victim],
        plans: Sequence[tuple[Settings, ...]],
        *,
        norm: Literal["linf", "l2"],
        seed: int,
    ) -> None:
        self._victims, self._shuffled, self._plans = (model, baseline), shuffled, plans
        self._norm, self._seed = norm, seed
        self.clean = _Outcomes(), _Outcomes()
        self._shuffled_clean = [_Outcomes() for _ in shuffled]
        self._static = [_Outcomes() for _ in plans]
        self._tallies = [(_Tally(), _Tally()) for _ in plans]
        self._random = [[_Outcomes() for _ in shuffled] for _ in plans]
        self._has_gradients: bool | None = None

    def add(self, batch: _Samples) -> None:
        """Evaluate a batch."""
        x, y = batch.x, batch.y
        if self._has_gradients is None:
            self._has_gradients = all(_differentiable(v, x, y) for v in (*self._victims, *self._shuffled[:1]))
        correct = [victim.predict(x) == y for victim in self._victims]
        for outcomes, right in zip(self.clean, correct, strict=True):
            outcomes.add(right)
        others = [victim.predict(x) == y for victim in self._shuffled]
        for outcomes, right in zip(self._shuffled_clean, others, strict=True):
            outcomes.add(right)
        for index, attacks in enumerate(self._plans):
            trials = [_Trial(victim, batch, right) for victim, right in zip(self._victims, correct, strict=True)]
            self._attack(index, attacks, *trials)
            usual = self._control(attacks[0].eps)
            for victim, right, outcomes in zip(self._shuffled, others, self._random[index], strict=True):
                outcomes.add(_Trial(victim, batch, right).controls(usual)[0])

    def _attack(self, index: int, attacks: tuple[Settings, ...], model: _Trial, baseline: _Trial) -> None:
        for settings in attacks:
            baseline.attack(settings)
        model.replay(baseline.inputs)
        self._static[index].add(model.standing)
        for settings in attacks:
            model.attack(settings)
        baseline.replay(model.inputs)
        eps = attacks[0].eps
        noise = Settings("noise", eps, self._norm, seed=self._seed)
        for trial, tally in zip((model, baseline), self._tallies[index], strict=True):
            noisy, usual = trial.controls(noise, self._control(eps))
            tally.noise.add(noisy)
            tally.control.add(usual)
            tally.add(trial)

    def _control(self, eps: float) -> Settings:
        return control(eps, norm=self._norm, seed=self._seed, gradients=bool(self._has_gradients))

    def control_settings(self) -> dict[str, Any]:
        """Return the settings of the control attack, but for what depends on eps."""
        settings = self._control(self._plans[0][0].eps).as_dict()
        return {key: value for key, value in settings.items() if key not in {"eps", "eps_step"}}

    def results(self) -> tuple[AtEps, ...]:
        """Return what was found at each eps."""
        return tuple(
            AtEps(
                eps=attacks[0].eps,
                static=static.accuracy(),
                hardened=model.result(),
                baseline=baseline.result(),
                pairs=Paired.of(model.robust.all(), baseline.robust.all()),
                random_masks=tuple(
                    RandomMask(clean.accuracy(), outcomes.accuracy())
                    for clean, outcomes in zip(self._shuffled_clean, random, strict=True)
                ),
            )
            for attacks, static, (model, baseline), random in zip(
                self._plans, self._static, self._tallies, self._random, strict=True
            )
        )


def _differentiable(victim: Victim, x: NDArray[np.float32], y: NDArray[np.int64]) -> bool:
    try:
        victim.gradient(x[:1], y[:1], loss=Loss.CE)
    except DifferentiationError:
        return False
    return True
