"""Which attacks an evaluation makes, a preset or one by its name, and the controls beside them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, TypedDict

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import CONVERGED, Attack, TargetedInTurn, make
from cloakonnx.errors import OptionError
from cloakonnx.gradient.losses import Loss, classes_needed

PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    "quick": (
        {"name": "pgd", "max_iter": 20, "restarts": 2},
        {"name": "apgd-ce", "max_iter": 50},
        {"name": "square", "max_iter": 500},
    ),
    "standard": (
        {"name": "apgd-ce", "max_iter": 100, "restarts": 1},
        {"name": "apgd-t", "max_iter": 100, "restarts": 1},
        {"name": "fab-t", "max_iter": 100, "restarts": 1},
        {"name": "square", "max_iter": 5000, "restarts": 1},
    ),
}
"""Name to its attacks, in order; each is made on the survivors of those before.

``standard`` has the attacks, the order and the budgets of AutoAttack's standard version (Croce & Hein 2020, arXiv
2003.01690, and its published code): 9 targets each for APGD-T and FAB-T, squares of 0.8 at first.
"""


class PlanSettings(TypedDict, total=False):
    """Settings of the attacks of an evaluation, beside eps.

    Attributes:
        norm: Norm of the balls.
        max_iter: Steps of a single attack, or of a preset's attacks by gradients; ``converged`` for a single PGD until
            more change nothing.
        restarts: Random starts of a single attack.
        straight_through: Whether gradients pass rounding and quantisation as identity (BPDA).
        seed: Random seed.
    """

    norm: Literal["linf", "l2"]
    max_iter: int | str | None
    restarts: int | None
    straight_through: bool
    seed: int


def plan(
    name: str,
    *,
    eps: float,
    norm: Literal["linf", "l2"] = "linf",
    max_iter: int | str | None = None,
    restarts: int | None = None,
    straight_through: bool = False,
    seed: int = 0,
) -> tuple[Attack, ...]:
    """Return the attacks that a preset or an attack's name stands for, at one eps.

    Raises:
        OptionError: an unknown name, or a setting that it does not take.
    """
    if name in PRESETS:
        if restarts is not None or max_iter == CONVERGED:
            raise OptionError(
                f"{name} has its own {{restarts}}, and takes a number of {{max_iter}}; {{restarts}} and {{max_iter}} "
                f"{CONVERGED} go with a single attack (pgd, say)",
                parameter=("max_iter", "restarts"),
            )
        attacks = [make(eps=eps, norm=norm, seed=seed, **each) for each in PRESETS[name]]
        if max_iter is not None:
            attacks = [each.with_settings(max_iter=max_iter) if each.by_gradient else each for each in attacks]
        return passing(attacks) if straight_through else tuple(attacks)
    given = {"max_iter": max_iter, "restarts": restarts, "straight_through": straight_through}
    return (make(name, presets=tuple(PRESETS), eps=eps, norm=norm, seed=seed, **given),)


def passing(attacks: Sequence[Attack]) -> tuple[Attack, ...]:
    """Return attacks with straight-through gradients, where they use any."""
    return tuple(each.with_settings(straight_through=True) for each in attacks)


def replaced(attacks: Sequence[Attack], *, classes: int) -> tuple[str, ...]:
    """Say in words which losses and how many targets the attacks take instead of their own, for lack of classes."""
    ratio = list(dict.fromkeys(each.name for each in attacks if each.ratio))
    in_turn = [each for each in attacks if isinstance(each, TargetedInTurn)]
    targeted = list(dict.fromkeys(each.name for each in in_turn))
    notes = []
    needed = classes_needed(Loss.DLR)
    if ratio and classes < needed:
        notes.append(
            f"{' and '.join(ratio)}: the margin instead of DLR, which needs {needed} classes; there are {classes}"
        )
    if targeted and classes - 1 < in_turn[0].targets:
        count = f"{classes - 1} target" + ("s" if classes > 2 else "")
        notes.append(f"{' and '.join(targeted)}: {count} instead of {in_turn[0].targets}; there are {classes} classes")
    return tuple(notes)


def check_eps(
    eps: Sequence[float], *, norm: Literal["linf", "l2"], bounds: tuple[float, float], shape: tuple[int, ...]
) -> None:
    """Check the radii before any work is done.

    Raises:
        OptionError: none, one twice, one that is not above 0, or one that is wider than pixel space.
    """
    if not eps or len(set(eps)) < len(eps):
        raise OptionError("{eps} needs numbers that differ, such as 1/255,2/255", parameter="eps")
    for each in eps:
        if not each > 0:
            raise OptionError(f"{{eps}} {each:g} must be above 0; clean accuracy is always given", parameter="eps")
        ball(norm, each).check(bounds, prod(shape))
