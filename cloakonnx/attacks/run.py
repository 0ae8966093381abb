"""One run of an attack on a batch: who is still active, and what became of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.random import Stream

if TYPE_CHECKING:
    from cloakonnx.attacks.victim import Victim
    from cloakonnx.runtime.session import Value


@dataclass(frozen=True, eq=False)
class Adversarial:
    """The result of an attack on a batch.

    Attributes:
        x: Adversarial inputs, (N, ...) float32 pixels in the model's layout, inside ball and bounds.
        success: (N,) bool: the model predicts another class than the label (targeted: the target).
        converged: (N,) bool: more steps change nothing, as every restart ran into an exact cycle.
    """

    x: NDArray[np.float32]
    success: NDArray[np.bool_]
    converged: NDArray[np.bool_]


class Run:
    """A batch under attack; samples leave it while restarts go on.

    Args:
        victim: The classifier.
        x: (N, ...) the clean inputs.
        y: (N,) labels; targeted: the classes to reach.
        samples: (N,) indices of the samples in the whole data.
        targeted: Whether the labels are the classes to reach.

    Attributes:
        clean: The clean inputs.
        x: (N, ...) the input of each sample so far.
        success: (N,) which samples fool the model.
        active: Rows of the samples that are still attacked.
        repeats: (N,) in how many restarts each sample ran into an exact cycle.
        restarts: How many restarts were made.
        kept: State that an attack keeps between restarts.
    """

    def __init__(
        self,
        victim: Victim,
        x: NDArray[np.float32],
        y: NDArray[np.int64],
        samples: NDArray[np.int64],
        *,
        targeted: bool,
    ) -> None:
        self.victim, self.clean, self.y, self.samples, self.targeted = victim, x, y, samples, targeted
        self.x = x.copy()
        self.success = np.zeros(len(x), np.bool_)
        self.active = np.arange(len(x))
        self.repeats, self.restarts = np.zeros(len(x), np.int64), 0
        self.kept: Any = None

    def drop_fooled(self) -> None:
        """Drop the samples that are misclassified already; they stay unchanged."""
        done = self.fooled(self.victim.logits(self.clean))
        self.won(done, self.clean)
        self.drop(done)

    def stream(self, seed: int, name: str, number: int) -> Stream:
        """Return the random numbers of the active samples for a restart of an attack."""
        return Stream.of(seed, name, number, self.samples[self.active])

    def fooled(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which active samples these logits say are fooled."""
        return self.victim.task.fooled(logits, self.y[self.active], targeted=self.targeted)

    def won(self, which: NDArray[np.bool_], x: Value) -> None:
        """Record the active samples of a mask as won with these inputs."""
        if which.any():
            rows = self.active[which]
            self.x[rows] = self.victim.on_host(x)[which]
            self.success[rows] = True

    def ended(self, x: Value) -> None:
        """Record what the active samples ended with; samples that have won keep what won."""
        keep = ~self.success[self.active]
        self.x[self.active[keep]] = self.victim.on_host(x)[keep]

    def drop(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Take the samples of a mask out of the batch; return the positions of the others."""
        stay = np.flatnonzero(~which)
        self.active = self.active[stay]
        return stay

    def result(self) -> Adversarial:
        """Return the result."""
        converged = ~self.success & (self.repeats == self.restarts) & (self.restarts > 0)
        return Adversarial(self.x, self.success, converged)
