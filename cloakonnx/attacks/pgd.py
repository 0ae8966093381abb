"""FGSM (Goodfellow et al. 2015, arXiv 1412.6572) and PGD (Madry et al. 2018, arXiv 1706.06083)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks._run import Adversarial, Run, check_settings
from cloakonnx.attacks.arithmetic import Arithmetic, Norm
from cloakonnx.attacks.noise import inside_ball
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.gradient.losses import Loss
from cloakonnx.runtime.session import Value

_STEP_FACTOR = 2.5
"""Default eps_step: 2.5 eps / max_iter, so that the walk can cross the ball (Madry et al. 2018, appendix)."""


def fgsm(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    eps: float,
    norm: Norm = "linf",
    loss: Loss = Loss.CE,
    targeted: bool = False,
) -> Adversarial:
    """One step of size eps along the sign (Linf) or the direction (L2) of the gradient; every sample is moved.

    Args:
        victim: The classifier.
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) labels; targeted: the classes to reach.
        eps: Radius of the ball, in pixel space.
        norm: The ball's norm.
        loss: What the step increases.
        targeted: Whether y are targets.

    Raises:
        OptionError: eps that makes no sense.
    """
    check_settings(victim, x, eps=eps, norm=norm)
    victim.check_labels(y)
    arithmetic = victim.arithmetic(x.ndim, norm)
    start = arithmetic.put(x)
    answer = victim.gradient(start, y, loss=loss.climbed, targets=y if targeted else None)
    moved = arithmetic.step(start, answer.gradient, start, size=np.full(len(x), eps, np.float32), eps=eps)
    run = Run(x)
    run.ended(moved)
    run.success = victim.task.fooled(victim.logits(moved), y, targeted=targeted)
    return run.result()


def pgd(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    eps: float,
    eps_step: float | None = None,
    max_iter: int = 40,
    norm: Norm = "linf",
    restarts: int = 1,
    random_start: bool = True,
    loss: Loss = Loss.CE,
    targeted: bool = False,
    early_stop: bool = True,
    seed: int = 0,
    samples: NDArray[np.int64] | None = None,
) -> Adversarial:
    """Projected gradient ascent from random starts.

    Args:
        victim: The classifier.
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) labels; targeted: the classes to reach.
        eps: Radius of the ball, in pixel space.
        eps_step: Size of a step; 2.5 eps / max_iter where None.
        max_iter: Steps a restart.
        norm: The ball's norm.
        restarts: Random starts; samples that are fooled leave after each.
        random_start: Whether to start at random in the ball; the first start is the input itself where not.
        loss: What the steps increase.
        targeted: Whether y are targets.
        early_stop: Whether a sample leaves the batch as soon as it is fooled, the clean input included; where not,
            every sample takes all steps, and ends where the last restart ends.
        seed: Of the random starts.
        samples: (N,) indices of the samples in the whole data, for their random numbers; 0 to N - 1 where None.

    Raises:
        OptionError: eps, eps_step, max_iter or restarts that make no sense.
    """
    check_settings(victim, x, eps=eps, norm=norm, max_iter=max_iter, restarts=restarts, eps_step=eps_step)
    victim.check_labels(y)
    size = np.float32(_STEP_FACTOR * eps / max_iter if eps_step is None else eps_step)
    arithmetic = victim.arithmetic(x.ndim, norm)
    indices = np.arange(len(x)) if samples is None else samples
    run = Run.of(victim, x, y, targeted=targeted, early_stop=early_stop)
    for restart in range(restarts):
        rows = run.active
        if not len(rows):
            break
        origin = arithmetic.put(x[rows])
        start = origin
        if random_start or restart:
            stream = Stream.of(seed, "pgd", restart, indices[rows])
            start = arithmetic.project(inside_ball(stream, x[rows], eps=eps, norm=norm), origin, eps=eps)
        walk = _Walk(victim, arithmetic, run, y, eps=eps, size=size, loss=loss, targeted=targeted, leave=early_stop)
        walk.go(start, origin, max_iter)
    return run.result()


class _Walk:
    """One restart."""

    def __init__(
        self,
        victim: Victim,
        arithmetic: Arithmetic,
        run: Run,
        y: NDArray[np.int64],
        *,
        eps: float,
        size: np.float32,
        loss: Loss,
        targeted: bool,
        leave: bool,
    ) -> None:
        self._victim, self._arithmetic, self._keeper, self._y = victim, arithmetic, run, y
        self._eps, self._size, self._loss, self._targeted, self._leave = eps, size, loss.climbed, targeted, leave

    def go(self, x: Value, origin: Value, max_iter: int) -> None:
        for _ in range(max_iter):
            y = self._y[self._keeper.active]
            answer = self._victim.gradient(x, y, loss=self._loss, targets=y if self._targeted else None)
            gradient = answer.gradient
            done = self._victim.task.fooled(answer.logits, y, targeted=self._targeted)
            if self._leave and done.any():
                self._keeper.won(done, x)
                stay = self._keeper.drop(done)
                if not len(stay):
                    return
                x, origin, gradient = (self._arithmetic.take(v, stay) for v in (x, origin, gradient))
            size = np.full(len(self._keeper.active), self._size, np.float32)
            x = self._arithmetic.step(x, gradient, origin, size=size, eps=self._eps)
        y = self._y[self._keeper.active]
        done = self._victim.task.fooled(self._victim.logits(x), y, targeted=self._targeted)
        self._keeper.won(done, x)
        self._keeper.ended(x)
        if self._leave:
            self._keeper.drop(done)
