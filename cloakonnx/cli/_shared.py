"""Options that several groups have."""

from __future__ import annotations

from typing import Any

import click

from cloakonnx.cli._output import warn
from cloakonnx.cli._verb import option


class _Granularity(click.Choice[str]):
    """A granularity; the former name of one is taken with a warning."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from cloakonnx.selection.learn.recipe import FORMER

        former, name = FORMER
        if value == former:
            warn(f"--granularity {former} is named {name} now")
            value = name
        return super().convert(value, param, ctx)


def granularity() -> Any:
    """Declare --granularity."""
    return option(
        "--granularity",
        type=_Granularity(["weight", "kernel", "weight-channel", "feature", "element"]),
        help="What one number of a mask multiplies. On weights: a single weight, a kernel, or a channel of a layer; at "
        "activations: a feature or an element.  [weight; with --tap: feature]",
    )


def layers() -> Any:
    """Declare --layers."""
    return option(
        "--layers",
        metavar="GLOB",
        multiple=True,
        help="Weights to mask, by a pattern of their names or their layers' names; may be repeated.  [all]",
    )


def parts() -> Any:
    """Declare --parts."""
    return option(
        "--parts",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Parts of each step of learning that workers process in parallel; the result depends on it, not on "
        "--workers.",
    )


def norm() -> Any:
    """Declare --norm."""
    return option(
        "--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True, help="Norm of the eps ball."
    )


def dry_run() -> Any:
    """Declare --dry-run of a verb that runs a model long."""
    return option("--dry-run", is_flag=True, help="Print how long it takes on how many workers, and write nothing.")


def seed(help: str = "Random seed.") -> Any:
    """Declare --seed."""
    return option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=help)


def latency() -> Any:
    """Declare --latency."""
    return option(
        "--latency",
        is_flag=True,
        help="Time MODEL beside its baseline (6 s, at most a minute), for the table and --json; -o holds no times.",
    )
