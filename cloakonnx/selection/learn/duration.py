"""How long learning takes: a step and a gradient, measured, times how many there are; and how many a trial saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cloakonnx.attacks.cost import most_work, seconds_of
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.samples import Dataset
from cloakonnx.engine.batches import Engine, InProcess
from cloakonnx.engine.schedule import schedule
from cloakonnx.gradient.losses import Loss
from cloakonnx.selection.learn.choosing import MOST_ATTACKED, MOST_TRIED, ROBUST_STEPS
from cloakonnx.selection.learn.objective import Objective
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.preparation import Prepared
from cloakonnx.selection.learn.recipe import Recipe
from cloakonnx.selection.learn.settled import placed, settled
from cloakonnx.selection.learn.steps import StepWork

_PROBE = 50
"""Samples of a probe."""

_FIRST = 64
"""Samples of the select part that are attacked for what is to be expected, at most."""

_TRIALS = 2
"""How often each epoch's masks are tried on the select part: when it ends, and in the end."""


@dataclass(frozen=True)
class Held:
    """What the attack of the trials found on the first select samples, without masks.

    Attributes:
        samples: How many were attacked.
        right: The share of them that the model gets right.
        standing: The share that withstands.
        used: The share of the attack's steps that were made; those that fall early save the others.
    """

    samples: int
    right: float
    standing: float
    used: float

    def __str__(self) -> str:
        """Return what was found in words."""
        return (
            f"of the first {self.samples} samples to choose on {self.right:.0%} are right, and {self.standing:.0%} "
            f"withstand PGD-{ROBUST_STEPS}"
        )


@dataclass(frozen=True)
class LearningEstimate:
    """What learning takes if every sample withstands every trial, and what it is expected to take.

    Attributes:
        step: Seconds of a sample of a step, in one worker.
        forward: Seconds of a sample that is classified.
        gradient: Seconds of a sample's step of the attack that masks are tried with.
        samples: How many are learned on.
        select: How many masks are chosen on.
        epochs: Passes over the samples.
        parts: Parts of each step, which workers handle at a time.
        batch_size: Samples of a step, and of a batch of a trial.
        workers: How many parts or batches are handled at a time.
        tried: What the attack of the trials found; None where it was not made.

    Examples:
        >>> from cloakonnx.selection.learn.duration import LearningEstimate
        >>> found = LearningEstimate(0.01, 0.001, 0.002, samples=400, select=100, epochs=2, parts=2, batch_size=50)
        >>> round(found.at_most(1), 3), round(found.at_most(2), 3)
        (16.4, 8.2)
        >>> found.asked
        '400 samples to learn on, 100 to choose on'
    """

    step: float
    forward: float
    gradient: float
    samples: int
    select: int
    epochs: int
    parts: int
    batch_size: int
    workers: int = 1
    tried: Held | None = None

    @property
    def asked(self) -> str:
        """What is done, in words."""
        return f"{self.samples} samples to learn on, {self.select} to choose on"

    @property
    def cut(self) -> str:
        """How the work is cut, in words."""
        each = f" in {self.parts} parts" if self.parts > 1 else ""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        steps = math.ceil(self.samples / self.batch_size)
        return f"{epochs} of {steps} step{'s' if steps > 1 else ''}{each}"

    @property
    def most_workers(self) -> int:
        """How many workers find something to do."""
        return max(self.parts, math.ceil(self.select / self.batch_size))

    @property
    def advice(self) -> str:
        """What more workers find, and what gives them something to do."""
        return "nothing to do; --parts cuts each step, and a smaller --batch-size the samples to choose on"

    def at_most(self, workers: int) -> float:
        """Return the seconds on a number of workers if every sample withstands every trial."""
        return self._seconds(workers, 1.0)

    def expected(self, workers: int) -> float:
        """Return the seconds on a number of workers if trials go as without masks."""
        assert self.tried is not None  # asked for where it was measured
        return self._seconds(workers, self.tried.used)

    def _seconds(self, workers: int, used: float) -> float:
        in_turn = math.ceil(self.parts / min(workers, self.parts)) / self.parts
        trial = self._batches(self.select, self.forward, workers)
        trial += self._batches(min(self.select, MOST_ATTACKED), ROBUST_STEPS * self.gradient * used, workers)
        return self.epochs * self.samples * self.step * in_turn + min(self.epochs, MOST_TRIED) * _TRIALS * trial

    def _batches(self, count: int, seconds: float, workers: int) -> float:
        """Return the seconds of a pass over samples that take some seconds each."""
        full, rest = divmod(count, self.batch_size)
        sizes = [self.batch_size] * full + [rest] * (rest > 0)
        return schedule([size * seconds for size in sizes], workers).seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON: on the workers."""
        found: dict[str, Any] = {
            "samples": self.samples,
            "select": self.select,
            "epochs": self.epochs,
            "steps": self.epochs * math.ceil(self.samples / self.batch_size),
            "parts": self.parts,
            "workers": self.workers,
            "at_most": {"seconds": self.at_most(self.workers)},
            "expected": None,
        }
        if self.tried is not None:
            found["expected"] = {
                "seconds": self.expected(self.workers),
                "tried": self.tried.samples,
                "right": self.tried.right,
                "standing": self.tried.standing,
            }
        return found


def estimate_learning(
    classifier: Classifier,
    dataset: Dataset,
    recipe: Recipe,
    *,
    select: Dataset | None = None,
    taps: Sequence[str] = (),
    tap_patterns: Sequence[str] = (),
    layers: Sequence[str] = (),
    engine: Engine | None = None,
) -> LearningEstimate:
    """Measure what learning takes, and make the attack of the trials on the first samples to choose on.

    Args:
        classifier: The classifier without masks.
        dataset: Samples to learn on; a fifth of each class is held out for choosing where ``select`` is None.
        recipe: The settings.
        select: Samples for choosing.
        taps: Tensors to mask, as learning takes them.
        tap_patterns: Globs over their names.
        layers: Globs over the names of weights and layers.
        engine: Where parts and batches would be handled.

    Raises:
        CloakError: as :func:`cloakonnx.learn` does before it starts.
    """
    engine = engine or InProcess()
    asked = Prepared.of(
        classifier,
        dataset,
        recipe,
        select=select,
        taps=taps,
        tap_patterns=tap_patterns,
        layers=layers,
        threads=engine.threads,
    )
    found = _measured(asked.work, asked.tried, dataset, samples=len(asked.train), select=len(asked.part))
    held = _held(asked.tried, asked.recipe, next(asked.part.labelled(_FIRST)))
    return replace(found, workers=engine.workers, tried=held)


def learning_seconds(
    classifier: Classifier,
    dataset: Dataset,
    recipe: Recipe,
    *,
    samples: int,
    select: int,
    taps: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> float:
    """Measure on noise how many seconds learning takes at most.

    Args:
        classifier: The classifier.
        dataset: What it would learn on; only the shape of a sample is taken.
        recipe: The settings.
        samples: How many it would learn on.
        select: How many it would choose on.
        taps: Tensors to mask, as learning takes them.
        layers: And globs over layers.

    Raises:
        TapError, ModelError, DifferentiationError: as learning does.
    """
    granularity = placed(recipe.granularity, at_taps=bool(taps))
    masked = MaskedClassifier(classifier, first_masks(classifier.model, granularity, taps=taps, layers=layers))
    masked.prepare(dataset.fitted_to(masked))
    work = StepWork(masked, classifier, settled(recipe, dataset, count=samples), dataset.sample_shape)
    return _measured(work, masked, dataset, samples=samples, select=select).at_most(1)


def _measured(
    work: StepWork, tried: MaskedClassifier, dataset: Dataset, *, samples: int, select: int
) -> LearningEstimate:
    """Measure on noise what steps take, and what trials do in a classifier of theirs."""
    masked, recipe = work.classifier, work.recipe
    assert recipe.epochs is not None  # settled
    count = masked.fixed_batch or min(_PROBE, recipe.batch_size)
    low, high = dataset.preprocessing.bounds
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, (count, *dataset.sample_shape)).astype(np.float32)
    y = np.zeros(count, np.int64)
    objective = Objective(masked, work.source, recipe, work.sample)
    stream = Stream.of(recipe.seed, "estimate", 0, np.arange(count))

    def learning_step() -> None:
        """Change the masks first: where they are on weights, the session is made anew."""
        masked.weights = {key: weights * rng.uniform(0.9, 1.1) for key, weights in masked.weights.items()}
        objective(x, y, eps=recipe.eps, stream=stream)

    return LearningEstimate(
        step=seconds_of(learning_step) / count,
        gradient=seconds_of(lambda: tried.answer(x, y, loss=Loss.CE.climbed, straight_through=tried.passes_straight))
        / count,
        forward=seconds_of(lambda: tried.logits(x)) / count,
        samples=samples,
        select=select,
        epochs=recipe.epochs,
        parts=recipe.parts,
        batch_size=recipe.batch_size,
    )


def _held(masked: MaskedClassifier, recipe: Recipe, first: LabelledBatch) -> Held:
    """Make the attack of a trial without masks."""
    masked.weights = {key: np.ones_like(weights) for key, weights in masked.weights.items()}
    masked.task.check(first.y, masked.classes)
    victim = Victim(masked)
    passes = masked.passes_straight
    attack = PGD(eps=recipe.eps, norm=recipe.norm, max_iter=ROBUST_STEPS, seed=recipe.seed, straight_through=passes)
    right = float(victim.right(first.x, first.y).mean())
    before = victim.counts.total
    found = attack.run(victim, first.x, first.y, samples=first.indices)
    used = (victim.counts.total - before) / (first.size * most_work(attack, victim).total)
    return Held(first.size, right, float((~found.success).mean()), min(used, 1.0))
