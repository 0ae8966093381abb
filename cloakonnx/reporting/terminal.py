"""Lines and tables for a terminal or a log: a name in them is neither markup nor a command."""

from __future__ import annotations

import re
from textwrap import wrap

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


def add_row(table: Table, *cells: str, style: str | None = None, narrow: bool = False) -> None:
    """Add a row of texts to a table; in a narrow one intervals stand below their numbers."""
    texts = map(shown, cells)
    table.add_row(*(Text(re.sub(r" (?=[\[(][-+\d])", "\n", text) if narrow else text) for text in texts), style=style)


def print_table(table: Table, console: Console) -> None:
    """Print a table; a name that goes on in the next line begins no command there."""
    with console.capture() as capture:
        console.print(table, markup=False, emoji=False, highlight=False)
    console.file.write("\n".join(map(harmless, capture.get().split("\n"))))
    console.file.flush()
