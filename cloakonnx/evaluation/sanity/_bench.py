"""Attacks on one batch of samples, each made once however many checks ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import Attack, make
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.presets import passing
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.evaluation.outcomes import Outcomes
from cloakonnx.gradient.losses import Loss

MAX_ITER, QUERIES, STRONG = 20, 200, 100
"""Iterations of PGD, queries of Square, iterations of APGD against what Square finds."""


class Bench:
    """A model and the samples that the sanity checks are made on.

    Args:
        victim: The model.
        samples: Samples that it classifies correctly, at least one.
        plans: The evaluation's attacks, one plan for each eps.
        batch_size: Samples at a time.
        straight_through: Whether attacks by gradient take straight-through ones.
    """

    def __init__(
        self,
        victim: Victim,
        samples: LabelledBatch,
        plans: Sequence[Sequence[Attack]],
        batch_size: int,
        *,
        straight_through: bool = False,
    ) -> None:
        self.victim, self._samples, self._batch_size = victim, samples, batch_size
        self._passes = straight_through
        self._norm, self._seed = plans[0][0].norm, plans[0][0].seed
        self.eps = tuple(sorted(attacks[0].eps for attacks in plans))
        # An evaluation by fewer iterations than ours is doubled from those.
        given = [s.record()["max_iter"] for s in plans[0] if s.name.startswith(("pgd", "apgd"))]
        self.max_iter = min(MAX_ITER, max(given, default=MAX_ITER))
        # Whoever raised them asks whether that was enough; converged has a step of its own.
        raised = [s.max_iter for s in plans[0] if isinstance(s, PGD) and s.eps_step is None]
        if max(raised, default=0) > PGD.max_iter:
            self.max_iter = max(raised)
        self._made: dict[Attack, Outcomes] = {}
        self._converged: dict[Attack, int] = {}
        self._settings: dict[str, dict[str, Any]] = {}

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self._samples.y)

    @property
    def half(self) -> float:
        """Radius of half of pixel space: a ball around any sample that holds the grey image in its middle."""
        low, high = self.victim.bounds
        return (high - low) / 2 * ball(self._norm, 0).widest(prod(self._samples.x.shape[1:]))

    @property
    def ladder(self) -> tuple[float, ...]:
        """The balls of the evaluation, then twice the largest, then half of pixel space."""
        return tuple(sorted({*self.eps, min(2 * self.eps[-1], max(self.half, self.eps[-1])), self.half}))

    def attacks(self) -> tuple[dict[str, Any], ...]:
        """Return the settings of every attack that ran, except what depends on eps."""
        return tuple(self._settings.values())

    def each(self, ask: Callable[[LabelledBatch], NDArray[Any]], among: Outcomes | None = None) -> NDArray[Any]:
        """Ask something of the samples, or of those among them, batch by batch; return the answers joined."""
        return np.concatenate([ask(batch) for batch in self._batches(among)])

    def fgsm(self, eps: float) -> Outcomes:
        """Return (N,) which samples withstand one step."""
        return self._stands(make("fgsm", eps=eps, norm=self._norm, seed=self._seed))

    def pgd(self, eps: float, *, loss: Loss = Loss.CE, times: int = 1) -> Outcomes:
        """Return (N,) which samples withstand PGD, with its iterations or a multiple of them."""
        return self._stands(self._pgd(eps, loss, times))

    def converged(self, eps: float, *, times: int = 1) -> int:
        """Return how many of the samples that withstand PGD ran into an exact cycle: more steps change nothing."""
        self.pgd(eps, times=times)
        return self._converged[self._as_made(self._pgd(eps, Loss.CE, times))]

    def square(self, eps: float, among: Outcomes | None = None) -> Outcomes:
        """Return (N,) which samples, or which among some of them, withstand Square."""
        return self._stands(make("square", eps=eps, norm=self._norm, max_iter=QUERIES, seed=self._seed), among)

    def strong(self, eps: float, among: Outcomes) -> Outcomes:
        """Return (N,) which of some samples withstand APGD-CE and then APGD-targeted, both with more iterations."""
        left = among
        for attack in ("apgd-ce", "apgd-t"):
            left = self._stands(make(attack, eps=eps, norm=self._norm, max_iter=STRONG, seed=self._seed), left)
        return left

    def _pgd(self, eps: float, loss: Loss, times: int) -> Attack:
        iterations = times * self.max_iter
        return PGD(eps=eps, norm=self._norm, max_iter=iterations, loss=loss.value, seed=self._seed)

    def _as_made(self, settings: Attack) -> Attack:
        return passing([settings])[0] if self._passes else settings

    def _stands(self, settings: Attack, among: Outcomes | None = None) -> Outcomes:
        settings = self._as_made(settings)
        if among is None and settings in self._made:
            return self._made[settings]
        entry = {k: v for k, v in settings.record().items() if k not in {"eps", "eps_step"}}
        self._settings.setdefault(str(entry), entry)
        rows = np.ones(self.count, np.bool_) if among is None else among
        found = np.zeros(self.count, np.bool_)
        if rows.any():
            found[rows] = self.each(lambda batch: self._withstands(batch, settings), rows)
        if among is None:
            self._made[settings] = found
        return found

    def _withstands(self, batch: LabelledBatch, settings: Attack) -> Outcomes:
        found = settings.run(self.victim, batch.x, batch.y, samples=batch.indices)
        self._converged[settings] = self._converged.get(settings, 0) + int(found.converged.sum())
        return ~found.success

    def _batches(self, among: Outcomes | None) -> Iterator[LabelledBatch]:
        rows = np.arange(self.count) if among is None else np.flatnonzero(among)
        for start in range(0, len(rows), self._batch_size):
            yield self._samples.take(rows[start : start + self._batch_size])
