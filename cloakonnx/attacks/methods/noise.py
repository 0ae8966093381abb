"""Random noise of size eps: a control; an attack must fool far more samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import Attack, attack, setting
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.run import Run


@attack("noise")
@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Random noise of size eps: signs (Linf) or a direction (L2), clipped to the bounds.

    Attributes:
        restarts: How many draws; the last one stands where none fools.
        targeted: Whether the labels are the classes to reach.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.attacks.Noise(eps=2 / 255).name
        'noise'
    """

    restarts: int = setting(1, "Random starts.", least=1)
    targeted: bool = setting(False, "Whether the labels are the classes to reach.")

    def cost(self, classes: int) -> Counts:
        """Return a query for the clean input and one for each draw."""
        return Counts(queries=1 + self.restarts)

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Draw once."""
        noisy = ball(self.norm, self.eps).corner(run.stream(self.seed, "noise", number), run.clean[run.active])
        moved = np.clip(noisy, *run.victim.bounds).astype(np.float32)
        done = run.fooled(run.victim.logits(moved))
        run.won(done, moved)
        run.ended(moved)
        if self.early_stop:
            run.drop(done)
