"""Which of the learned masks to take: the latest of the most robust ones on the select part within the budget."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.masked import MaskedClassifier, Weights
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.loaded import Loaded
from cloakonnx.engine.batches import Engine, InProcess, Tell, map_batches
from cloakonnx.selection.learn.recipe import Recipe

ROBUST_STEPS = 10
"""Steps of the PGD that candidates are compared under; the final word is evaluate's."""
MOST_ATTACKED = 300
"""Samples of the select part that are attacked."""

MOST_TRIED = 8
"""Epochs whose masks are tried on the select part, evenly spaced up to the last."""

_ONE_WRONG_OF = 200
"""A model that has at most one select sample in 200 wrong may have been trained on them."""

_BLENDS = tuple(round(0.1 * i, 3) for i in range(10, 0, -1))
_REFINEMENTS = (0.075, 0.05, 0.025)


@dataclass(frozen=True)
class Choice:
    """The masks that were taken.

    Attributes:
        masks: Their weights.
        epoch: When they were learned, counted from 1.
        blend: How far they are from no masks (0) to what was learned (1).
        clean: How many samples of the select part are classified correctly.
        robust: How many of its attacked samples hold.
        within_budget: Whether the clean loss keeps within the budget and robust accuracy gains.
    """

    masks: Weights
    epoch: int
    blend: float
    clean: int
    robust: int
    within_budget: bool


@dataclass(frozen=True, eq=False)
class Held:
    """Which samples of a batch are right in a trial, and for which more steps of its attack change nothing; (N,)."""

    right: NDArray[np.bool_]
    converged: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TrialWork:
    """Which samples are right under some masks, or stay right under an attack that is made on them.

    Attributes:
        classifier: The classifier; its masks are set and left set.
        weights: The masks.
        attack: The attack; None for clean samples.
    """

    classifier: MaskedClassifier
    weights: Weights
    attack: Attack | None = None

    @property
    def result(self) -> type[Held]:
        """The type of a batch's result."""
        return Held

    @property
    def record(self) -> dict[str, Any]:
        """The attack's settings, and where it runs."""
        return {"attack": None if self.attack is None else self.attack.record(), **self.classifier.record}

    def start(self, worker: int = 0) -> Callable[[LabelledBatch, Tell], Held]:
        """Return what tries a batch."""
        classifier = self.classifier.for_worker(worker)
        classifier.weights = self.weights
        victim = Victim(classifier)

        def held(batch: LabelledBatch, tell: Tell) -> Held:
            if self.attack is None:
                return Held(victim.right(batch.x, batch.y), np.zeros(len(batch.y), np.bool_))
            found = self.attack.run(victim, batch.x, batch.y, samples=batch.indices)
            return Held(~found.success, found.converged)

        return held


class SelectPart:
    """The samples that candidates are compared on.

    Args:
        classifier: The classifier; its masks are set and left set.
        samples: The select part.
        recipe: The settings.
        engine: Where batches are handled.
    """

    def __init__(
        self, classifier: MaskedClassifier, samples: Loaded, recipe: Recipe, engine: Engine | None = None
    ) -> None:
        self._classifier, self._samples, self._recipe = classifier, samples, recipe
        self._engine = engine or InProcess()
        self._known: dict[tuple[bytes, bool], int] = {}
        self._converged: dict[tuple[bytes, bool], int] = {}
        count = min(len(samples), MOST_ATTACKED)
        self._attacked = np.linspace(0, len(samples) - 1, count).astype(np.int64)  # spread, for data sorted by class

    @cached_property
    def clean_before(self) -> int:
        """How many samples are classified correctly without masks."""
        return self.clean(self._none)

    @cached_property
    def robust_before(self) -> int:
        """How many of the attacked samples hold without masks."""
        return self.robust(self._none)

    @property
    def _none(self) -> Weights:
        return {tap: np.ones_like(mask) for tap, mask in self._classifier.weights.items()}

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self._samples)

    @property
    def attacked(self) -> int:
        """How many of them are attacked."""
        return len(self._attacked)

    @property
    def looks_memorised(self) -> bool:
        """Whether the model has at least 99.5% of at least 200 labels right without masks, as on what it learned."""
        wrong = self.count - self.clean_before
        return self._samples.has_labels and self.count >= _ONE_WRONG_OF and wrong * _ONE_WRONG_OF <= self.count

    @property
    def least(self) -> int:
        """How many samples must be classified correctly to keep within the budget."""
        return self.clean_before - int(self._recipe.budget * self.count + 1e-9)

    def clean(self, masks: Weights) -> int:
        """Return how many samples are classified correctly under these masks."""
        return self._once(TrialWork(self._classifier, masks), None)

    def robust(self, masks: Weights) -> int:
        """Return how many of the attacked samples hold against a PGD that is made on these masks."""
        return self._once(self._attack_on(masks), self._attacked)

    def converged(self, masks: Weights) -> int:
        """Return for how many of those that hold more steps of that PGD change nothing."""
        self.robust(masks)
        return self._converged[_key(self._attack_on(masks))]

    def _attack_on(self, masks: Weights) -> TrialWork:
        r = self._recipe
        passes = self._classifier.passes_straight
        attack = PGD(eps=r.eps, norm=r.norm, max_iter=ROBUST_STEPS, seed=r.seed, straight_through=passes)
        return TrialWork(self._classifier, masks, attack)

    def _once(self, work: TrialWork, rows: NDArray[np.int64] | None) -> int:
        """Return the count of a trial; masks of an epoch's end that are chosen among as they are were tried then."""
        key = _key(work)
        if key not in self._known:
            self._known[key] = self._holding(work, rows)
        return self._known[key]

    def _holding(self, work: TrialWork, rows: NDArray[np.int64] | None) -> int:
        """Return how many samples are right in a trial: of some rows, or of all."""
        batches = self._samples.labelled(self._recipe.batch_size, rows)
        right = converged = 0
        with map_batches(work, batches, engine=self._engine) as handled:
            for _, found in handled:
                right += int(found.right.sum())
                converged += int(found.converged.sum())
        self._converged[_key(work)] = converged
        return right

    def choose(self, learned: Mapping[int, Weights], *, on_progress: Callable[[], None] = lambda: None) -> Choice:
        """Return the best masks: for each epoch the largest blend within the budget, of these the latest of the best.

        Where none is within the budget and gains, the most robust ones that were learned, marked so.

        Args:
            learned: The masks at the end of an epoch, by its number, counted from 1.
            on_progress: Called after each epoch's masks were tried.
        """
        tried: list[Choice] = []
        for number, masks in learned.items():
            found = self._largest_blend(masks, number, _BLENDS)
            if found is not None and found.within_budget:
                tried.append(found)
            on_progress()
        if not tried:
            return self._most_robust(learned)
        best = self._latest_of_the_best(tried)
        if best.blend < 1:
            source = learned[best.epoch]
            finer = self._largest_blend(source, best.epoch, [round(best.blend + r, 3) for r in _REFINEMENTS])
            if finer is not None and finer.robust >= best.robust:
                best = finer
        return best

    def _latest_of_the_best(self, tried: Sequence[Choice]) -> Choice:
        """Return the latest choice whose robust accuracy is within a standard error of the highest.

        That many epochs compared on few samples differ by chance, and the schedule ends in small steps: the one
        standard error rule of Breiman et al. 1984, section 3.4.3.
        """
        most = max(choice.robust for choice in tried)
        error = math.sqrt(most * (1 - most / self.attacked))
        return max((choice for choice in tried if choice.robust >= most - error), key=lambda choice: choice.epoch)

    def _largest_blend(self, masks: Weights, epoch: int, blends: Sequence[float]) -> Choice | None:
        for blend in blends:
            mixed = finished(masks, blend, self._recipe)
            clean = self.clean(mixed)
            if clean >= self.least:
                robust = self.robust(mixed)
                return Choice(mixed, epoch, blend, clean, robust, within_budget=robust > self.robust_before)
        return None

    def _most_robust(self, learned: Mapping[int, Weights]) -> Choice:
        tried = []
        for number, masks in learned.items():
            whole = finished(masks, 1.0, self._recipe)
            tried.append(Choice(whole, number, 1.0, self.clean(whole), self.robust(whole), within_budget=False))
        return max(tried, key=lambda choice: (choice.robust, choice.clean, choice.epoch))


def _key(work: TrialWork) -> tuple[bytes, bool]:
    """Return what tells trials on the same samples apart."""
    digest = hashlib.sha256(b"".join(mask.tobytes() for mask in work.weights.values())).digest()
    return digest, work.attack is not None


def finished(masks: Weights, blend: float, recipe: Recipe) -> Weights:
    """Return ``1 + blend * (mask - 1)`` in float32, inside the bounds, with small weights set to 0 where asked for."""
    low, high = recipe.range
    found: dict[str, NDArray[np.float32]] = {}
    for tap, mask in masks.items():
        mixed = np.clip(1 + blend * (mask.astype(np.float64) - 1), low, high)
        mixed[mixed < recipe.zero_below] = 0
        found[tap] = mixed.astype(np.float32)
    return found
