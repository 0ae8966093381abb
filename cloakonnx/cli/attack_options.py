"""Options of an attack for several verbs: made from the settings of the attacks that are registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field
from typing import Any, TypedDict

import click

from cloakonnx.attacks.base import CONVERGED, Attack, make, plugins, registered
from cloakonnx.cli._types import Number, Steps
from cloakonnx.cli.options import DataOptions, F, group
from cloakonnx.text import parse_number

_ORDER = ("eps_step", "max_iter", "restarts", "norm", "loss", "straight_through", "seed")
"""Settings in the order of the help; those of new attacks follow."""

_APART = {"eps", "targeted"}
"""Settings with an option of their own: several eps, and a flag that only some verbs have."""


class AttackOptions(TypedDict):
    """Values of :func:`attack_options`; a setting that no option is given for is None or False."""

    attack: str
    eps: str
    seed: int


class AttackAndDataOptions(AttackOptions, DataOptions):
    """Values of both groups."""


def attack_options(*, required: bool) -> Callable[[F], F]:
    """Which attack, and how."""
    names = [*registered(), *plugins()]
    return group(
        click.option("--attack", required=required, help=f"{', '.join(names[:-1])} or {names[-1]}."),
        click.option(
            "--eps", required=required, metavar="NUMBER", help="Radius of the ball in pixel space: 8/255, say."
        ),
        *(_option(name, users) for name, users in _offered().items()),
    )


def attack_settings(
    options: AttackOptions, *, targeted: bool = False, early_stop: bool = True
) -> list[tuple[Attack, str]]:
    """Return the attack for each eps, with the eps as it was written."""
    found = []
    values: dict[str, Any] = {**options}
    given = {name: values[name] for name in _offered() if name in values}
    if not early_stop and given.get("max_iter") == CONVERGED:
        raise click.UsageError(
            f"--max-iter {CONVERGED} goes with attack, evaluate and sweep; pairs of clean and adversarial samples are "
            "scored after the last step of each: give a number"
        )
    for text in options["eps"].split(","):
        try:
            eps = parse_number(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a number like 0.03 or 8/255", param_hint="'--eps'") from None
        attack = make(options["attack"], eps=eps, **given, targeted=targeted, early_stop=early_stop)
        found.append((attack, text.strip()))
    if len({attack.eps for attack, _ in found}) < len(found):
        raise click.BadParameter("names the same number twice", param_hint="'--eps'")
    return found


def _offered() -> dict[str, dict[str, Field[Any]]]:
    """Return the settings that options are for: each with its field in every attack that has it."""
    found: dict[str, dict[str, Field[Any]]] = {name: {} for name in _ORDER}
    for attack, cls in registered().items():
        for name, setting in cls.settings().items():
            if name not in _APART and not setting.metadata["fixed"]:
                found.setdefault(name, {})[attack] = setting
    return found


def _option(name: str, users: dict[str, Field[Any]]) -> Callable[[F], F]:
    """Return the option of a setting; where attacks have defaults of their own they stand in the help."""
    first = next(iter(users.values()))
    flag, words = f"--{name.replace('_', '-')}", _words(users)
    if len({_default(each) for each in users.values()}) == 1 and len(users) < 3:
        words = f"{words.removesuffix('.')} ({', '.join(users)})."
    if first.default is False:
        return click.option(flag, is_flag=True, help=words)
    kinds: dict[str, click.ParamType[Any]] = {"int": click.IntRange(min=first.metadata["least"]), "str": click.STRING}
    kind = kinds.get(str(first.type).partition(" ")[0], Number())
    if name == "max_iter":
        kind = Steps()
    if first.metadata["choices"]:
        kind = click.Choice([str(each) for each in first.metadata["choices"]])
    if len(users) == len(registered()):  # every attack has it, with the same default
        return click.option(flag, type=kind, default=first.default, show_default=True, help=words)
    return click.option(flag, type=kind, help=f"{words}  [{_defaults(users)}]")


def _words(users: dict[str, Field[Any]]) -> str:
    """Return what the attacks say of a setting, each sentence once."""
    said: dict[str, list[str]] = {}
    for attack, setting in users.items():
        said.setdefault(setting.metadata["help"], []).append(attack)
    if len(said) == 1:
        return next(iter(said))
    return " ".join(f"{', '.join(attacks)}: {words}" for words, attacks in said.items())


def _defaults(users: dict[str, Field[Any]]) -> str:
    """Return the defaults in words, with the attacks that have them."""
    by_default: dict[str, list[str]] = {}
    for attack, setting in users.items():
        by_default.setdefault(_default(setting), []).append(attack)
    if len(by_default) == 1:
        return next(iter(by_default))
    return ", ".join(f"{', '.join(attacks)} {shown}" for shown, attacks in by_default.items())


def _default(setting: Field[Any]) -> str:
    return setting.metadata["shown"] or ("none" if setting.default in {None, MISSING} else str(setting.default))
