"""Attacks on the command line: options made from the settings of the registered attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import click
from click.core import ParameterSource

from cloakonnx.attacks.base import CONVERGED, Attack, make, plugins, registered
from cloakonnx.cli._completion import attacks
from cloakonnx.cli._data import warn_of_small_eps
from cloakonnx.cli._types import Number, Steps
from cloakonnx.cli._verb import Group, Placed
from cloakonnx.text import parse_number

if TYPE_CHECKING:
    from cloakonnx.data.samples import Dataset

_ORDER = ("eps_step", "max_iter", "restarts", "norm", "loss", "straight_through", "seed")
"""Settings in the order of the help; those of new attacks follow."""

_APART = {"eps", "targeted"}
"""Settings with an option of their own: several eps, and a flag that only some verbs have."""


@dataclass(frozen=True, kw_only=True)
class Attacks(Group):
    """An attack at one eps or several.

    Attributes:
        attack: Its name.
        eps: Radii, as they were written.
        settings: Its other options by name; None or False where they were not given.
    """

    required: ClassVar[bool] = True

    attack: str | None
    eps: str | None
    settings: Mapping[str, Any]

    @classmethod
    def options(cls) -> Iterator[Placed]:
        """Yield the attack, its eps, and the settings of all attacks."""
        names = [*registered(), *plugins()]
        known = f"Name of the attack: {', '.join(names[:-1])} or {names[-1]}."
        yield Placed(click.Option(["--attack"], required=cls.required, help=known, shell_complete=attacks))
        eps = "Radius of the eps ball in pixel space, such as 8/255."
        yield Placed(click.Option(["--eps"], required=cls.required, metavar="NUMBER", help=eps))
        yield from (Placed(_option(name, users)) for name, users in _offered().items())

    @classmethod
    def made(cls, values: Mapping[str, Any]) -> Self:
        """Return the group with the values that click parsed."""
        settings = {name: values[name] for name in _offered() if name in values}
        return cls(attack=values["attack"], eps=values["eps"], settings=settings)

    @property
    def seed(self) -> int:
        """The random seed."""
        return int(self.settings["seed"])

    @property
    def texts(self) -> list[str]:
        """Each eps as it was written."""
        return [text.strip() for text in (self.eps or "").split(",")]

    def attacks(self, *, targeted: bool = False, early_stop: bool = True) -> list[Attack]:
        """Return the attack for each eps.

        Raises:
            UsageError: an eps that is no number, or steps without a number where samples are scored after the last.
            OptionError: the attack has no such setting.
        """
        if not early_stop and self.settings.get("max_iter") == CONVERGED:
            raise click.UsageError(
                f"--max-iter {CONVERGED} goes with attack, evaluate and sweep; pairs of clean and adversarial samples "
                "are scored after the last step of each: give a number"
            )
        found = [
            make(str(self.attack), eps=_number(text), **self.settings, targeted=targeted, early_stop=early_stop)
            for text in self.texts
        ]
        if len({attack.eps for attack in found}) < len(found):
            raise click.BadParameter("names the same number twice", param_hint="'--eps'")
        return found

    def attack_of(self, dataset: Dataset) -> Attack:
        """Return the one attack for adversarial versions of samples; warn where its eps is very small."""
        (attack,) = self.attacks(early_stop=False)
        warn_of_small_eps([attack.eps], dataset)
        return attack


@dataclass(frozen=True, kw_only=True)
class MaybeAttack(Attacks):
    """An attack, where no file has the adversarial samples."""

    required: ClassVar[bool] = False

    def check_unneeded(self) -> None:
        """Check, where no attack is made, that the command line has no settings of one; a file's are for others."""
        source = click.get_current_context().get_parameter_source
        for name in self.settings:
            if name != "seed" and source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --attack: no attack is made here")


def _number(text: str) -> float:
    try:
        return parse_number(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number like 0.03 or 8/255", param_hint="'--eps'") from None


def _offered() -> dict[str, dict[str, Field[Any]]]:
    """Return the settings that options are for: each with its field in every attack that has it."""
    found: dict[str, dict[str, Field[Any]]] = {name: {} for name in _ORDER}
    for attack, cls in registered().items():
        for name, setting in cls.settings().items():
            if name not in _APART and not setting.metadata["fixed"]:
                found.setdefault(name, {})[attack] = setting
    return found


def _option(name: str, users: dict[str, Field[Any]]) -> click.Option:
    """Return the option of a setting; where attacks have defaults of their own they stand in the help."""
    first = next(iter(users.values()))
    flag, words = f"--{name.replace('_', '-')}", _words(users)
    if len({_default(each) for each in users.values()}) == 1 and len(users) < 3:
        words = f"{words.removesuffix('.')} ({', '.join(users)})."
    if first.default is False:
        return click.Option([flag], is_flag=True, help=words)
    kinds: dict[str, click.ParamType[Any]] = {"int": click.IntRange(min=first.metadata["least"]), "str": click.STRING}
    kind = kinds.get(str(first.type).partition(" ")[0], Number())
    if name == "max_iter":
        kind = Steps()
    if first.metadata["choices"]:
        kind = click.Choice([str(each) for each in first.metadata["choices"]])
    if len(users) == len(registered()):  # every attack has it, with the same default
        return click.Option([flag], type=kind, default=first.default, show_default=True, help=words)
    return click.Option([flag], type=kind, help=f"{words}  [{_defaults(users)}]")


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
