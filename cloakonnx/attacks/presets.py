"""Which attacks an evaluation makes: presets and attacks by their names."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, TypeAlias, TypedDict

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import CONVERGED, Attack, TargetedInTurn, find, make
from cloakonnx.errors import OptionError
from cloakonnx.gradient.losses import Loss, classes_needed

Names: TypeAlias = str | Sequence[str]
"""What an evaluation attacks with: a preset's or an attack's name, or several, in a list or with commas between."""

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
        max_iter: Steps of a single attack, or of those by gradients in a preset or a list; ``converged`` for PGD until
            more change nothing.
        restarts: Random starts of a single attack, or of those by gradients in a list.
        straight_through: Whether gradients pass rounding and quantisation as identity (BPDA).
        seed: Random seed.
    """

    norm: Literal["linf", "l2"]
    max_iter: int | str | None
    restarts: int | None
    straight_through: bool
    seed: int


def names_of(attack: Names) -> tuple[str, ...]:
    """Return the names, in their order; a text may have several with commas between.

    Raises:
        OptionError: no name, an empty one, or no text.
    """
    given = attack.split(",") if isinstance(attack, str) else attack
    if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise OptionError(f"{{attack}} takes names of attacks and presets, not {attack!r}", parameter="attack")
    names = tuple(each.strip() for each in given)
    if not names or not all(names):
        raise OptionError(
            f"{{attack}} {','.join(names)!r} has an empty name; names with commas between them, such as pgd,square",
            parameter="attack",
        )
    return names


def as_text(attack: Names) -> str:
    """Return the names as results have them and the command line takes them: with commas between."""
    return ",".join(names_of(attack))


def plan(
    attack: Names,
    *,
    eps: float,
    norm: Literal["linf", "l2"] = "linf",
    max_iter: int | str | None = None,
    restarts: int | None = None,
    straight_through: bool = False,
    seed: int = 0,
) -> tuple[Attack, ...]:
    """Return the attacks that names of presets and attacks stand for, at one eps.

    Raises:
        OptionError: an unknown name, an attack that is there twice, or a setting that is not taken.
    """
    names = names_of(attack)
    common = {"eps": eps, "norm": norm, "seed": seed}
    given = {"max_iter": max_iter, "restarts": restarts, "straight_through": straight_through}
    if len(names) == 1 and names[0] not in PRESETS:
        return (make(names[0], presets=tuple(PRESETS), **common, **given),)
    for name in names:
        if name in PRESETS and (restarts is not None or max_iter == CONVERGED):
            raise OptionError(
                f"{name} has its own {{restarts}}, and takes a number of {{max_iter}}; {{restarts}} and {{max_iter}} "
                f"{CONVERGED} go with attacks by name (pgd, say)",
                parameter=("max_iter", "restarts"),
            )
    return _made(names, common, {k: v for k, v in given.items() if v is not None and v is not False})


def _made(names: Sequence[str], common: dict[str, Any], given: dict[str, Any]) -> tuple[Attack, ...]:
    """Return the attacks of presets and lists: settings go to those by gradients, for queries are no steps."""
    entries = [(name, each) for name in names for each in PRESETS.get(name, ({"name": name},))]
    classes = [find(each["name"], presets=tuple(PRESETS)) for _, each in entries]
    _check_once(names, [(name, cls.name) for (name, _), cls in zip(entries, classes, strict=True)])
    taken = [given.keys() & cls.settings().keys() if cls.by_gradient else set() for cls in classes]
    for key in given:
        if not any(key in each for each in taken):
            raise OptionError(
                f"of several attacks those by gradients take {{{key}}}, and {','.join(names)} has none that does",
                parameter=key,
            )
    return tuple(
        make(**(common | each | {key: given[key] for key in keys}))
        for (_, each), keys in zip(entries, taken, strict=True)
    )


def _check_once(names: Sequence[str], made: Sequence[tuple[str, str]]) -> None:
    """Check that no attack is made twice; each comes with the name that brings it."""
    origins: dict[str, str] = {}
    for origin, attack in made:
        if attack in origins:
            presets = [each for each in dict.fromkeys((origins[attack], origin)) if each in PRESETS]
            why = f": {' and '.join(presets)} {'has' if len(presets) == 1 else 'have'} it" if presets else ""
            raise OptionError(
                f"{{attack}} {','.join(names)} makes {attack} twice{why}; name each attack once", parameter="attack"
            )
        origins[attack] = origin


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
