"""Reads CSV as spreadsheets, pandas and R write it: one row at a time, whatever separates the fields."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cloakonnx.data.arrays import missing
from cloakonnx.errors import DataError
from cloakonnx.kinds import check_regular, kind_of_data
from cloakonnx.text import shown

SUFFIXES = frozenset({".csv", ".tsv"})
_SEPARATORS = ",;\t|"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 1 << 16
"""Bytes in which a NUL says that this is no text, and rows show what separates fields."""

_ROWS = 20
"""Rows that are looked at."""


class Row(NamedTuple):
    """One row.

    Attributes:
        fields: Its fields without the spaces around them.
        line: The line of the file that it ends on, counted from 1.
    """

    fields: list[str]
    line: int


class Dialect(NamedTuple):
    """How a file is written.

    Attributes:
        separator: What stands between fields.
        encoding: How its text is encoded.
    """

    separator: str
    encoding: str

    @property
    def has_decimal_commas(self) -> bool:
        """Whether numbers may have a comma, as where the fields are separated by something else."""
        return self.separator != ","


def dialect_of(path: Path) -> Dialect:
    """Return how a file is written: the separator that gives the first rows as many fields each, and the most of them.

    Raises:
        DataError: no such file, an empty one, or one that is no text.
    """
    check_regular(path, DataError)
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    if not head:
        raise DataError(f"cannot read {path}: the file has no content")
    encoding = "utf-16" if head.startswith(_UTF_16) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in head:
        kind = kind_of_data(path)
        raise DataError(f"cannot read {path}: it is not text" + (f" but {kind}" if kind else ""))
    text = head.decode(encoding, "replace")
    scores = {separator: _score(text, separator, is_whole=len(head) < _HEAD) for separator in _SEPARATORS}
    return Dialect(max(scores, key=lambda separator: scores[separator]), encoding)


def rows(path: Path, dialect: Dialect) -> Iterator[Row]:
    """Yield the rows of a file, the header with them; blank lines are passed over.

    Raises:
        DataError: it is not encoded in UTF-8 (or UTF-16 with its mark), or its quotes do not match.
    """
    line = 0
    try:
        with path.open(encoding=dialect.encoding, newline="") as stream:
            reader = csv.reader(stream, delimiter=dialect.separator, skipinitialspace=True, strict=True)
            for fields in reader:
                line = reader.line_num
                if any(map(str.strip, fields)) or len(fields) > 1:
                    yield Row([field.strip() for field in fields], line)
    except UnicodeDecodeError:
        raise DataError(f"cannot read {path}: it is not UTF-8 text; save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise DataError(f"cannot read {path}: line {line + 1}: {shown(error)}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _score(text: str, separator: str, *, is_whole: bool) -> tuple[bool, int]:
    """Return whether the first rows have as many fields each, more than one, and how many the header has.

    Args:
        text: The start of a file.
        separator: What may separate the fields.
        is_whole: Whether that is all; the last row may be cut otherwise.
    """
    counts: list[int] = []
    is_equal = True
    try:
        for fields in csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
        ):
            if fields:
                counts.append(len(fields))
            if len(counts) == _ROWS:
                break
        else:
            counts = counts if is_whole or len(counts) < 2 else counts[:-1]
    except csv.Error:  # a quote inside of a field, or one that the cut left open
        is_equal = not is_whole and bool(counts)
    return is_equal and len(set(counts)) == 1 and counts[0] > 1, counts[0] if counts else 0
