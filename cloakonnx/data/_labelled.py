"""Labels from a CSV: of the pictures in one folder, by their file names, or of an array, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cloakonnx.data import _csv
from cloakonnx.data._classes import Numbered, Texts
from cloakonnx.data._listing import Listing, count_of, few, pictures_in
from cloakonnx.data._tables import USUAL_LABELS
from cloakonnx.errors import DataError, nearest
from cloakonnx.text import shown

_USUAL_FILES = (
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "image_id",
    "img",
)


class _Columns(NamedTuple):
    """Where a CSV has files and labels.

    Attributes:
        file: Place of the file names.
        label: Place of the labels.
        has_header: Whether the first row names the columns.
    """

    file: int
    label: int
    has_header: bool


def listed_in(path: Path, folder: Path, *, label_column: str | None, classes: tuple[str, ...]) -> Listing:
    """List the pictures of a folder that a CSV has labels for, in the order of its rows.

    Args:
        path: The CSV: a column of file names, with or without the folder and the suffix, and one of labels.
        folder: Where the pictures are, in it or in folders below it.
        label_column: The column with the labels; found by its name where None.
        classes: Names of the classes in the order of the model's outputs.

    Raises:
        DataError: no such columns, none of the files, a file with two labels, or a missing label.
    """
    files = _Files(folder, path)
    found = list(_csv.rows(path, _csv.dialect_of(path)))
    if not found:
        raise DataError(f"{path} has no rows")
    columns = _columns(found, files, label_column, path)
    labels: dict[str, str] = {}
    named, missing = Counter[str](), list[str]()
    for row in found[columns.has_header :]:
        name, label = _fields(row, columns, path)
        file = files.find(name)
        if file is None:
            missing.append(name)
            continue
        named[file] += 1
        if labels.setdefault(file, label) != label:
            raise DataError(
                f"{path}: line {row.line} gives {shown(file)} the label {shown(label)!r}, and a line before it "
                f"{shown(labels[file])!r}; a picture has one class"
            )
    if not labels:
        raise DataError(
            f"{path} names no picture that is in {folder}: {few(missing)}; column of files and folder are right?"
        )
    texts = Texts()
    for label in labels.values():
        texts.add(label)
    numbered = texts.numbered(str(path), classes=classes)
    return Listing(
        tuple(labels), numbered.labels, numbered.classes, tuple(_notes(path, labels, named, missing, files.names))
    )


def labels_in(path: Path, count: int, *, label_column: str | None, classes: tuple[str, ...]) -> Numbered:
    """Return the labels of an array's samples: one row of the CSV each, in their order.

    Raises:
        DataError: no such column, another number of rows, or a missing label.
    """
    found = list(_csv.rows(path, _csv.dialect_of(path)))
    if not found:
        raise DataError(f"{path} has no rows")
    first = [field.lower() for field in found[0].fields]
    has_header = label_column is not None or len(found) == count + 1 or any(name in first for name in USUAL_LABELS)
    if len(found) - has_header != count:
        raise DataError(f"{path} has {len(found) - has_header} rows of labels for {count} samples")
    header, width = found[0].fields, len(found[0].fields)
    place = _label_place(header, label_column, path) if has_header else None
    if place is None:
        if width > 2 or (width == 2 and [row.fields[0] for row in found[has_header:]] != list(map(str, range(count)))):
            raise DataError(
                f"{path} has {width} columns ({few(header)}); name that of the labels with {{label_column}}",
                parameter="label_column",
            )
        place = width - 1  # behind the number of the row, as pandas writes it
    texts = Texts()
    for row in found[has_header:]:
        texts.add(_field(row, place, path))
    return texts.numbered(str(path), classes=classes)


class _Files:
    """The pictures in a folder, found by what a CSV may call them."""

    def __init__(self, folder: Path, listing: Path) -> None:
        self.names = pictures_in(folder)
        self._known = set(self.names)
        self._folder, self._beside = folder.resolve(), listing.parent.resolve()
        short = [(key, name) for name in self.names for key in _short(name)]
        counts = Counter(key for key, _ in short)
        self._short = {key: name for key, name in short if counts[key] == 1}

    def find(self, name: str) -> str | None:
        """Return a picture by its path from the folder or from the CSV, or by a shorter name that is its own."""
        path = PurePosixPath(name.replace("\\", "/"))
        for base in (self._folder, self._folder.parent, self._beside):
            try:
                below = (base / path).relative_to(self._folder).as_posix()
            except ValueError:
                continue
            if below in self._known:
                return below
        return self._short.get(path.as_posix())


def _short(name: str) -> set[str]:
    """Return shorter names of a picture: without its suffix, without its folder, without both."""
    path = PurePosixPath(name)
    return {path.with_suffix("").as_posix(), path.name, path.stem} - {name}


def _columns(found: Sequence[_csv.Row], files: _Files, label_column: str | None, path: Path) -> _Columns:
    """Find the columns of file names and labels: by the header, else by which holds the name of a picture."""
    first = found[0].fields
    if len(first) < 2:
        raise DataError(f"{path} has one column; a column of file names and one of labels are needed")
    places = [place for place, field in enumerate(first) if files.find(field) is not None]
    if places and label_column is None:
        if len(first) > 2:
            raise DataError(f"{path} has {len(first)} columns and no header; add a line with their names: file,label")
        return _Columns(places[0], 1 - places[0], has_header=False)
    lower = [field.lower() for field in first]
    file = next((lower.index(name) for name in _USUAL_FILES if name in lower), None)
    if file is None:
        held = (place for row in found[1:] for place, field in enumerate(row.fields) if files.find(field) is not None)
        file = next(held, None)
    label = _label_place(first, label_column, path)
    if file is not None and label is None and len(first) == 2:
        label = 1 - file
    if file is None:
        raise DataError(f"{path} names no picture that is in the folder in any column ({few(first)})")
    if label is None:
        raise DataError(
            f"{path} has the columns {few(first)}; name that of the labels with {{label_column}}",
            parameter="label_column",
        )
    return _Columns(file, label, has_header=True)


def _label_place(header: Sequence[str], label_column: str | None, path: Path) -> int | None:
    """Return the place of the labels: of a column that was named, else of one with a usual name."""
    if label_column is None:
        lower = [name.lower() for name in header]
        return next((lower.index(name) for name in USUAL_LABELS if name in lower), None)
    if label_column not in header:
        raise DataError(f"{path} has no column {label_column!r}{nearest(label_column, header)} (it has {few(header)})")
    return list(header).index(label_column)


def _fields(row: _csv.Row, columns: _Columns, path: Path) -> tuple[str, str]:
    return _field(row, columns.file, path), _field(row, columns.label, path)


def _field(row: _csv.Row, place: int, path: Path) -> str:
    if place >= len(row.fields) or not row.fields[place]:
        raise DataError(f"{path}: line {row.line} has nothing in column {place + 1}; file and label are needed")
    return row.fields[place]


def _notes(
    path: Path, labels: dict[str, str], named: Counter[str], missing: Sequence[str], files: Sequence[str]
) -> list[str]:
    """Say which files are missing, have no label, or are named twice."""
    without = [name for name in files if name not in labels]
    twice = [name for name, times in named.items() if times > 1]
    said = [
        f"{count_of(len(names), what)} ({few(names)})"
        for names, what in (
            (missing, "file that it names is missing"),
            (without, "picture has no label and is left out"),
            (twice, "file is named more than once and taken once"),
        )
        if names
    ]
    return [f"{path.name}: {'; '.join(said)}"] if said else []
