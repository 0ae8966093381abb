"""What the report page is made of: tables, charts with their legends, and lines of settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloakonnx.reporting import _charts as charts
from cloakonnx.statistics import Accuracy, share_cell


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        sort: What it is sorted by; the text where None.
        style: A class: ``number``, ``masked``, ...
    """

    text: str
    sort: float | None = None
    style: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        key: Its id.
        caption: What it shows.
        columns: Names; those after the first are numbers unless ``words`` has their index.
        rows: Of cells.
        sortable: Whether the reader may sort it.
        words: Columns of words beside the first.
    """

    key: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = False
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        svg: The chart, safe to be put into the page.
        caption: How to read it.
        legend: (swatch, text).
    """

    svg: str
    caption: str
    legend: tuple[tuple[str, str], ...]


def figure(
    svg: str, caption: str, series: Sequence[charts.Series] = (), more: Sequence[tuple[str, str, str]] = ()
) -> Figure:
    """Return a chart with a legend of its lines and of more entries (style, shape, text)."""
    entries = [(each.style, each.shape, each.name) for each in series] + list(more)
    return Figure(svg, caption, tuple((charts.swatch(style, shape), text) for style, shape, text in entries))


def accuracy_cell(share: Accuracy) -> Cell:
    """Return an accuracy with its interval, sorted by its share."""
    return Cell(share_cell(share), share.value)


def text_rows(rows: Sequence[Sequence[str]]) -> tuple[tuple[Cell, ...], ...]:
    """Return rows of plain cells."""
    return tuple(tuple(Cell(text) for text in row) for row in rows)
