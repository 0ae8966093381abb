"""Tables as samples: the numbers of each row are a sample, one column has the labels. CSV, and Parquet by pyarrow."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import _csv
from cloakonnx.data._classes import Numbered, Texts
from cloakonnx.data.arrays import missing
from cloakonnx.errors import DataError, MissingDependencyError, nearest
from cloakonnx.kinds import check_regular
from cloakonnx.text import shown

PARQUET = frozenset({".parquet", ".pq"})
SUFFIXES = _csv.SUFFIXES | PARQUET
USUAL_LABELS = ("label", "labels", "target", "class", "class_name", "category", "species", "y")
"""Names that columns of labels usually have."""

USUAL_OTHERS = ("id", "index", "no", "row", "key", "timestamp", "fold", "split", "weight")
"""Names of columns that usually are no features."""

_NOTHING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
_NO_LABEL = frozenset({"", "nan", "null"})
_INDEX = frozenset({"", "Unnamed: 0", "__index_level_0__"})
_TRUTH = {"true": 1.0, "false": 0.0}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_MOST = 1_000_000_000
"""Values of a table, which are held in memory as float32."""

_COMPARED = 1000
"""Names of columns that a wrong one is compared with."""

_PART = 1 << 16
"""Rows that are converted at a time."""


class Table(NamedTuple):
    """A table of numbers.

    Attributes:
        x: (N, columns) float32.
        columns: Names of the columns.
        labels: The column of labels; None without one.
        notes: What a reader should know of how it was read.
    """

    x: NDArray[np.float32]
    columns: tuple[str, ...]
    labels: Numbered | None
    notes: tuple[str, ...]


def read_table(path: Path, *, label_column: str | None, classes: tuple[str, ...] = ()) -> Table:
    """Read a table: all columns but that of the labels become features, in the order of the file.

    Args:
        path: A CSV or Parquet file.
        label_column: The column with the labels: whole numbers from 0, or names of classes.
        classes: These names in the order of the model's outputs.

    Raises:
        DataError: no such file or column, no row, a missing value, text in a column of numbers, or too many values.
        MissingDependencyError: a Parquet file without pyarrow.
    """
    reading = _Reading(path, label_column)
    for part in (_parquet_parts if path.suffix.lower() in PARQUET else _csv_parts)(reading):
        reading.take(part)
    return reading.finished(classes)


def read_frame(frame: Any, name: str, *, label_column: str | None, classes: tuple[str, ...] = ()) -> Table:
    """Read a table in memory, as pandas and polars have them: what a CSV of it would give.

    Args:
        frame: Has ``columns`` (names), and a column of values by its place or name.
        name: What messages call it.
        label_column: The column with the labels: whole numbers from 0, or names of classes.
        classes: These names in the order of the model's outputs.

    Raises:
        DataError: no such column, no row, a missing value, or a column that holds no numbers.
    """
    reading = _Reading(Path(name), label_column)
    kept, label = reading.features([str(column) for column in frame.columns])
    if label is not None:
        _take_labels(_values_of(frame, label).tolist(), reading, 0)
    columns = []
    for place in kept:
        values = _values_of(frame, place)
        if values.dtype.kind not in "biuf":
            raise reading.no_numbers(str(frame.columns[place]), values.dtype)
        with np.errstate(over="ignore"):
            columns.append(values.astype(np.float32))
    if len(columns[0]):
        reading.take(np.stack(columns, axis=1))
    return reading.finished(classes)


def _values_of(frame: Any, place: int) -> NDArray[Any]:
    """Return a column; by its place where that is possible, for names may come twice."""
    return np.asarray(frame.iloc[:, place] if hasattr(frame, "iloc") else frame[frame.columns[place]])


class _Reading:
    """What was read of a table so far."""

    def __init__(self, path: Path, label_column: str | None) -> None:
        self.path, self.label_column = path, label_column
        self.labels = Texts()
        self.columns: tuple[str, ...] = ()
        self.notes: list[str] = []
        self._parts: list[NDArray[np.float32]] = []
        self._count = 0

    def features(self, names: Sequence[str]) -> tuple[list[int], int | None]:
        """Take the names of all columns; return the places of the features, and of the labels."""
        label = None
        if self.label_column is not None:
            places = [place for place, name in enumerate(names) if name == self.label_column]
            if not places:
                hint = nearest(self.label_column, names[:_COMPARED])
                raise DataError(f"{self.path} has no column {self.label_column!r}{hint} (it has {self._listed(names)})")
            if len(places) > 1:
                raise DataError(f"{self.path} has {len(places)} columns {self.label_column!r}; rename all but one")
            label = places[0]
        kept = [place for place in range(len(names)) if place != label]
        if not kept:
            raise DataError(f"{self.path} has no columns beside that of the labels; there must be features")
        self.columns = tuple(names[place] or f"column {place}" for place in kept)
        self._index = next((place for place, name in enumerate(kept) if names[name] in _INDEX), None)
        return kept, label

    def take(self, values: NDArray[np.float32]) -> None:
        """Take some rows (n, features)."""
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise self.wrong(self._count + int(row), int(column), "holds no finite float32 number")
        self._parts.append(values)
        self._count += len(values)
        if self._count * len(self.columns) > _MOST:
            raise DataError(
                f"{self.path} has over {_MOST:,} values, which is the limit of a table in memory; save the features as "
                ".npy, which is read piece by piece, and the labels with {labels}",
                parameter="labels",
            )

    def wrong(self, row: int, column: int | str, what: str, *, line: int | None = None) -> DataError:
        """Return an error that names file, column and row."""
        name = self.columns[column] if isinstance(column, int) else column
        at = "" if line is None else f" (line {line} of the file)"
        return DataError(f"{self.path}: column {shown(name)!r}, row {row}{at}: {what}", parameter="label_column")

    def no_numbers(self, name: str, kind: object) -> DataError:
        """Return an error that names a column which holds something else."""
        return DataError(
            f"{self.path}: column {shown(name)!r} holds {shown(kind)}, not numbers; encode it as in training, leave it "
            "out, or name it with {label_column} if it has the labels",
            parameter="label_column",
        )

    def finished(self, classes: tuple[str, ...]) -> Table:
        """Return the table."""
        if not self._count:
            raise DataError(f"{self.path} is empty: it has a header and no rows")
        x = np.concatenate(self._parts) if len(self._parts) > 1 else self._parts[0]
        if self._index is not None and len(self.columns) > 1 and _are_numbers_of_rows(x[:, self._index]):
            self.notes.append(f"{self.path.name}: column {self._index} has no name but numbers of rows; it is left out")
            self.columns = tuple(np.delete(np.array(self.columns, object), self._index))
            x = np.delete(x, self._index, axis=1)
        where = f"{self.path}: column {self.label_column!r}"
        labels = None if self.label_column is None else self.labels.numbered(where, classes=classes)
        return Table(x, self.columns, labels, tuple(self.notes))

    @staticmethod
    def _listed(names: Sequence[str]) -> str:
        first = ", ".join(shown(name) for name in names[:8])
        return f"{first}, ... {len(names)} in all" if len(names) > 8 else first


def _are_numbers_of_rows(values: NDArray[np.float32]) -> bool:
    """Return whether values may number rows, perhaps those of a larger table: whole, not negative, each once."""
    return bool((values >= 0).all() and (values == np.rint(values)).all() and len(np.unique(values)) == len(values))


def _csv_parts(reading: _Reading) -> Iterator[NDArray[np.float32]]:
    """Yield the features of a CSV file, and take its labels."""
    dialect = _csv.dialect_of(reading.path)
    found = _csv.rows(reading.path, dialect)
    header = next(found, None)
    if header is None:
        raise DataError(f"{reading.path} is empty: it has no header")
    width = len(header.fields)
    counted = width > 2 and header.fields == list(map(str, range(width)))  # as pandas names columns without names
    if not counted and all(_number(field, dialect) is not None for field in header.fields):
        raise DataError(
            f"{reading.path} has no header: its first line holds numbers; add a line with the names of the columns"
        )
    kept, label = reading.features(header.fields)
    values = array("d")
    row = 0
    for row, (fields, line) in enumerate(found):
        if len(fields) != width:
            raise DataError(
                f"{reading.path}: row {row} (line {line} of the file) has {len(fields)} fields, and the header has "
                f"{width}"
            )
        if label is not None:
            if fields[label].lower() in _NO_LABEL:
                raise reading.wrong(row, str(reading.label_column), "the label is missing", line=line)
            reading.labels.add(fields[label])
        values.extend(_numbers([fields[place] for place in kept], dialect, reading, row, line))
        if len(values) >= _PART * len(kept):
            yield _narrowed(values, len(kept))
            values = array("d")
    if values:
        yield _narrowed(values, len(kept))


def _narrowed(values: array[float], width: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.frombuffer(values, np.float64).reshape(-1, width).astype(np.float32)


def _numbers(fields: list[str], dialect: _csv.Dialect, reading: _Reading, row: int, line: int) -> list[float]:
    """Return the numbers of a row."""
    try:
        found = list(map(float, fields))
        if math.isfinite(sum(found)) and "_" not in "".join(fields):  # Python reads 1_2 as 12
            return found
    except ValueError:
        pass
    found = []
    for column, field in enumerate(fields):
        value = _number(field, dialect)
        if field.lower() in _NOTHING:
            raise reading.wrong(row, column, "the value is missing; fill it in, or leave out the row", line=line)
        if value is None:
            raise reading.wrong(
                row,
                column,
                f"{shown(field)!r} is no number; encode the column as in training, leave it out, or name it with "
                "{label_column} if it has the labels",
                line=line,
            )
        if not math.isfinite(value):
            raise reading.wrong(row, column, f"{shown(field)} is not finite", line=line)
        found.append(value)
    return found


def _number(field: str, dialect: _csv.Dialect) -> float | None:
    """Return the number that a field holds, 1 and 0 for truth values, as pandas writes them; None where it is none."""
    if field.lower() in _TRUTH:
        return _TRUTH[field.lower()]
    if dialect.has_decimal_commas and _DECIMAL_COMMA.fullmatch(field):
        field = field.replace(",", ".")
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def _parquet_parts(reading: _Reading) -> Iterator[NDArray[np.float32]]:
    """Yield the features of a Parquet file, and take its labels."""
    pyarrow, parquet = _pyarrow()
    check_regular(reading.path, DataError)
    if not reading.path.exists():
        raise missing(reading.path)
    try:
        with parquet.ParquetFile(reading.path) as file:
            schema = file.schema_arrow
            kept, label = reading.features(schema.names)
            for place in kept:
                _check_numeric(pyarrow, schema.field(place), reading)
            start = 0
            for part in file.iter_batches(_PART):
                if label is not None:
                    _take_labels(part.column(label).to_pylist(), reading, start)
                yield np.stack(
                    [_column(part.column(place), reading, column, start) for column, place in enumerate(kept)], axis=1
                )
                start += part.num_rows
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many types on damaged files
        raise DataError(f"cannot read {reading.path}: not a whole Parquet file ({shown(error)})") from None


def _check_numeric(pyarrow: ModuleType, field: Any, reading: _Reading) -> None:
    types = pyarrow.types
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if not any(is_kind(field.type) for is_kind in kinds):
        raise reading.no_numbers(field.name, field.type)


def _column(values: Any, reading: _Reading, column: int, start: int) -> NDArray[np.float32]:
    """Return a column's values as float32."""
    if values.null_count:
        row = start + int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise reading.wrong(row, column, "the value is missing; fill it in, or leave out the row")
    with np.errstate(over="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.float32)


def _take_labels(values: Iterable[Any], reading: _Reading, start: int) -> None:
    for row, value in enumerate(values, start):
        text = "" if value is None else (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
        if text.strip().lower() in _NO_LABEL:
            raise reading.wrong(row, str(reading.label_column), "the label is missing")
        reading.labels.add(text.strip())


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise MissingDependencyError(
            "Parquet files need pyarrow (the extra 'parquet'): pip install pyarrow, or save the table as CSV"
        ) from None
    return pyarrow, parquet
