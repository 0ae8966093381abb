"""Options of the verbs that attack, as decorators, and what their values become."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, cast

import click

from cloakonnx.cli.options import DataOptions, F, group, norm_option, seed_option, straight_through_option
from cloakonnx.cli.types import Number
from cloakonnx.numbers import parse_number

if TYPE_CHECKING:
    from cloakonnx.attacks import Settings, Victim
    from cloakonnx.data import Dataset
    from cloakonnx.graph import Model
    from cloakonnx.runtime import Provider


_LOSSES = ["ce", "ce-softmax", "margin", "dlr"]
_NAMES = "fgsm, pgd, apgd-ce, apgd-dlr, apgd-t, fab-t, square or noise."


class AttackOptions(TypedDict):
    """Values of :func:`attack_options`."""

    attack: str
    eps: str
    eps_step: float | None
    max_iter: int | None
    restarts: int | None
    norm: str
    loss: str | None
    straight_through: bool
    seed: int


class AttackAndDataOptions(AttackOptions, DataOptions):
    """Values of both groups."""


def attack_options(*, required: bool) -> Callable[[F], F]:
    """Which attack, and how."""
    return group(
        click.option("--attack", required=required, help=_NAMES),
        click.option(
            "--eps", required=required, metavar="NUMBER", help="Radius of the ball in pixel space: 8/255, say."
        ),
        click.option("--eps-step", type=Number(), help="Step size of pgd.  [2.5 eps / max-iter]"),
        click.option("--max-iter", type=click.IntRange(min=1), help="Steps.  [pgd 40, apgd, fab-t 100, square 5000]"),
        click.option("--restarts", type=click.IntRange(min=1), help="Random starts.  [1]"),
        norm_option,
        click.option("--loss", type=click.Choice(_LOSSES), help="What fgsm and pgd increase.  [ce]"),
        straight_through_option,
        seed_option,
    )


def attack_settings(
    options: AttackOptions, *, targeted: bool = False, early_stop: bool = True
) -> list[tuple[Settings, str]]:
    """Return the settings for each eps, with the eps as it was written."""
    from cloakonnx.attacks import Settings

    found = []
    for text in options["eps"].split(","):
        try:
            eps = parse_number(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a number like 0.03 or 8/255", param_hint="'--eps'") from None
        settings = Settings(
            attack=options["attack"],
            eps=eps,
            norm=cast(Any, options["norm"]),
            eps_step=options["eps_step"],
            max_iter=options["max_iter"],
            restarts=options["restarts"],
            loss=options["loss"],
            targeted=targeted,
            early_stop=early_stop,
            straight_through=options["straight_through"],
            seed=options["seed"],
        )
        found.append((settings, text.strip()))
    if len({settings.eps for settings, _ in found}) < len(found):
        raise click.BadParameter("names the same number twice", param_hint="'--eps'")
    return found


def victim(
    model: Model, dataset: Dataset, provider: Provider, input_name: str | None, output_name: str | None
) -> Victim:
    """Return the classifier under attack, fed as the data is."""
    from cloakonnx.attacks import Victim

    return Victim(model, provider=provider, input_name=input_name, output_name=output_name, **dataset.feed)
