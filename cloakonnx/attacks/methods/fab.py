"""FAB-T: the smallest perturbation, found along the decision boundary (Croce & Hein 2020, arXiv 1907.02044).

Targeted as in AutoAttack (Croce & Hein 2020, arXiv 2003.01690): towards one class at a time, so that a step
takes one gradient and not one for each class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import BALLS, ball
from cloakonnx.attacks.base import TargetedInTurn, attack
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.run import Run

_ALPHA_MAX = 0.1
"""Largest weight of the step that starts at the clean input."""

_ETA = 1.05
"""How far over the boundary a step goes."""

_BETA = 0.9
"""Share of the perturbation that is kept in the step back."""

_FINAL_STEPS = 3
"""Steps of the search between the clean input and the best one found."""

_SECANT = 0.99
"""Share of the secant step that is taken: with all, rounding leaves half of the points behind the boundary."""


@attack("fab-t")
@dataclass(frozen=True, kw_only=True)
class FABT(TargetedInTurn):
    """Look for the smallest perturbation that fools, towards each of the most likely other classes in turn.

    Only perturbations inside the ball count. A sample with none ends at its smallest perturbation, or where the last
    step went, brought back into the ball. Restarts start at the clean input itself, then at points at random half way
    to the ball's edge. Without early stopping a sample takes all steps and ends at its smallest perturbation.

    Source: Croce & Hein 2020, arXiv 1907.02044.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.FABT(eps=2 / 255).name
        'fab-t'
    """

    def cost(self, classes: int) -> Counts:
        """Return a gradient and a query for each step; then two ends, the final search and the edge of the ball."""
        steps = self.restarts * self.aimed_at(classes) * self.max_iter
        return Counts(queries=8 + steps, gradients=steps)

    def restarts_of(self, run: Run) -> Iterator[tuple[int, NDArray[np.int64] | None]]:
        """Yield each target's restarts, where any sample is left to attack."""
        if len(run.active):
            run.kept = _Search(run, self)
            yield from super().restarts_of(run)

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Walk along the boundary once."""
        start = run.clean[run.active]
        if number % self.restarts:
            edge = ball(self.norm, self.eps / 2).edge(run.stream(self.seed, "fab-t", number), start)
            start = np.clip(edge, *run.victim.bounds)
        assert targets is not None  # restarts_of gives them
        run.kept.go(start, targets, self.max_iter)

    def finish(self, run: Run) -> None:
        """Search on the way back to the clean input."""
        if run.kept is not None:
            run.kept.finish()


class _Search:
    """The samples of a batch, and the smallest perturbation of each so far.

    Attributes:
        best: (N, ...) float32 the input with it.
        size: (N,) float64 its norm; infinite where there is none yet.
    """

    def __init__(self, run: Run, attack: FABT) -> None:
        self._victim, self._run, self._x, self._y = run.victim, run, run.clean, run.y
        self._eps, self._early_stop = attack.eps, attack.early_stop
        self._norm, self._ball = attack.norm, ball(attack.norm, attack.eps)
        x = run.clean
        self.best = x.copy()
        self.size = np.full(len(x), np.inf)

    def go(self, x: NDArray[np.float32], targets: NDArray[np.int64], max_iter: int) -> None:
        """Walk along the boundary to one target: algorithm 1. ``x`` is where the active samples start."""
        for _ in range(max_iter):
            rows = self._run.active
            if not len(rows):
                return
            x = self._step(x, rows, targets[rows])
            adversarial = self._victim.task.fooled(self._victim.logits(x), self._y[rows], targeted=False)
            done = self._note(x, rows, adversarial)
            back = self._x[rows] + np.float32(_BETA) * (x - self._x[rows])
            x = np.where(_wide(adversarial, x), back, x)
            if self._early_stop and done.any():
                x = x[self._run.drop(done)]
        rows = self._run.active
        unknown = np.isinf(self.size[rows])
        self.best[rows[unknown]] = x[unknown]

    def finish(self) -> None:
        """Search on the way back to the clean input; bring what is outside the ball into it."""
        rows = self._run.active
        self._search_back(rows[np.isfinite(self.size[rows])])
        if len(rows):
            arithmetic = self._victim.arithmetic(self._x.ndim, self._norm)
            ends = arithmetic.project(self.best[rows], arithmetic.put(self._x[rows]), eps=self._eps)
            # What won by a smaller perturbation stays; the others may win here, where the ball's edge is near enough.
            won = (
                self._victim.task.fooled(self._victim.logits(ends), self._y[rows], targeted=False)
                & ~self._run.success[rows]
            )
            self._run.won(won, ends)
            self._run.ended(ends)

    def _step(self, x: NDArray[np.float32], rows: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """Step over the linearised boundary, from x and from the clean input, and mix the two."""
        answer = self._victim.climb(x, self._y[rows], loss="difference", targets=targets)
        here, clean = (each.reshape(len(rows), -1).astype(np.float64) for each in (x, self._x[rows]))
        # A gradient or a difference that is not a number says nothing.
        w = np.nan_to_num(
            self._victim.on_host(answer.gradient).reshape(here.shape).astype(np.float64), posinf=0, neginf=0
        )
        value = np.nan_to_num(answer.loss.astype(np.float64))
        ahead = np.concatenate([-value, ((here - clean) * w).sum(axis=1) - value])
        moves = to_hyperplane(
            np.concatenate([here, clean]), np.concatenate([w, w]), ahead, norm=self._norm, bounds=self._victim.bounds
        )
        own, other = np.split(self._ball.measure(moves), 2)
        whole = own + other
        alpha = np.minimum(np.divide(own, whole, out=np.zeros_like(own), where=whole > 0), _ALPHA_MAX)[:, None]
        from_here, from_clean = here + _ETA * moves[: len(rows)], clean + _ETA * moves[len(rows) :]
        mixed = np.clip((1 - alpha) * from_here + alpha * from_clean, *self._victim.bounds)
        return np.asarray(mixed.astype(np.float32).reshape(x.shape))

    def _note(
        self, x: NDArray[np.float32], rows: NDArray[np.int64], adversarial: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Keep the inputs that fool with a smaller perturbation; return (N,) which ones fool inside the ball."""
        size = self._ball.measure(x - self._x[rows].astype(np.float64))
        better = adversarial & (size < self.size[rows])
        self.best[rows[better]], self.size[rows[better]] = x[better], size[better]
        inside = rows[better & (size <= self._eps)]
        self._run.x[inside], self._run.success[inside] = self.best[inside], True
        return np.asarray(adversarial & (size <= self._eps))

    def _search_back(self, rows: NDArray[np.int64]) -> None:
        """Follow the secant of the margin between the clean input and the best one found."""
        if not len(rows):
            return
        low, high = self._x[rows], self.best[rows]
        below, above = (-self._victim.task.margin(self._victim.logits(each), self._y[rows]) for each in (low, high))
        for _ in range(_FINAL_STEPS):
            span = above - below
            # A clean input that is misclassified has no boundary on the way.
            share = np.divide(above, span, out=np.zeros_like(span), where=(below < 0) & (span > 0))
            middle = high - _wide(_SECANT * share, high) * (high - low)
            middle = np.clip(middle, *self._victim.bounds).astype(np.float32)
            logits = self._victim.logits(middle)
            margin, adversarial = (
                -self._victim.task.margin(logits, self._y[rows]),
                self._victim.task.fooled(logits, self._y[rows], targeted=False),
            )
            self._note(middle, rows, adversarial)
            is_high = _wide(adversarial, high)
            low, high = np.where(is_high, low, middle), np.where(is_high, middle, high)
            below, above = np.where(adversarial, below, margin), np.where(adversarial, margin, above)


def _wide(values: NDArray[Any], x: NDArray[np.float32]) -> NDArray[Any]:
    """Shape one value a sample so that it broadcasts over a batch."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


_AT_ONCE = 1 << 22
"""Values that are worked on at a time, so that large images do not take gigabytes."""


def to_hyperplane(
    x: NDArray[np.float64],
    w: NDArray[np.float64],
    c: NDArray[np.float64],
    *,
    norm: str,
    bounds: tuple[float, float],
) -> NDArray[np.float64]:
    """Return the smallest move from points in a box onto hyperplanes, inside the box.

    Exactly the solution of: minimise ||d|| subject to <w, d> = c and low <= x + d <= high (Croce & Hein 2020, arXiv
    1907.02044: the projection onto a hyperplane with box constraints). Where the hyperplane does not meet
    the box: to the corner that is next to it.

    Every value moves towards the hyperplane until it meets its bound: d_i = sign(c w_i) min(t p_i, room_i), with p_i =
    1 for Linf and |w_i| for L2, by the conditions of Karush, Kuhn and Tucker. So t solves sum |w_i| min(t p_i, room_i)
    = |c|, where the left side is concave and piecewise linear: Newton's method from below ends at the solution, once no
    further value meets its bound.

    Args:
        x: (N, D) points, inside the bounds.
        w: (N, D) normals of the hyperplanes, finite.
        c: (N,) how far away they are, as <w, d>.
        norm: What is smallest.
        bounds: Smallest and largest value of the box.

    Returns:
        (N, D) the moves.
    """
    rows = max(_AT_ONCE // max(x.shape[1], 1), 1)
    parts = [
        _moves(x[i : i + rows], w[i : i + rows], c[i : i + rows], norm, bounds) for i in range(0, max(len(x), 1), rows)
    ]
    return np.concatenate(parts)


def _moves(
    x: NDArray[np.float64], w: NDArray[np.float64], c: NDArray[np.float64], norm: str, bounds: tuple[float, float]
) -> NDArray[np.float64]:
    direction = np.sign(w) * np.where(c < 0, -1.0, 1.0)[:, None]
    weight = np.abs(w)
    room = np.where(direction > 0, bounds[1] - x, x - bounds[0])
    pace = BALLS[norm].pace(weight)
    gain, most = weight * pace, weight * room
    free = weight > 0
    while True:
        rate = (gain * free).sum(axis=1)
        left = np.maximum(np.abs(c) - (most * ~free).sum(axis=1), 0)
        time = np.divide(left, rate, out=np.zeros_like(left), where=rate > 0)[:, None]
        still = free & (time * pace < room)
        if (still == free).all():
            return np.asarray(direction * np.where(free, time * pace, room))
        free = still
