"""What an attack gives back, and the batch that it works on while samples leave it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.arithmetic import Norm, check_eps
from cloakonnx.attacks.victim import Victim
from cloakonnx.errors import OptionError
from cloakonnx.runtime.session import Value, to_numpy

TARGETS = 9
"""Classes that a targeted attack tries, the most likely first (Croce & Hein 2020, arXiv 2003.01690)."""


@dataclass(frozen=True, eq=False)
class Adversarial:
    """The result of an attack on a batch.

    Attributes:
        x: Adversarial inputs, (N, ...) float32 pixels in the model's layout, inside ball and bounds.
        success: (N,) bool: the model predicts another class than the label (targeted: the target).
    """

    x: NDArray[np.float32]
    success: NDArray[np.bool_]


def check_settings(
    victim: Victim,
    x: NDArray[np.float32],
    *,
    eps: float,
    norm: Norm,
    max_iter: int = 1,
    restarts: int = 1,
    eps_step: float | None = None,
) -> None:
    """Check what all attacks share.

    Raises:
        OptionError: a ball that makes no sense (:func:`check_eps`), or a count below 1.
    """
    check_eps(eps, norm=norm, bounds=victim.bounds, values=math.prod(x.shape[1:]))
    if max_iter < 1 or restarts < 1:
        raise OptionError("--max-iter and --restarts must be at least 1")
    if eps_step is not None and not eps_step > 0:
        raise OptionError(f"--eps-step {eps_step:g} must be above 0")


class Run:
    """Collects results while samples leave the batch.

    Args:
        x: (N, ...) the clean inputs.
    """

    def __init__(self, x: NDArray[np.float32]) -> None:
        self.x = x.copy()
        self.success = np.zeros(len(x), np.bool_)
        self.active = np.arange(len(x))

    @classmethod
    def of(
        cls, victim: Victim, x: NDArray[np.float32], y: NDArray[np.int64], *, targeted: bool, early_stop: bool
    ) -> Run:
        """Start on a batch; with ``early_stop`` the samples that are fooled as they are leave at once, unchanged."""
        run = cls(x)
        if early_stop:
            done = victim.task.fooled(victim.logits(x), y, targeted=targeted)
            run.won(done, x)
            run.drop(done)
        return run

    def won(self, which: NDArray[np.bool_], x: Value) -> None:
        """Record the active samples of a mask as won with these inputs."""
        if which.any():
            rows = self.active[which]
            self.x[rows] = to_numpy(x)[which]
            self.success[rows] = True

    def ended(self, x: Value) -> None:
        """Record what the active samples ended with; samples that have won keep what won."""
        keep = ~self.success[self.active]
        self.x[self.active[keep]] = to_numpy(x)[keep]

    def drop(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Take the samples of a mask out of the batch; return the positions of the others."""
        stay = np.flatnonzero(~which)
        self.active = self.active[stay]
        return stay

    def result(self) -> Adversarial:
        """Return the result."""
        return Adversarial(self.x, self.success)
