"""What an evaluation attacks with, on the command line. Loads no attack: the help of ``evaluate`` waits for none."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import click

from cloakonnx.cli._completion import plans
from cloakonnx.cli._shared import norm, seed
from cloakonnx.cli._types import Names, Numbers, Steps
from cloakonnx.cli._verb import Group, option


@dataclass(frozen=True, kw_only=True)
class Plan(Group):
    """What an evaluation attacks with."""

    attack: str = option(
        "--attack",
        type=Names(),
        shell_complete=plans,
        default="quick",
        show_default=True,
        help="Presets (quick, standard) or attacks by name, each on what those before have left: pgd or pgd,square.",
    )
    eps: tuple[float, ...] = option(
        "--eps",
        type=Numbers(example="1/255,2/255"),
        required=True,
        help="Radii of the eps ball in pixel space, such as 1/255,2/255.",
    )
    norm: Any = norm()
    max_iter: int | str | None = option(
        "--max-iter",
        type=Steps(),
        help="Steps of a single attack, or of the gradient attacks of a preset or list; converged: pgd runs until "
        "nothing changes.",
    )
    restarts: int | None = option(
        "--restarts",
        type=click.IntRange(min=1),
        help="Random starts of a single attack, or of the gradient attacks of a list.",
    )
    straight_through: bool = option(
        "--straight-through", is_flag=True, help="Treat rounding and quantisation as identity in gradients (BPDA)."
    )
    seed: int = seed()

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`cloakonnx.evaluate` and :func:`cloakonnx.sweep` take of it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
