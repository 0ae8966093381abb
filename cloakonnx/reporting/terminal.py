"""Lines and tables for a terminal or a log: a name in them is neither markup nor a command."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloakonnx.text import harmless, shown, shown_line


def print_line(text: str, console: Console) -> None:
    """Print a line of words."""
    console.print(Text(shown_line(text)), soft_wrap=True)


def add_row(table: Table, *cells: str, style: str | None = None) -> None:
    """Add a row of texts to a table."""
    table.add_row(*(Text(shown(cell)) for cell in cells), style=style)


def print_table(table: Table, console: Console) -> None:
    """Print a table; a name that goes on in the next line begins no command there."""
    with console.capture() as capture:
        console.print(table, markup=False, emoji=False, highlight=False)
    console.file.write("\n".join(map(harmless, capture.get().split("\n"))))
    console.file.flush()
