"""The attacks by name, with the settings that each takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks._run import TARGETS, Adversarial
from cloakonnx.attacks.apgd import apgd, apgd_targeted
from cloakonnx.attacks.arithmetic import Norm
from cloakonnx.attacks.fab import fab_targeted
from cloakonnx.attacks.noise import noise
from cloakonnx.attacks.pgd import fgsm, pgd
from cloakonnx.attacks.square import P_INIT, square
from cloakonnx.attacks.victim import Victim
from cloakonnx.errors import OptionError, nearest
from cloakonnx.gradient.losses import Loss

ATTACKS: dict[str, frozenset[str]] = {
    "fgsm": frozenset({"loss", "targeted", "straight_through"}),
    "pgd": frozenset({"eps_step", "max_iter", "restarts", "loss", "targeted", "straight_through"}),
    "apgd-ce": frozenset({"max_iter", "restarts", "straight_through"}),
    "apgd-dlr": frozenset({"max_iter", "restarts", "straight_through"}),
    "apgd-t": frozenset({"max_iter", "restarts", "straight_through"}),
    "fab-t": frozenset({"max_iter", "restarts", "straight_through"}),
    "square": frozenset({"max_iter", "restarts", "targeted"}),
    "noise": frozenset({"restarts", "targeted"}),
}
"""Name to the settings it takes beside eps, norm, early_stop and seed."""

GRADIENT_FREE = frozenset({"square", "noise"})
"""Attacks that ask for scores alone."""

_TARGETED: dict[str, Callable[..., Adversarial]] = {"apgd-t": apgd_targeted, "fab-t": fab_targeted}

MAX_ITER = {"pgd": 40, "apgd-ce": 100, "apgd-dlr": 100, "apgd-t": 100, "fab-t": 100, "square": 5000}


@dataclass(frozen=True)
class Settings:
    """An attack and its settings; None takes the attack's default.

    Attributes:
        attack: One of :data:`ATTACKS`.
        eps: Radius of the ball, in pixel space.
        norm: The ball's norm.
        eps_step: Step size (pgd).
        max_iter: Steps or queries a restart.
        restarts: Random starts.
        loss: What fgsm and pgd increase.
        targeted: Whether the labels are the classes to reach.
        early_stop: Whether samples leave once they are fooled, and those misclassified as they are stay unchanged.
        straight_through: Whether gradients pass rounding and quantisation as if they were not there (BPDA).
        seed: Of all random numbers.

    Raises:
        OptionError: an unknown attack, or a setting that it does not take.
    """

    attack: str
    eps: float
    norm: Norm = "linf"
    eps_step: float | None = None
    max_iter: int | None = None
    restarts: int | None = None
    loss: str | None = None
    targeted: bool = False
    early_stop: bool = True
    straight_through: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that the attack takes what is set."""
        if self.attack not in ATTACKS:
            raise OptionError(
                f"there is no attack {self.attack!r}; there are {', '.join(ATTACKS)}{nearest(self.attack, ATTACKS)}"
            )
        for name in ("eps_step", "max_iter", "restarts", "loss", "targeted", "straight_through"):
            if getattr(self, name) not in {None, False} and name not in ATTACKS[self.attack]:
                raise OptionError(f"{self.attack} takes no --{name.replace('_', '-')}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings with the defaults filled in, for records."""
        filled = {**asdict(self), "max_iter": self.max_iter or MAX_ITER.get(self.attack)}
        if "restarts" in ATTACKS[self.attack]:
            filled["restarts"] = self.restarts or 1
        if "loss" in ATTACKS[self.attack]:
            filled["loss"] = self.loss or Loss.CE.value
        if self.attack in _TARGETED:
            filled["targets"] = TARGETS
        if self.attack == "square":
            filled["p_init"] = P_INIT
        if self.attack == "pgd" and self.eps_step is None:
            filled["eps_step"] = 2.5 * self.eps / filled["max_iter"]
        return filled


def run_attack(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    settings: Settings,
    samples: NDArray[np.int64] | None = None,
) -> Adversarial:
    """Attack a batch.

    Args:
        victim: The classifier.
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) labels; targeted: the classes to reach.
        settings: Which attack, and how.
        samples: (N,) indices of the samples in the whole data, for their random numbers.

    Raises:
        OptionError: settings that make no sense for the model.
    """
    found = _run(victim, x, y, settings, samples=samples)
    return replace(found, success=victim.confirmed(found.x, found.success, y, targeted=settings.targeted))


def _run(
    victim: Victim,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    s: Settings,
    *,
    samples: NDArray[np.int64] | None,
) -> Adversarial:
    loss = Loss(s.loss) if s.loss else Loss.CE
    victim = victim.straight_through() if s.straight_through else victim
    common: dict[str, Any] = {"eps": s.eps, "norm": s.norm}
    if s.attack == "fgsm":
        return fgsm(victim, x, y, loss=loss, targeted=s.targeted, **common)
    common |= {"restarts": s.restarts or 1, "early_stop": s.early_stop, "seed": s.seed, "samples": samples}
    if s.attack == "noise":
        return noise(victim, x, y, targeted=s.targeted, **common)
    common["max_iter"] = s.max_iter or MAX_ITER[s.attack]
    if s.attack == "pgd":
        return pgd(victim, x, y, eps_step=s.eps_step, loss=loss, targeted=s.targeted, **common)
    if s.attack == "square":
        return square(victim, x, y, targeted=s.targeted, **common)
    if s.attack in _TARGETED:
        return _TARGETED[s.attack](victim, x, y, **common)
    return apgd(victim, x, y, loss=Loss.CE if s.attack == "apgd-ce" else Loss.DLR, **common)
