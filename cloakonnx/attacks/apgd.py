"""APGD: PGD with momentum whose step size adapts to the progress it makes (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks._run import TARGETS, Adversarial, Run, check_settings
from cloakonnx.attacks.arithmetic import Arithmetic, Norm
from cloakonnx.attacks.noise import on_sphere
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.gradient.losses import Loss
from cloakonnx.runtime.session import Value

_RHO = 0.75
"""Share of increasing steps below which the step size is halved (section 3.3)."""

_PULL = 0.75
"""Weight of the plain step against the last movement (eq. 4: alpha)."""


def apgd(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    eps: float,
    max_iter: int = 100,
    norm: Norm = "linf",
    restarts: int = 1,
    loss: Loss = Loss.CE,
    early_stop: bool = True,
    seed: int = 0,
    samples: NDArray[np.int64] | None = None,
) -> Adversarial:
    """APGD on the cross-entropy (APGD-CE) or the DLR loss (APGD-DLR).

    Args:
        victim: The classifier.
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) labels.
        eps: Radius of the ball, in pixel space.
        max_iter: Steps a restart.
        norm: The ball's norm.
        restarts: Random starts; samples that are fooled leave after each.
        loss: What the steps increase.
        early_stop: Whether a sample leaves the batch as soon as it is fooled; where not, it ends at its largest loss.
        seed: Of the random starts.
        samples: (N,) indices of the samples in the whole data; 0 to N - 1 where None.

    Raises:
        OptionError: eps, max_iter or restarts that make no sense.
    """
    setup = _Setup.of(
        victim, x, y, loss=loss, name=f"apgd-{loss.value}",
        eps=eps, max_iter=max_iter, norm=norm, early_stop=early_stop, seed=seed, samples=samples, restarts=restarts,
    )  # fmt: skip
    run = setup.begin()
    for restart in range(restarts):
        if len(run.active):
            setup.restart(run, restart)
    return run.result()


def apgd_targeted(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    eps: float,
    max_iter: int = 100,
    norm: Norm = "linf",
    restarts: int = 1,
    targets: int = TARGETS,
    early_stop: bool = True,
    seed: int = 0,
    samples: NDArray[np.int64] | None = None,
) -> Adversarial:
    """APGD on the targeted DLR loss, towards each of the most likely other classes in turn.

    Args:
        victim: The classifier.
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) labels.
        eps: Radius of the ball, in pixel space.
        max_iter: Steps a target and restart.
        norm: The ball's norm.
        restarts: Random starts a target.
        targets: How many classes, the most likely ones first; at most all but one.
        early_stop: Whether a sample leaves the batch as soon as it is fooled.
        seed: Of the random starts.
        samples: (N,) indices of the samples in the whole data; 0 to N - 1 where None.

    Raises:
        OptionError: eps, max_iter or restarts that make no sense.
    """
    setup = _Setup.of(
        victim, x, y, loss=Loss.DLR, name="apgd-t",
        eps=eps, max_iter=max_iter, norm=norm, early_stop=early_stop, seed=seed, samples=samples, restarts=restarts,
    )  # fmt: skip
    run = setup.begin()
    order = victim.task.others(victim.logits(x), y)
    for rank in range(min(targets, victim.classes - 1)):
        for restart in range(restarts):
            if len(run.active):
                setup.restart(run, rank * restarts + restart, targets=order[:, rank])
    return run.result()


@dataclass(frozen=True)
class _Setup:
    """What all runs of one call share; the fields are the arguments of :func:`apgd`."""

    victim: Victim
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    eps: float
    max_iter: int
    norm: Norm
    loss: Loss
    early_stop: bool
    name: str
    seed: int
    samples: NDArray[np.int64]
    arithmetic: Arithmetic

    @classmethod
    def of(cls, victim: Victim, x: NDArray[np.float32], y: NDArray[np.int64], **given: Any) -> _Setup:
        eps, norm = given["eps"], given["norm"]
        check_settings(victim, x, eps=eps, norm=norm, max_iter=given["max_iter"], restarts=given.pop("restarts"))
        victim.check_labels(y)
        samples = given.pop("samples")
        return cls(
            victim,
            x,
            y,
            samples=np.arange(len(x)) if samples is None else samples,
            arithmetic=victim.arithmetic(x.ndim, norm),
            **given,
        )

    def begin(self) -> Run:
        return Run.of(self.victim, self.x, self.y, targeted=False, early_stop=self.early_stop)

    def restart(self, run: Run, restart: int, *, targets: NDArray[np.int64] | None = None) -> None:
        rows = run.active
        stream = Stream.of(self.seed, self.name, restart, self.samples[rows])
        origin = self.arithmetic.put(self.x[rows])
        start = self.arithmetic.project(
            on_sphere(stream, self.x[rows], eps=self.eps, norm=self.norm), origin, eps=self.eps
        )
        _Run(self, run, targets).go(start, origin)


class _Run:
    """One restart: algorithm 1."""

    def __init__(self, setup: _Setup, run: Run, targets: NDArray[np.int64] | None) -> None:
        self.s, self.run, self.targets = setup, run, targets
        self.check = _Schedule(setup.max_iter)

    def _ask(self, x: Value) -> tuple[NDArray[np.bool_], NDArray[np.float32], Value]:
        rows = self.run.active
        targets = None if self.targets is None else self.targets[rows]
        answer = self.s.victim.gradient(x, self.s.y[rows], loss=self.s.loss.climbed, targets=targets)
        return self.s.victim.task.fooled(answer.logits, self.s.y[rows], targeted=False), answer.loss, answer.gradient

    def go(self, x: Value, origin: Value) -> None:
        math = self.s.arithmetic
        done, loss, gradient = self._ask(x)
        progress = _Progress(loss, np.full(len(loss), 2 * self.s.eps, np.float32))
        previous, best_x, best_gradient = x, x, gradient
        for iteration in range(self.s.max_iter + 1):
            self.run.won(done, x)
            if self.s.early_stop and done.any():
                stay = self.run.drop(done)
                if not len(stay):
                    return
                values = (x, previous, origin, gradient, best_x, best_gradient)
                x, previous, origin, gradient, best_x, best_gradient = (math.take(v, stay) for v in values)
                progress = progress.take(stay)
            if iteration == self.s.max_iter:
                break
            if self.check.due(iteration):
                halved = progress.halve(self.check.since)
                if halved.any():
                    x = math.where(halved, best_x, x)
                    gradient = math.where(halved, best_gradient, gradient)
                self.check.passed()
            step = math.momentum_step(
                x, previous, gradient, origin,
                size=progress.size, eps=self.s.eps, pull=_PULL if iteration else 1.0,
            )  # fmt: skip
            previous, x = x, step
            done, loss, gradient = self._ask(x)
            better = progress.add(loss)
            if better.any():
                best_x, best_gradient = math.where(better, x, best_x), math.where(better, gradient, best_gradient)
        self.run.ended(best_x)


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
