"""Prints: words and progress to stderr, results to stdout.

What is printed for people goes through :func:`cloakonnx.text.shown_line` here, whatever names are in it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from cloakonnx.errors import SmallerRuns
from cloakonnx.text import counted_workers, harmless, per_second, shown_line, spoken
from cloakonnx.urls import shown

if TYPE_CHECKING:
    from rich.console import Console

    from cloakonnx.engine.batches import Engine
    from cloakonnx.evaluation.estimate import Estimate

_LONG = 10.0
"""Seconds from which on a run is worth an estimate."""

_WINDOW = 600.0
"""Seconds whose speed tells the time left: progress goes by leaps, as samples leave an attack."""

_LOGGED = 60.0
"""Seconds between two lines on progress in a log."""

_MOVES = 0.6
"""Seconds between two moves of a bar: it remembers 1,000, which are to fill the window."""


_LEVEL, _BAR = "cloakonnx.level", "cloakonnx.bar"


def one_line(error: object) -> str:
    """Return an error as the line that is printed for it."""
    return shown_line(shown(f"cloakonnx: {' '.join(str(error).split())}"))


def set_level(ctx: click.Context, *, quiet: bool, verbose: bool) -> None:
    """Set how much the command of a context prints on stderr, and whether its tables are complete."""
    ctx.meta[_LEVEL] = "quiet" if quiet else "verbose" if verbose else "usual"


def level() -> str:
    """Return how much is printed: quiet, usual or verbose."""
    context = click.get_current_context(silent=True)
    return "usual" if context is None else str(context.meta.get(_LEVEL, "usual"))


def say(text: str) -> None:
    """Tell the user something, in one line on stderr; not with --quiet."""
    if level() != "quiet":
        complain(text)


def complain(text: str) -> None:
    """Print a line on stderr that --quiet does not suppress; above the bar, where there is one."""
    context = click.get_current_context(silent=True)
    bar = None if context is None else context.meta.get(_BAR)
    with readers_may_leave():
        if bar is None:
            click.echo(_for(sys.stderr, text), err=True)
        else:
            bar.print(_for(sys.stderr, text), markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def warnings_said() -> Iterator[None]:
    """Say the library's own warnings as the command's other words; Python shows each place's once."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, SmallerRuns):
                say(f"cloakonnx: {message}")
            else:
                others(message, category, *rest, **more)

        warnings.showwarning = show
        warnings.simplefilter("default", SmallerRuns)
        yield


def _for(stream: TextIO, text: str) -> str:
    """Return a line as it is printed: between words, a terminal's width divides it."""
    line = shown_line(shown(text))
    width = shutil.get_terminal_size().columns
    if len(line) <= width or not stream.isatty():
        return line
    lines = textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(harmless, lines))


def note(text: str) -> None:
    """Say something about the input, in one line on stderr."""
    say(f"cloakonnx: {text}")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    complain(f"cloakonnx: warning: {text}")


def tell(text: str) -> None:
    """Print a line of a result for people."""
    with readers_may_leave():
        click.echo(_for(sys.stdout, text))


def write_json(text: str) -> None:
    """Print JSON as it is, except that no runner of workflows finds the start of a command in it."""
    write_out(text.replace("##", r"#\u0023"))


def write_out(text: str) -> None:
    """Print a text of several lines as it is."""
    with readers_may_leave():
        click.echo(shown(text), nl=False)


def print_json(value: Any) -> None:
    """Print a result for machines."""
    write_json(json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """Drop what is printed once nobody reads it, as behind ``| head -1``: the exit code stays that of the verb."""
    try:
        yield
    except BrokenPipeError:
        drop_unread()


def drop_unread() -> None:
    """Send what is still printed to an output that nobody reads to nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            with suppress(OSError):
                os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


RESUMED = "--resume goes on where this stopped"


@contextmanager
def going_on(how: str) -> Iterator[None]:
    """Have the line on an interruption say how to go on after it."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        if how not in getattr(interruption, "__notes__", ()):  # a shard's run is within another
            interruption.add_note(how)
        raise


@contextmanager
def progress(
    what: str, total: int | None, *, unit: str | None = None, engine: Engine | None = None
) -> Iterator[Callable[[float], None]]:
    """Show how far a run is and the time left; yields what takes the number done.

    It is a bar on stderr while a terminal watches, a line a minute where none does, and nothing with --quiet.

    Args:
        what: What runs.
        total: How much there is to do; None where only the end will tell.
        unit: What is counted, in the plural, for the speed; None shows no speed.
        engine: Where batches are handled: the number of its workers is shown where they come and go.
    """
    if level() == "quiet":
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    alive = _counting(engine)
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logged(what, total, unit, alive)
        return
    from cloakonnx.cli._bar import Speed, Workers

    columns = (
        TextColumn(shown_line(what), markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *([] if unit is None else [Speed(unit)]),
        *([] if alive is None else [Workers(alive)]),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with (
        Progress(*columns, console=console, transient=True, speed_estimate_period=_WINDOW) as bar,
        _above(console),
    ):
        task = bar.add_task(what, total=total)
        next_move = 0.0

        def move(done: float) -> None:
            nonlocal next_move
            if time.monotonic() >= next_move or done == total:
                next_move = time.monotonic() + _MOVES
                bar.update(task, completed=done)

        yield move


@contextmanager
def _above(console: Console) -> Iterator[None]:
    """Have lines printed above the bar of a console."""
    context = click.get_current_context(silent=True)
    if context is None:
        yield
        return
    before = context.meta.get(_BAR)
    context.meta[_BAR] = console
    try:
        yield
    finally:
        context.meta[_BAR] = before


def _counting(engine: Engine | None) -> Callable[[], int] | None:
    """Return what counts the workers of an engine; None where they do not come and go."""
    if engine is None:
        return None
    from cloakonnx.engine.batches import Counted

    return (lambda: engine.alive) if isinstance(engine, Counted) else None


def _logged(what: str, total: int | None, unit: str | None, alive: Callable[[], int] | None) -> Callable[[float], None]:
    """Return what prints a line on how far a run is, once a minute."""
    start = last = time.monotonic()

    def move(done: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LOGGED or not done:
            return
        last = now
        speed = done / (now - start)
        said = [f"{what}: {done:.0f}" + ("" if total is None else f" of {total}")]
        said += [] if unit is None else [per_second(speed, unit)]
        said += [] if alive is None else [counted_workers(alive())]
        said += [] if total is None else [f"about {spoken(max(total - done, 0) / speed)} left"]
        say(", ".join(said))

    return move


def announce(estimate: Estimate, what: str = "") -> None:
    """Tell what a long run takes at most."""
    if (estimate.seconds or math.inf) >= _LONG:
        say(f"{what}{estimate}")
