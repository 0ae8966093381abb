"""Values that a shell completes: attacks, taps of the model on the line, classes of the data. Nothing loads before.

What goes wrong ends the list: a shell has no place for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from cloakonnx.cli._call import Call
    from cloakonnx.graph.file.model import Model

Completes: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
"""What click takes as ``shell_complete``."""


def _completing(values: Callable[[click.Context], Iterable[str | tuple[str, str]]]) -> Completes:
    """Return what completes a value from all there are, each with a word on it or alone."""

    @wraps(values)
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found: list[tuple[str, str | None]] = []
        with suppress(Exception):  # a missing or damaged file, whatever reading it raises
            for each in values(ctx):
                found.append(each if isinstance(each, tuple) else (each, None))
        return [CompletionItem(value, help=said) for value, said in found if value.startswith(incomplete)]

    return complete


@_completing
def attacks(ctx: click.Context) -> Iterable[str]:
    """Return the names of attacks."""
    from cloakonnx.attacks.base import plugins, registered

    return (*registered(), *plugins())


@_completing
def taps(ctx: click.Context) -> Iterable[tuple[str, str]]:
    """Return the taps of the model on the line, each with the op that computes it."""
    from cloakonnx.graph.masks.taps import list_taps

    return ((tap.name, tap.producer) for tap in list_taps(_model(ctx)))


@_completing
def targets(ctx: click.Context) -> Iterable[str | tuple[str, str]]:
    """Return the words for classes to reach, and the numbers of the model's classes with their names."""
    yield from ("labels", "random", "least-likely")
    from cloakonnx.classifier.classifier import Classifier

    classifier = Classifier(_model(ctx))
    names = classifier.class_names or ()
    for number in range(classifier.declared_classes or 0):
        yield str(number), names[number] if number < len(names) else ""


@_completing
def criteria(ctx: click.Context) -> Iterable[str]:
    """Return the ways to score features."""
    from cloakonnx.scoring.criteria import CRITERIA

    return CRITERIA


@_completing
def engines(ctx: click.Context) -> Iterable[str]:
    """Return the words for where batches are handled, and the start of an address."""
    from cloakonnx.engine.address import LOCAL, OWN_RAY, RUNNING_RAY

    return (LOCAL, OWN_RAY, RUNNING_RAY, "ray://")


@_completing
def providers(ctx: click.Context) -> Iterable[str]:
    """Return the short names of execution providers that are installed."""
    from cloakonnx.runtime.provider import short_names

    return short_names()


def classes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last of some classes with commas between: those of the data on the line that are not named yet."""
    from cloakonnx.data.sources import open_source

    return _last_of_several(
        lambda ctx: getattr(open_source(ctx.params["data"]), "classes", ()), ctx, parameter, incomplete
    )


def plans(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last of some presets and attacks with commas between."""
    from cloakonnx.attacks.base import plugins, registered
    from cloakonnx.attacks.presets import PRESETS

    return _last_of_several(lambda ctx: (*PRESETS, *registered(), *plugins()), ctx, parameter, incomplete)


def _last_of_several(
    values: Callable[[click.Context], Iterable[str]], ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last of some values with commas between, by those that are not named yet."""
    *named, _ = incomplete.split(",")
    before = "".join(f"{each}," for each in named)

    @_completing
    def left(ctx: click.Context) -> Iterable[str]:
        return (before + value for value in values(ctx) if value not in named)

    return left(ctx, parameter, incomplete)


def _model(ctx: click.Context) -> Model:
    """Return the model on the line; click drops arguments there where an option has yet to get its value."""
    from cloakonnx.graph.file.model import load

    call: Call = ctx.obj
    return load(ctx.params["model"] or next(Path(word) for word in call.arguments if word.endswith(".onnx")))
