"""Options that say where masks are learned."""

from __future__ import annotations

from typing import Any

import click

from cloakonnx.cli.options import warn


class _Granularity(click.Choice[str]):
    """A granularity; the former name of one is taken with a warning."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from cloakonnx.selection.learn.recipe import FORMER

        former, name = FORMER
        if value == former:
            warn(f"--granularity {former} is named {name} now")
            value = name
        return super().convert(value, param, ctx)


granularity_option = click.option(
    "--granularity",
    type=_Granularity(["weight", "kernel", "weight-channel", "feature", "element"]),
    help="What one number multiplies: on the model's weights a single weight, a kernel, or the channels of a layer; at "
    "activations a feature or an element.  [weight; with --tap: feature]",
)
layers_option = click.option(
    "--layers", metavar="GLOB", multiple=True, help="Weights to mask, by their or their layer's name.  [all]"
)
