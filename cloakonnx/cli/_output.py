"""Prints: words and progress to stderr, results for machines to stdout."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloakonnx.evaluation.estimate import Estimate

_LONG = 10.0
"""Seconds from which on a run is worth an estimate."""

_WINDOW = 600.0
"""Seconds whose speed tells the time left: progress goes by leaps, as samples leave an attack."""

_MOVES = 0.6
"""Seconds between two moves of a bar: it remembers 1,000, which are to fill the window."""


def one_line(error: object) -> str:
    """Return an error as the line that is printed for it."""
    return f"cloakonnx: {' '.join(str(error).split())}"


def say(text: str) -> None:
    """Tell the user something."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print a result for machines."""
    click.echo(json.dumps(value, indent=1, allow_nan=False))


RESUMED = "--resume goes on where this stopped"


@contextmanager
def going_on(how: str) -> Iterator[None]:
    """Have the line on an interruption say how to go on after it."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(how)
        raise


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[float], None]]:
    """Show a progress bar and the time left on stderr while a terminal watches; yields the function that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_WINDOW) as bar:
        task = bar.add_task(what, total=total)
        next_move = 0.0

        def move(done: float) -> None:
            nonlocal next_move
            if time.monotonic() >= next_move or done == total:
                next_move = time.monotonic() + _MOVES
                bar.update(task, completed=done)

        yield move


def announce(estimate: Estimate, what: str = "") -> None:
    """Tell what a long run takes at most."""
    if (estimate.seconds or math.inf) >= _LONG:
        say(f"{what}{estimate}")
