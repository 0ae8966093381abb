"""Charts as inline SVG: no library, because few kinds are needed, in the page's own fonts and colours.

Colours are classes, which the page's style sheet fills for light, dark and print. Every mark carries its numbers as a
``<title>``; every chart has a table beside it that says the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree as ET

_WIDTH, _HEIGHT = 440.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 12.0, 44.0
_LETTER = 7.5
"""Width of a letter of a tick's text."""

_DODGE = 5.0
"""Between marks that would hide each other's whiskers."""


@dataclass(frozen=True)
class Mark:
    """A point of a line: its place, its interval if any, and what it says."""

    x: float
    y: float
    low: float | None
    high: float | None
    said: str


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        name: For people.
        style: Its class: ``hardened``, ``baseline``, ``static``, ``clean``, ...; the style sheet knows colour and dash.
        shape: Of its marks: ``circle``, ``square``, ``triangle``, ``diamond`` or ``point``.
        marks: By rising x.
    """

    name: str
    style: str
    shape: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Band:
    """A range under the lines: (x, low, high) by rising x."""

    name: str
    style: str
    ends: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Row:
    """A row of :func:`intervals`: a share with its interval."""

    name: str
    style: str
    shape: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A bar of :func:`histogram`: what of it is kept and what is masked."""

    low: float
    high: float
    kept: int
    masked: int


def lines(
    key: str,
    title: str,
    series: Sequence[Series],
    *,
    bands: Sequence[Band] = (),
    x_label: str,
    x_ticks: Sequence[tuple[float, str]],
    y_range: tuple[float, float] = (0.0, 1.0),
) -> str:
    """Return shares (0 to 1) over a number as an SVG element.

    Args:
        key: Makes the ids of its title unique in the page.
        title: What it shows, for who can't see it.
        series: The lines; the first lie below.
        bands: Ranges below them.
        x_label: Name of the x axis.
        x_ticks: Values with their texts.
        y_range: Of the y axis.
    """
    root = _root(key, title, _HEIGHT)
    xs = [mark.x for each in series for mark in each.marks] + [value for value, _ in x_ticks]
    x = _Scale(min(xs), max(xs), _LEFT + 12, _WIDTH - _RIGHT - 12)
    y = _Scale(*y_range, _HEIGHT - _BOTTOM, _TOP)
    _y_axis(root, y, [(value, f"{value:.0%}") for value in ticks(*y_range)])
    _x_axis(root, x, x_ticks, x_label, _HEIGHT)
    for band in bands:
        forth = [f"{_n(x(at))},{_n(y(high))}" for at, _, high in band.ends]
        back = [f"{_n(x(at))},{_n(y(low))}" for at, low, _ in reversed(band.ends)]
        ET.SubElement(root, "polygon", {"class": f"band {band.style}", "points": " ".join(forth + back)})
    for index, each in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * _DODGE if any(m.low is not None for m in each.marks) else 0.0
        points = [(x(mark.x) + shift, y(mark.y)) for mark in each.marks]
        group = ET.SubElement(root, "g", {"class": f"series {each.style}"})
        if len(points) > 2:  # two points, clean and one eps, are no curve
            joined = " ".join(f"{_n(a)},{_n(b)}" for a, b in points)
            ET.SubElement(group, "polyline", {"class": "line", "points": joined})
        for (a, b), mark in zip(points, each.marks, strict=True):
            one = ET.SubElement(group, "g", {"class": "mark"})
            ET.SubElement(one, "title").text = mark.said
            if mark.low is not None and mark.high is not None:
                _whisker(one, a, y(mark.low), y(mark.high))
            _shape(one, each.shape, a, b)
    return _text(root)


def intervals(key: str, title: str, groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return shares with their intervals, one above the other in named groups, as an SVG element."""
    step, head = 24.0, 26.0
    height = _TOP + sum(head + step * len(rows) + 8 for _, rows in groups) + _BOTTOM
    root = _root(key, title, height)
    x = _Scale(0.0, 1.0, 12.0, _WIDTH - 62)
    marks = [(value, f"{value:.0%}") for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    _x_axis(root, x, marks, "accuracy, with 95% intervals", height, grid=True)
    at = _TOP
    for name, rows in groups:
        _label(root, 12.0, at + 16, name, "group")
        at += head
        for row in rows:
            middle = at + step / 2
            group = ET.SubElement(root, "g", {"class": f"series {row.style} mark"})
            said = f"{row.name}, {name}: {row.value:.1%} [{row.low * 100:.1f}, {row.high * 100:.1f}]"
            ET.SubElement(group, "title").text = said
            ends = {"x1": _n(x(row.low)), "x2": _n(x(row.high)), "y1": _n(middle), "y2": _n(middle)}
            ET.SubElement(group, "line", {"class": "whisker wide", **ends})
            _shape(group, row.shape, x(row.value), middle)
            _label(root, _WIDTH - 4, middle + 5, f"{row.value:.1%}", "value", anchor="end")
            at += step
        at += 8
    return _text(root)


def histogram(key: str, title: str, bars: Sequence[Bar], *, x_label: str, y_label: str) -> str:
    """Return counts over equal steps of a number as an SVG element; masked ones are hatched."""
    root = _root(key, title, _HEIGHT)
    hatch = ET.SubElement(
        ET.SubElement(root, "defs"),
        "pattern",
        {"id": f"{key}-hatch", "width": "6", "height": "6", "patternUnits": "userSpaceOnUse"},
    )
    ET.SubElement(hatch, "rect", {"class": "hatch-ground", "width": "6", "height": "6"})
    ET.SubElement(hatch, "path", {"class": "hatch-line", "d": "M-1,1 L1,-1 M0,6 L6,0 M5,7 L7,5"})
    x = _Scale(bars[0].low, bars[-1].high, _LEFT, _WIDTH - _RIGHT)
    top = max(bar.kept + bar.masked for bar in bars)
    steps = [value for value in ticks(0.0, float(top)) if value == int(value)]
    y = _Scale(0.0, max(float(top), steps[-1]), _HEIGHT - _BOTTOM, _TOP + 16)
    _y_axis(root, y, [(value, f"{value:g}") for value in steps])
    _label(root, 2.0, _TOP + 4, y_label, "axis")
    _x_axis(root, x, [(value, f"{value:g}") for value in ticks(bars[0].low, bars[-1].high)], x_label, _HEIGHT)
    for bar in bars:
        left, width = x(bar.low) + 0.75, x(bar.high) - x(bar.low) - 1.5
        for count, below, style in ((bar.masked, 0, "masked"), (bar.kept, bar.masked, "kept")):
            if count:
                fill = {"fill": f"url(#{key}-hatch)"} if style == "masked" else {}
                box = {"x": _n(left), "y": _n(y(below + count)), "width": _n(width)}
                box["height"] = _n(y(below) - y(below + count))
                rect = ET.SubElement(root, "rect", {"class": f"bar {style} mark", **box, **fill})
                ET.SubElement(rect, "title").text = f"{count} {style}, {bar.low:.4g} to {bar.high:.4g}"
    return _text(root)


def layer(key: str, title: str, cells: Sequence[Sequence[int]] | None, counts: Sequence[int], reach: float) -> str:
    """Return the numbers of a mask as an SVG element: a map of them, where there is one, beside how many are how large.

    Numbers come as levels: 0 for about 1, positive above it, negative below.

    Args:
        key: Makes the id of its title unique in the page.
        title: What it shows, for who can't see it.
        cells: Levels, row by row.
        counts: How many numbers have each level, from the lowest to the highest.
        reach: How far from 1 the highest level is.
    """
    root = ET.Element("svg", {"class": "layer", "viewBox": "0 0 256 124", "role": "img"})
    root.set("aria-labelledby", f"{key}-title")
    ET.SubElement(root, "title", {"id": f"{key}-title"}).text = title
    top = (len(counts) - 1) // 2
    if cells is not None:
        _map(root, cells, top, reach)
    _distribution(root, counts, 2.0 if cells is None else 134.0, reach)
    return _text(root)


def _distribution(root: ET.Element, counts: Sequence[int], left: float, reach: float) -> None:
    """Draw a bar for each level that a number has, over a foot line, and an upright one in the middle."""
    width, top, middle = 120.0 / len(counts), (len(counts) - 1) // 2, left + 60
    for x1, y1, x2, y2 in ((left, 118.5, left + 120, 118.5), (middle, 2, middle, 122)):
        ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
        ET.SubElement(root, "line", {"class": "grid", **ends})
    for index, count in enumerate(counts):
        if count:
            height = max(112.0 * count / max(counts), 1.0)
            box = {"x": _n(left + index * width), "y": _n(118 - height), "width": _n(width - 0.75)}
            style = f"mark {_side(index - top)}"
            bar = ET.SubElement(root, "rect", {"class": style, **box, "height": _n(height)})
            ET.SubElement(bar, "title").text = f"{count}: {_level_text(index - top, top, reach)}"


def _map(root: ET.Element, cells: Sequence[Sequence[int]], top: int, reach: float) -> None:
    """Draw a cell for each level that is not 0; those of one level are one path, neighbours in a row one box."""
    place = {"x": "2", "y": "2", "width": "120", "height": "120"}
    ET.SubElement(root, "rect", {"class": "ground", **place})
    box = {"viewBox": f"0 0 {len(cells[0])} {len(cells)}", "preserveAspectRatio": "none"}
    inner = ET.SubElement(root, "svg", {**box, **place, "shape-rendering": "crispEdges"})
    paths: dict[int, list[str]] = {}
    numbers: dict[int, int] = {}
    for y, row in enumerate(cells):
        x = 0
        for level, same in groupby(row):
            count = len(list(same))
            if level:
                paths.setdefault(level, []).append(f"M{x},{y}h{count}v1h-{count}z")
                numbers[level] = numbers.get(level, 0) + count
            x += count
    for level in sorted(paths):
        style = {"class": f"mark {_side(level)}", "fill-opacity": _n(abs(level) / top), "d": "".join(paths[level])}
        path = ET.SubElement(inner, "path", style)
        ET.SubElement(path, "title").text = f"{numbers[level]} cells: {_level_text(level, top, reach)}"


def _side(level: int) -> str:
    return "less" if level < 0 else "more" if level else "same"


def _level_text(level: int, top: int, reach: float) -> str:
    low, high = (1 + (level + half) * reach / top for half in (-0.5, 0.5))
    return f"below {high:.3g}" if level == -top else f"above {low:.3g}" if level == top else f"{low:.3g} to {high:.3g}"


def swatch(style: str, shape: str) -> str:
    """Return a piece of a line for a legend."""
    root = ET.Element("svg", {"class": "swatch", "viewBox": "0 0 34 14", "aria-hidden": "true", "focusable": "false"})
    group = ET.SubElement(root, "g", {"class": f"series {style}"})
    if shape == "band":
        ET.SubElement(root, "rect", {"class": f"band {style}", "x": "2", "y": "1", "width": "30", "height": "12"})
    elif shape == "bar":
        box = {"x": "9", "y": "0", "width": "16", "height": "14"}
        ET.SubElement(root, "rect", {"class": f"bar {style}", **box})
        if style == "masked":
            ET.SubElement(root, "path", {"class": "hatch-line", "d": "M9,7 L16,0 M9,14 L23,0 M16,14 L25,5"})
    else:
        ET.SubElement(group, "line", {"class": "line", "x1": "1", "x2": "33", "y1": "7", "y2": "7"})
        _shape(group, shape, 17.0, 7.0)
    return _text(root)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from low to high, at steps of 1, 2 or 5 times a power of 10."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def share_range(values: Sequence[float]) -> tuple[float, float]:
    """Return tens of percent around some shares."""
    low, high = math.floor(min(values) * 10 + 1e-9) / 10, math.ceil(max(values) * 10 - 1e-9) / 10
    return (low, high) if high > low else (max(0.0, low - 0.1), min(1.0, high + 0.1))


class _Scale:
    """Leads from numbers to the picture."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self._low, self._first = low, first
        self._factor = (last - first) / (high - low) if high > low else 0.0
        self.first, self.last = first, last

    def __call__(self, value: float) -> float:
        return self._first + (value - self._low) * self._factor


def _root(key: str, title: str, height: float) -> ET.Element:
    box = f"0 0 {_n(_WIDTH)} {_n(height)}"
    root = ET.Element("svg", {"class": "chart", "viewBox": box, "role": "img", "aria-labelledby": f"{key}-title"})
    ET.SubElement(root, "title", {"id": f"{key}-title"}).text = title
    return root


def _y_axis(root: ET.Element, y: _Scale, marks: Sequence[tuple[float, str]]) -> None:
    for value, text in marks:
        at = y(value)
        ends = {"x1": _n(_LEFT), "x2": _n(_WIDTH - _RIGHT), "y1": _n(at), "y2": _n(at)}
        ET.SubElement(root, "line", {"class": "grid", **ends})
        _label(root, _LEFT - 6, at + 4, text, "tick", anchor="end")


def _x_axis(
    root: ET.Element,
    x: _Scale,
    marks: Sequence[tuple[float, str]],
    label: str,
    height: float,
    *,
    grid: bool = False,
) -> None:
    foot = height - _BOTTOM
    free = -math.inf
    for value, text in marks:
        at = x(value)
        ends = {"x1": _n(at), "x2": _n(at), "y1": _n(_TOP if grid else foot), "y2": _n(foot + 4)}
        ET.SubElement(root, "line", {"class": "grid", **ends})
        half = _LETTER * len(text) / 2
        if at - half >= free:  # else it would run into the one before
            _label(root, at, foot + 18, text, "tick", anchor="middle")
            free = at + half + _LETTER
    _label(root, (x.first + x.last) / 2, height - 6, label, "axis", anchor="middle")


def _label(root: ET.Element, x: float, y: float, text: str, style: str, *, anchor: str = "start") -> None:
    place = {"x": _n(x), "y": _n(y), "text-anchor": anchor}
    ET.SubElement(root, "text", {"class": style, **place}).text = text


def _whisker(group: ET.Element, x: float, low: float, high: float) -> None:
    path = f"M{_n(x)},{_n(low)} V{_n(high)} M{_n(x - 3)},{_n(low)} h6 M{_n(x - 3)},{_n(high)} h6"
    ET.SubElement(group, "path", {"class": "whisker", "d": path})


def _shape(group: ET.Element, shape: str, x: float, y: float) -> None:
    if shape in {"circle", "point"}:
        radius = "4.5" if shape == "circle" else "2"
        ET.SubElement(group, "circle", {"class": "dot", "cx": _n(x), "cy": _n(y), "r": radius})
        return
    paths = {
        "square": "m-4,-4 h8 v8 h-8 z",
        "triangle": "m0,-5 l5,9 h-10 z",
        "diamond": "m0,-5.5 l5.5,5.5 l-5.5,5.5 l-5.5,-5.5 z",
    }
    if shape in paths:
        ET.SubElement(group, "path", {"class": "dot", "d": f"M{_n(x)},{_n(y)} {paths[shape]}"})


def _n(value: float) -> str:
    return f"{round(value, 2):g}"


def _text(root: ET.Element) -> str:
    return ET.tostring(root, encoding="unicode")
