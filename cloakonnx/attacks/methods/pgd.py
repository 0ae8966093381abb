"""FGSM (Goodfellow et al. 2015, arXiv 1412.6572) and PGD (Madry et al. 2018, arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import GradientAttack, attack, setting
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.cycles import Cycles
from cloakonnx.attacks.run import Run
from cloakonnx.errors import OptionError
from cloakonnx.gradient.losses import ATTACKED

if TYPE_CHECKING:
    from cloakonnx.runtime.session import Value

_STEP_FACTOR = 2.5
"""Default eps_step: 2.5 eps / max_iter, so that the walk can cross the ball (Madry et al. 2018, appendix)."""

_MOST = 1000
"""Steps of ``--max-iter converged`` for samples that run into no cycle before."""


@attack("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of size eps along the sign (Linf) or the direction (L2) of the gradient; every sample is moved.

    Attributes:
        loss: What the step increases.
        targeted: Whether the labels are the classes to reach.

    Source: Goodfellow et al. 2015, arXiv 1412.6572.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.FGSM(eps=2 / 255).name
        'fgsm'
    """

    leaves_early: ClassVar[bool] = False

    loss: str = setting("ce", "Loss that the steps increase.", choices=ATTACKED)
    targeted: bool = setting(False, "Whether the labels are the classes to reach.")

    def cost(self, classes: int) -> Counts:
        """Return a gradient, and a query of what it leads to."""
        return Counts(queries=1, gradients=1)

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Step once."""
        victim, y = run.victim, run.y
        arithmetic = victim.arithmetic(run.clean.ndim, self.norm)
        start = arithmetic.put(run.clean)
        answer = victim.climb(start, y, loss=self.loss, targets=y if self.targeted else None)
        size = np.full(len(y), self.eps, np.float32)
        moved = arithmetic.step(start, answer.gradient, start, size=size, eps=self.eps)
        run.ended(moved)
        run.success = run.fooled(victim.logits(moved))


@attack("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient ascent from random starts.

    With ``early_stop`` a sample leaves the batch as soon as it is fooled, the clean input included; without it every
    sample takes all steps, and ends where the last restart ends.

    A sample that runs into an exact cycle leaves as well, where all steps would have left it.

    Attributes:
        eps_step: Step size; 2.5 eps / max_iter where None.
        max_iter: Steps per restart.
        restarts: Random starts; samples that are fooled leave after each.
        loss: The loss that the steps increase.
        targeted: Whether the labels are the classes to reach.
        random_start: Whether the first start is random in the ball; it is the clean input where not.

    Source: Madry et al. 2018, arXiv 1706.06083.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.PGD(eps=2 / 255, max_iter=20, restarts=2).name
        'pgd'
    """

    eps_step: float | None = setting(None, "Step size.", shown="2.5 eps / max-iter")
    max_iter: int = setting(40, "Steps per restart.", least=1)
    restarts: int = setting(1, "Random starts.", least=1)
    loss: str = setting("ce", "Loss that the steps increase.", choices=ATTACKED)
    targeted: bool = setting(False, "Whether the labels are the classes to reach.")
    random_start: bool = setting(True, "Whether the first start is random.", fixed=True)

    def __post_init__(self) -> None:
        """Check the settings; raises OptionError."""
        super().__post_init__()
        if self.eps_step is not None and not self.eps_step > 0:
            raise OptionError(f"{{eps_step}} {self.eps_step:g} must be above 0", parameter="eps_step")

    @classmethod
    def until_converged(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings of 1,000 steps as long as those of the default number; most samples leave far earlier."""
        short = cls.settings()["max_iter"].default
        eps_step = given.get("eps_step")
        if eps_step is None:
            eps_step = _STEP_FACTOR * given["eps"] / short
        return {**given, "max_iter": _MOST, "eps_step": eps_step}

    def cost(self, classes: int) -> Counts:
        """Return a gradient for each step, a query of each end and of the clean input."""
        return Counts(queries=1 + self.restarts, gradients=self.restarts * self.max_iter)

    def recorded(self, key: str) -> Any:
        """Return the step size where none was given."""
        value = super().recorded(key)
        return _STEP_FACTOR * self.eps / self.max_iter if key == "eps_step" and value is None else value

    def record(self) -> dict[str, Any]:
        """Return the settings for records; the start is in them only where it is not random."""
        found = super().record()
        if self.random_start:
            del found["random_start"]
        return found

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Walk once."""
        clean = run.clean[run.active]
        arithmetic = run.victim.arithmetic(run.clean.ndim, self.norm)
        origin = arithmetic.put(clean)
        start = origin
        if self.random_start or number:
            inside = ball(self.norm, self.eps).inside(run.stream(self.seed, "pgd", number), clean)
            start = arithmetic.project(inside, origin, eps=self.eps)
        self._walk(run, start, origin)

    def _walk(self, run: Run, x: Value, origin: Value) -> None:
        victim, arithmetic = run.victim, run.victim.arithmetic(run.clean.ndim, self.norm)
        step = np.float32(self.recorded("eps_step"))
        cycles = None
        if self.early_stop and self.max_iter > 1 and not victim.is_random:
            cycles = Cycles(victim.on_host(x), self.max_iter)
        left: list[NDArray[np.int64]] = []
        for number in range(1, self.max_iter + 1):
            y = run.y[run.active]
            answer = victim.climb(x, y, loss=self.loss, targets=y if self.targeted else None)
            gradient = answer.gradient
            done = run.fooled(answer.logits)
            if self.early_stop and done.any():
                run.won(done, x)
                stay = run.drop(done)
                if not len(stay):
                    break
                x, origin, gradient = (arithmetic.take(v, stay) for v in (x, origin, gradient))
                if cycles is not None:
                    cycles.keep(stay)
            size = np.full(len(run.active), step, np.float32)
            x = arithmetic.step(x, gradient, origin, size=size, eps=self.eps)
            if cycles is None:
                continue
            leave = cycles.look(victim.on_host(x), number)
            run.repeats[run.active[cycles.found & (cycles.leaves == number)]] += 1
            if number < self.max_iter and leave.any():
                stay, everyone = np.flatnonzero(~leave), run.active
                run.active = everyone[leave]
                self._end(run, arithmetic.take(x, np.flatnonzero(leave)))
                left.append(run.active)
                run.active = everyone[stay]
                if not len(stay):
                    break
                x, origin = arithmetic.take(x, stay), arithmetic.take(origin, stay)
                cycles.keep(stay)
        if len(run.active):
            self._end(run, x)
        run.active = np.sort(np.concatenate([run.active, *left]))

    def _end(self, run: Run, x: Value) -> None:
        """Judge where the active samples end."""
        done = run.fooled(run.victim.logits(x))
        run.won(done, x)
        run.ended(x)
        if self.early_stop:
            run.drop(done)
