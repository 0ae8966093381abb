"""One model at one eps on one batch: attack after attack on what still stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.cost import most_work
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.evaluation.results import CONTROLS, REPLAYED, Stage

Inputs = Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Adversarial inputs of a batch, each with the rows that it was made from."""


class Trial:
    """What still stands, every input that was made, and of each sample that fell the first input that it fell to.

    Args:
        victim: The model.
        batch: The samples.
        correct: (N,) which of them the model classifies correctly as they are.
        meter: Follows the attacks.
    """

    def __init__(self, victim: Victim, batch: LabelledBatch, correct: NDArray[np.bool_], meter: Meter) -> None:
        self._victim, self._batch, self._meter = victim, batch, meter
        self._correct = correct
        self.standing = correct.copy()
        self.inputs: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self.won = batch.x.copy()
        self.stages: list[Stage] = []
        self.by = np.full(len(correct), -1, np.int16)
        """(N,) number of the stage that a sample fell to; -1 where it stands, or was not right."""
        self._converged = 0

    @property
    def fallen(self) -> NDArray[np.bool_]:
        """(N,) which samples were right, and stand no more; :attr:`won` has what they fell to."""
        return self._correct & ~self.standing

    def attack(self, settings: Attack) -> None:
        """Attack what still stands."""
        standing = self.standing.copy()
        self._stage(settings.name, settings.record(), lambda: self._fell(settings, standing))

    def replay(self, inputs: Inputs, *, name: str = REPLAYED) -> None:
        """Try inputs that were made on another model; ``name`` is what the stage is called."""
        self._stage(name, None, lambda: self._fell_to(inputs))

    def controls(self, *each: Attack) -> list[NDArray[np.bool_]]:
        """Make other attacks on all correct samples; return what withstands each. What falls stands no more."""
        outcomes: list[NDArray[np.bool_]] = []

        def make() -> NDArray[np.bool_]:
            outcomes.extend(self._correct & ~self._fell(settings, self._correct) for settings in each)
            return np.asarray(~np.logical_and.reduce(outcomes))

        self._stage(CONTROLS, None, make)
        return outcomes

    def _stage(self, name: str, settings: dict[str, Any] | None, make: Callable[[], NDArray[np.bool_]]) -> None:
        counts = self._victim.counts
        before = int(self.standing.sum()), counts.queries, counts.gradients
        self._converged = 0
        standing = self.standing.copy()
        self.standing &= ~make()
        self.by[standing & ~self.standing] = len(self.stages)
        self.stages.append(
            Stage(
                name,
                settings,
                attacked=before[0],
                robust=int(self.standing.sum()),
                queries=counts.queries - before[1],
                gradients=counts.gradients - before[2],
                converged=0 if name == CONTROLS else self._converged,
            )
        )

    def _fell(self, settings: Attack, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows = np.flatnonzero(which)
        fell = np.zeros(len(which), np.bool_)
        with self._meter.attack(self._victim, settings, len(rows)):
            if len(rows):
                batch = self._batch.take(rows)
                found = settings.run(self._victim, batch.x, batch.y, samples=batch.indices)
                self.inputs.append((rows, found.x))
                fell[rows] = found.success
                self._converged = int(found.converged.sum())
                first = found.success & self.standing[rows]
                self.won[rows[first]] = found.x[first]
        return fell

    def _fell_to(self, inputs: Inputs) -> NDArray[np.bool_]:
        fell = np.zeros(len(self.standing), np.bool_)
        for rows, x in inputs:
            keep = self.standing[rows] & ~fell[rows]
            if keep.any():
                kept = rows[keep]
                fell[kept] = ~self._victim.right(x[keep], self._batch.y[kept])
                self.won[kept[fell[kept]]] = x[keep][fell[kept]]
        return fell


class Meter:
    """Counts work as if every sample withstood every attack; where samples fall early, it leaps ahead.

    Args:
        total: The work of a batch, a sample (:func:`most_work`).
        on_share: Called with the share that is done, below 1: a batch counts as done once it is kept.
    """

    def __init__(self, total: int, on_share: Callable[[float], None]) -> None:
        self._total, self._on_share = total, on_share
        self.done = 0

    @contextmanager
    def attack(self, victim: Victim, settings: Attack, samples: int) -> Iterator[None]:
        """Follow an attack on a number of samples by what it asks the victim."""
        most = most_work(settings, victim).total
        before = victim.counts.total

        def watch() -> None:
            self._tell(min((victim.counts.total - before) / samples, most))

        victim.on_answer = watch
        try:
            yield
        finally:
            victim.on_answer = lambda: None
        self.done += most
        self._tell(0)

    def _tell(self, more: float) -> None:
        self._on_share((self.done + more) / (self._total + 1))
