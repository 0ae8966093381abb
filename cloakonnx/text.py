"""Numbers as people write them, and names that others wrote: nothing in a name is a command to what shows it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from fractions import Fraction
from html import escape

_TINY = 1e-300
"""Numbers below it are read as 0: as a fraction, one with ``e-999999999`` takes gigabytes."""


_LONGEST_FRACTION = 20


class Written(float):
    """A number with the text that it was written as: 0.125 of ``2/16``.

    Attributes:
        text: The text, without spaces.
    """

    text: str

    def __new__(cls, value: float, text: str) -> Written:
        """Return the number with its text."""
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        """Return what a copy is made of."""
        return float(self), self.text


def parse_number(text: str) -> float:
    """Read ``0.03``, ``8/255`` or ``5%``; a fraction keeps its text (:class:`Written`).

    Raises:
        ValueError: anything else.
    """
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
    if percent:
        return float(parse_fraction(above) / 100) if not slash else value / 100
    written = "".join(cleaned.split())
    return Written(value, written) if slash and len(written) <= _LONGEST_FRACTION else value


def parse_fraction(text: str) -> Fraction:
    """Read ``0.03`` or ``8/255`` as it is, without rounding; raises ValueError for anything else."""
    above, slash, below = text.partition("/")
    terms = []
    for each in (above, below if slash else "1"):
        value = float(each)
        if not math.isfinite(value):
            raise ValueError(text)
        terms.append(Fraction(each.strip()) if abs(value) > _TINY else Fraction(0))
    if not terms[1]:
        raise ValueError(text)
    return terms[0] / terms[1]


def composed(name: str) -> str:
    """Return a name in the composed form of Unicode, as keyboards write it; a Mac has folders in the other form."""
    return unicodedata.normalize("NFC", name)


def eps_text(eps: float) -> str:
    """Return an eps as it was written, or as people write it: 0.1 or 8/255 where it is that, else four digits."""
    if isinstance(eps, Written):
        return eps.text
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


def per_second(speed: float, unit: str) -> str:
    """Return a speed with three digits: a second, or a minute where that is little; ``unit`` is in the plural.

    >>> per_second(0.05, "samples"), per_second(1234.5, "samples")
    ('3 samples/min', '1234 samples/s')
    """
    value, time = (speed, "s") if speed >= 0.1 else (60 * speed, "min")
    return f"{value:.0f} {unit}/{time}" if value >= 100 else f"{value:.3g} {unit}/{time}"


def counted_workers(number: int) -> str:
    """Return how many workers there are, in words."""
    return f"{number} worker{'s' * (number != 1)}"


def size_text(size: int) -> str:
    """Return the size of a file as people write it.

    >>> size_text(21_340), size_text(1_220_000)
    ('21.3 kB', '1.22 MB')
    """
    return f"{size / 1e6:,.2f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"


def brief(seconds: float) -> str:
    """Return the time of a call with three digits and the unit that suits it.

    >>> brief(0.0000159), brief(0.0123), brief(0.9999), brief(2.5)
    ('15.9 µs', '12.3 ms', '1.00 s', '2.50 s')
    """
    units = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0))
    unit, length = next(((unit, length) for unit, length in units if seconds < 999.5 * length), units[-1])
    value = seconds / length
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def eps_exact(eps: float) -> str:
    """Return an eps so that it is read as the same number: as it was written, or 2/255 where that is it."""
    if isinstance(eps, Written):
        return eps.text
    text = eps_text(eps)
    if text.endswith("/255") and float(text.removesuffix("/255")) / 255 == eps:
        return text
    return repr(eps)


LONGEST_NAME = 200
"""Characters of a name that are shown."""

_LONGEST_LINE = 4000
_TAIL = 40
"""Characters at the end of what is cut, which stay: names of one graph tend to differ there."""

_ELLIPSIS = "\u2026"
_LONG_WORD = re.compile(rf"\S{{{LONGEST_NAME + 1},}}")
_NAMED_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_COMMAND = re.compile(r"^((?:\s|\x1b\[[\d;]*m)*):(?=:)")
"""At the start of a line, behind blanks and colours, two colons begin a command of GitHub's runner."""

_COMMAND_ANYWHERE = re.compile(r"##(?=\[|vso\[)")
"""Begins a command of GitHub's and Azure's runners at any place of a line."""


def escaped(text: str, *, keep: str = "") -> str:
    """Return a text in which every character that is not printable is spelled out, as Python's ``repr`` does it.

    These are control characters (C0, DEL, C1), line and paragraph separators, characters that turn the direction of
    text, invisible ones, and lone surrogates.

    >>> escaped("a\\x1b[2J")
    'a\\\\x1b[2J'

    Args:
        text: Any text.
        keep: Characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _spelled(each) for each in text)


def _spelled(character: str) -> str:
    code = ord(character)
    width, letter = (2, "x") if code < 0x100 else (4, "u") if code < 0x10000 else (8, "U")
    return _NAMED_ESCAPES.get(character) or f"\\{letter}{code:0{width}x}"


def shortened(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text cut to a number of characters, with an ellipsis in the middle of a longer one."""
    if len(text) <= longest:
        return text
    return text[: longest - _TAIL - 1] + _ELLIPSIS + text[-_TAIL:]


def shown(name: object) -> str:
    """Return a name as people see it: of a tensor, a file, a class, or any text that others wrote.

    Characters that are not printable are spelled out, and it has at most :data:`LONGEST_NAME` characters. All that
    prints or writes for people passes names through this or through :func:`shown_line`; JSON keeps them as they are.
    """
    return _COMMAND_ANYWHERE.sub(r"#\\x23", shortened(escaped(shortened(str(name), 8 * LONGEST_NAME))))


def shown_line(text: object) -> str:
    """Return a text with names in it as one line for people, which no log takes for a command.

    Characters that are not printable are spelled out, line breaks too; words longer than a name are cut, and so is a
    line of several thousand characters.
    """
    whole = shortened(str(text), 4 * _LONGEST_LINE)
    words = _LONG_WORD.sub(lambda word: shortened(word.group()), escaped(whole))
    return harmless(_COMMAND_ANYWHERE.sub(r"#\\x23", shortened(words, _LONGEST_LINE)))


def harmless(line: str) -> str:
    """Return a line that no runner of workflows takes for a command."""
    return _COMMAND.sub(r"\1\\x3a", line)


_MARKDOWN = re.compile(
    r"""
    [\\`*~$|]  # code, emphasis, strikethrough, formulas, cells
    | (?<![^\W_])_ | _(?![^\W_])  # emphasis; not inside a word
    | <(?=[A-Za-z/!?])  # tags and links in angle brackets
    | &(?=\#?\w+;)  # entities
    | \](?=[\[(:])  # links and pictures
    | (?<=:)/(?=/) | (?<=www)\.  # addresses, which become links by themselves
    """,
    re.VERBOSE | re.IGNORECASE,
)


def markdown(text: object) -> str:
    """Return a text with names in it as Markdown that shows just that: no markup, HTML or link comes from a name."""
    return _MARKDOWN.sub(r"\\\g<0>", shown_line(text))


def title(text: str) -> str:
    """Return a line that stands out, as HTML."""
    return f"<p><strong>{escape(shown_line(text))}</strong></p>"


def ended(text: str) -> str:
    """Return a sentence with the mark at its end: the one that it has, or a full stop.

    >>> ended("are the labels right?"), ended("so it is")
    ('are the labels right?', 'so it is.')
    """
    return text if text.endswith((".", "?", "!")) else f"{text}."


def line(text: str) -> str:
    """Return a line of words, as HTML."""
    return f"<p>{escape(shown_line(text))}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    shown_rows = ([escape(shown(cell)) for cell in row] for row in rows)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in shown_rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
