"""Small pieces of HTML for notebooks: every text is escaped, nothing is loaded, no script, the notebook's own style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def title(text: str) -> str:
    """Return a line that stands out."""
    return f"<p><strong>{escape(text)}</strong></p>"


def line(text: str) -> str:
    """Return a line of words."""
    return f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
