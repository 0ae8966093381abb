"""Numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from html import escape


def parse_number(text: str) -> float:
    """Read ``0.03``, ``8/255`` or ``5%``; raises ValueError for anything else."""
    cleaned = text.strip()
    percent = cleaned.endswith("%")
    above, slash, below = cleaned.removesuffix("%").partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except ZeroDivisionError:
        raise ValueError(text) from None
    if not math.isfinite(value):
        raise ValueError(text)
    # Through a fraction, so that 5% is the double nearest to 0.05.
    return float(Fraction(above) / 100) if percent and not slash else value / 100 if percent else value


def eps_text(eps: float) -> str:
    """Return an eps as people write it: 0.1 or 8/255 where it is that, else four digits."""
    if float(f"{eps:.4g}") == eps:
        return f"{eps:.4g}"
    levels = Fraction(eps * 255).limit_denominator(4)
    if levels and abs(float(levels) / 255 - eps) < 1e-9:
        return f"{float(levels):g}/255"
    return f"{eps:.4g}"


def spoken(seconds: float) -> str:
    """Return a duration with two digits and the unit that suits it."""
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < (most - 0.5) * length:  # what would round to three digits goes to the next unit
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:.2g} days"


def eps_exact(eps: float) -> str:
    """Return an eps so that it is read as the same number: 2/255 where that is it."""
    text = eps_text(eps)
    if text.endswith("/255") and float(text.removesuffix("/255")) / 255 == eps:
        return text
    return repr(eps)


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
