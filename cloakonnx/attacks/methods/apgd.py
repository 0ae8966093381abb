"""APGD: PGD with momentum whose step size adapts to the progress it makes (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import GradientAttack, TargetedInTurn, attack, setting
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.run import Run

if TYPE_CHECKING:
    from cloakonnx.runtime.session import Value

_RHO = 0.75
"""Share of increasing steps below which the step size is halved (section 3.3)."""

_PULL = 0.75
"""Weight of the plain step against the last movement (eq. 4: alpha)."""


class _Ascent(GradientAttack):
    """One restart of APGD: algorithm 1."""

    climbs: ClassVar[str]
    max_iter: int

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Climb once."""
        clean = run.clean[run.active]
        arithmetic = run.victim.arithmetic(run.clean.ndim, self.norm)
        origin = arithmetic.put(clean)
        edge = ball(self.norm, self.eps).edge(run.stream(self.seed, self.name, number), clean)
        self._climb(run, arithmetic.project(edge, origin, eps=self.eps), origin, targets)

    def _ask(
        self, run: Run, x: Value, targets: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], Value]:
        rows = run.active
        aims = None if targets is None else targets[rows]
        answer = run.victim.climb(x, run.y[rows], loss=self.climbs, targets=aims)
        return run.fooled(answer.logits), answer.loss, answer.gradient

    def _climb(self, run: Run, x: Value, origin: Value, targets: NDArray[np.int64] | None) -> None:
        math, check = run.victim.arithmetic(run.clean.ndim, self.norm), _Schedule(self.max_iter)
        done, loss, gradient = self._ask(run, x, targets)
        progress = _Progress(loss, np.full(len(loss), 2 * self.eps, np.float32))
        previous, best_x, best_gradient = x, x, gradient
        for iteration in range(self.max_iter + 1):
            run.won(done, x)
            if self.early_stop and done.any():
                stay = run.drop(done)
                if not len(stay):
                    return
                values = (x, previous, origin, gradient, best_x, best_gradient)
                x, previous, origin, gradient, best_x, best_gradient = (math.take(v, stay) for v in values)
                progress = progress.take(stay)
            if iteration == self.max_iter:
                break
            if check.due(iteration):
                halved = progress.halve(check.since)
                if halved.any():
                    x = math.where(halved, best_x, x)
                    gradient = math.where(halved, best_gradient, gradient)
                check.passed()
            step = math.momentum_step(
                x, previous, gradient, origin,
                size=progress.size, eps=self.eps, pull=_PULL if iteration else 1.0,
            )  # fmt: skip
            previous, x = x, step
            done, loss, gradient = self._ask(run, x, targets)
            better = progress.add(loss)
            if better.any():
                best_x, best_gradient = math.where(better, x, best_x), math.where(better, gradient, best_gradient)
        run.ended(best_x)


@dataclass(frozen=True, kw_only=True)
class _Untargeted(_Ascent):
    """APGD away from the label.

    Attributes:
        max_iter: Steps per restart.
        restarts: Random starts; samples that are fooled leave after each.
    """

    max_iter: int = setting(100, "Steps per restart.", least=1)
    restarts: int = setting(1, "Random starts.", least=1)

    def cost(self, classes: int) -> Counts:
        """Return a gradient for each step and start, and a query of the clean input."""
        return Counts(queries=1, gradients=self.restarts * (self.max_iter + 1))


@attack("apgd-ce")
@dataclass(frozen=True, kw_only=True)
class APGDCE(_Untargeted):
    """APGD on the cross-entropy; without early stopping a sample ends at its largest loss.

    Source: Croce & Hein 2020, arXiv 2003.01690, section 4.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.APGDCE(eps=2 / 255, max_iter=50).name
        'apgd-ce'
    """

    climbs: ClassVar[str] = "ce"


@attack("apgd-dlr")
@dataclass(frozen=True, kw_only=True)
class APGDDLR(_Untargeted):
    """APGD on the difference of logits ratio (DLR).

    Source: Croce & Hein 2020, arXiv 2003.01690, section 4 and equation 3.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.APGDDLR(eps=2 / 255).name
        'apgd-dlr'
    """

    climbs: ClassVar[str] = "dlr"
    ratio: ClassVar[bool] = True


@attack("apgd-t")
@dataclass(frozen=True, kw_only=True)
class APGDT(_Ascent, TargetedInTurn):
    """APGD on the targeted DLR loss, towards each of the most likely other classes in turn.

    Source: Croce & Hein 2020, arXiv 2003.01690, section 4 and equation 4.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.APGDT(eps=2 / 255).name
        'apgd-t'
    """

    climbs: ClassVar[str] = "dlr"
    ratio: ClassVar[bool] = True

    def cost(self, classes: int) -> Counts:
        """Return a gradient for each step and start, and two queries of the clean input."""
        return Counts(queries=2, gradients=self.restarts * self.aimed_at(classes) * (self.max_iter + 1))


class _Schedule:
    """The checkpoints of section 3.2: p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06), as iterations."""

    def __init__(self, max_iter: int) -> None:
        self.since = max(int(0.22 * max_iter), 1)
        self._least = max(int(0.06 * max_iter), 1)
        self._less = max(int(0.03 * max_iter), 1)
        self._next = self.since

    def due(self, iteration: int) -> bool:
        return iteration == self._next

    def passed(self) -> None:
        self.since = max(self.since - self._less, self._least)
        self._next += self.since


class _Progress:
    """Losses so far, and the step sizes that follow from them."""

    def __init__(self, loss: NDArray[np.float32], size: NDArray[np.float32]) -> None:
        self.size = size
        self.best = loss.copy()
        self._losses = [loss]
        self._best_at_check = loss.copy()
        self._halved = np.ones(len(loss), np.bool_)

    def take(self, stay: NDArray[np.int64]) -> _Progress:
        kept = _Progress(self._losses[-1][stay], self.size[stay])
        kept.best = self.best[stay]
        kept._losses = [loss[stay] for loss in self._losses]
        kept._best_at_check = self._best_at_check[stay]
        kept._halved = self._halved[stay]
        return kept

    def add(self, loss: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Record the loss after a step; return for which samples it is the best so far."""
        self._losses.append(loss)
        better = loss > self.best
        self.best = np.where(better, loss, self.best)
        return np.asarray(better)

    def halve(self, steps: int) -> NDArray[np.bool_]:
        """Halve the step size where the last ``steps`` steps made too little progress (conditions 1 and 2)."""
        recent = np.stack(self._losses[-steps - 1 :])
        rising = (recent[1:] > recent[:-1]).sum(axis=0)
        oscillates = rising <= steps * _RHO
        stuck = ~self._halved & (self._best_at_check >= self.best)
        halved = oscillates | stuck
        self._halved, self._best_at_check = halved, self.best.copy()
        self.size = np.where(halved, self.size / 2, self.size).astype(np.float32)
        return np.asarray(halved)
