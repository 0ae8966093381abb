"""Lines and tables for a terminal or a log: a name in them is neither markup nor a command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import wrap

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloakonnx.text import harmless, shown, shown_line

_NARROW = 110
"""Columns below which a number and its interval stand below each other."""


def print_line(text: str, console: Console) -> None:
    """Print a line of words; on a terminal it is divided between words."""
    line = shown_line(text)
    if console.is_terminal and len(line) > console.width:
        parts = wrap(line, console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        line = "\n".join(map(harmless, parts))
    console.print(Text(line), soft_wrap=True)


def is_narrow(console: Console) -> bool:
    """Return whether a number and its interval do not fit beside each other in several columns of a table."""
    return console.is_terminal and console.width < _NARROW


def titled_table(title: str, columns: Sequence[str], *, narrow: bool = False) -> Table:
    """Return an empty table whose first column has words and whose others have numbers; a narrow one is packed."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    if narrow:
        table.padding, table.pad_edge = (0, 0, 0, 0), False
    for index, column in enumerate(columns):
        table.add_column(shown(column), justify="right" if index else "left", overflow="fold")
    return table


def packed(table: Table, console: Console) -> Table:
    """Take the spaces beside cells away where a terminal is narrow; return the table."""
    if is_narrow(console):
        table.padding, table.pad_edge = (0, 0, 0, 0), False
    return table


def add_row(table: Table, *cells: str, style: str | None = None, narrow: bool = False) -> None:
    """Add a row of texts to a table; in a narrow one intervals stand below their numbers, each in one line."""
    texts = map(shown, cells)
    table.add_row(*(Text(_stacked(text) if narrow else text) for text in texts), style=style)


def _stacked(text: str) -> str:
    """Return a number above its interval: ``94.0%`` above ``[87.5,97.2]``, and ``96.3%`` above ``96.0..97.0``."""
    text = re.sub(r"\[([-+\d.]+), ([-+\d.]+)\]", r"[\1,\2]", text)
    text = re.sub(r" \(([-+\d.]+) to ([-+\d.]+)\)", r"\n\1..\2", text)
    return re.sub(r" (?=[\[(][-+\d])", "\n", text)


def print_table(table: Table, console: Console) -> None:
    """Print a table; a name that goes on in the next line begins no command there."""
    with console.capture() as capture:
        console.print(table, markup=False, emoji=False, highlight=False)
    console.file.write("\n".join(map(harmless, capture.get().split("\n"))))
    console.file.flush()
