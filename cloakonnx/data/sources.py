"""Where samples come from: npz, npy, tables, folders of images, Python scripts; all read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import _csv, _tables
from cloakonnx.data._classes import matched, renumbered
from cloakonnx.data._columns import pair_of
from cloakonnx.data._images import ImageFolder
from cloakonnx.data._labelled import labels_in
from cloakonnx.data._passes import Labelled, Passes
from cloakonnx.data._rows import ArrayFile
from cloakonnx.data.arrays import as_labels, check_samples, has_predicted_labels, load_array, load_npz, missing
from cloakonnx.data.batch import Batch
from cloakonnx.errors import DataError
from cloakonnx.kinds import kind_of_data
from cloakonnx.remote import fetched
from cloakonnx.text import composed
from cloakonnx.urls import name_of


class Source(Protocol):
    """Samples that can be gone through again and again, always in the same order."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def layout(self) -> str | None:
        """``nhwc`` where that is sure, else None."""

    @property
    def has_predicted_labels(self) -> bool:
        """Whether the labels are known to be a model's own predictions."""

    def count(self) -> int | None:
        """Return how many samples there are, None where only the end will tell."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the samples as stored, ``size`` at a time."""


@dataclass(frozen=True)
class ArraySource:
    """Samples in an array, in memory (npz) or mapped (npy)."""

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64] | None
    layout: str | None = None
    has_predicted_labels: bool = False
    file: ArrayFile | None = field(default=None, compare=False, repr=False)
    """Where the samples lie, where they can be read again by rows."""

    def count(self) -> int:
        """Return how many samples there are."""
        return len(self.x)

    def at(self, rows: NDArray[np.int64]) -> Labelled:
        """Return some samples, and their labels."""
        return self._samples(rows), None if self.y is None else self.y[rows]

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield slices of the array."""
        return (self.between(start, start + size) for start in range(0, len(self.x), size))

    def between(self, start: int, stop: int) -> Batch:
        """Return the samples from one to before another; no other one is read."""
        y = None if self.y is None else self.y[start:stop]
        return Batch(self._samples(slice(start, stop)), y, start)

    def for_classes(self, names: Sequence[str] | None) -> ArraySource:
        """Return the samples, with the places of the classes where labels are the numbers that a model's file has."""
        found = renumbered(self.name, self.y, names)
        if found is None:
            return self
        kept = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "y"}
        return ClassedArrays(**kept, y=found.labels, classes=found.classes, notes=found.notes)

    def _samples(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return some samples; those of a mapped file are read at once, when it is known to be as long as it was."""
        x = self.x
        if not isinstance(x, np.memmap):
            return x[rows]
        if x.filename is not None and Path(x.filename).stat().st_size < x.offset + x.nbytes:
            raise DataError(f"{self.name} was cut while it was read; run the same again")
        return np.array(x[rows])


@dataclass(frozen=True)
class ClassedArrays(ArraySource):
    """Samples in an array whose labels were read from a table: of the samples, or of the labels alone.

    Attributes:
        classes: Names of the classes in the order of the labels; none where these were numbers.
        are_named: Whether the names were given, not found.
        columns: Names of the features, for a table.
        notes: What a reader should know of how it was read.
    """

    classes: tuple[str, ...] = ()
    are_named: bool = False
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) the labels."""
        return self.y

    @property
    def classes_from(self) -> str:
        """What the names of the classes are taken from, for messages."""
        return "classes in its labels"

    def for_classes(self, names: Sequence[str] | None) -> ClassedArrays:
        """Return the samples with the labels that a model's names of its classes give them."""
        found = matched(self, names) if self.classes else renumbered(self.name, self.y, names)
        if found is None:
            return self
        return replace(self, y=found.labels, classes=found.classes, notes=(*self.notes, *found.notes))

    def for_input(self, wanted: Sequence[int | None] | None) -> ClassedArrays:
        """Return the samples, once it is sure that a table has as many columns as the model takes.

        Args:
            wanted: The model's input without the batch axis; None for free dimensions, or as a whole.

        Raises:
            DataError: it has not.
        """
        if not self.columns or wanted is None or None in wanted:
            return self
        takes, has = int(np.prod([size or 1 for size in wanted])), len(self.columns)
        if takes != has:
            usual = [name for name in self.columns if name.lower() in _tables.USUAL_LABELS]
            guess = f": is it {usual[0]!r}?" if usual and has == takes + 1 else ""
            way = f"name the column with the labels with {{label_column}}{guess}"
            if self.y is not None:
                others = [name for name in self.columns if name.lower() in _tables.USUAL_OTHERS]
                way = "leave out the columns that are none" + (f": {others[0]!r}?" if others and has > takes else "")
            raise DataError(
                f"{self.name} has {has} columns of features, and the model takes {takes}; {way}",
                parameter="label_column",
            )
        return self


@dataclass(frozen=True)
class ScriptSource:
    """Samples that a user's function yields as ``x`` or ``(x, y)`` batches of any size.

    A function that yields other samples at a later pass than at an earlier one is an error: results of two passes would
    be of different samples.
    """

    name: str
    function: Callable[[], Any]
    layout: str | None = None
    passes: Passes = field(default_factory=Passes, compare=False, repr=False)
    has_predicted_labels: ClassVar[bool] = False

    def count(self) -> int | None:
        """Only the end of the function tells."""
        return None

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield what the function yields, cut and joined to ``size``.

        Raises:
            DataError: the function fails, its batches do not fit one another, or they are others than at an earlier
                pass.
        """
        begun, self.passes.begun = self.passes.begun, None
        return rechunked(self.passes.followed(begun or self._parts(), self.name), size)

    def peek(self) -> tuple[int, ...] | None:
        """Return the shape of a sample, None where there is none; the next pass goes on with what was read for it."""
        parts = self.passes.begun or self._parts()
        first = next(parts, None)
        if first is None:
            return None
        self.passes.begun = chain([first], parts)
        return tuple(first[0].shape[1:])

    def _parts(self) -> Iterator[Labelled]:
        """Yield the function's batches, each checked against the first."""
        first: Labelled | None = None
        for item in self._items():
            part = self._part(item)
            if not len(part[0]):
                continue
            first = first or part
            for what, here, there in (
                ("shape", part[0].shape[1:], first[0].shape[1:]),
                ("type", part[0].dtype, first[0].dtype),
            ):
                if here != there:
                    raise DataError(f"{self.name} yields samples of unequal {what}: {there}, then {here}")
            if (part[1] is None) != (first[1] is None):
                raise DataError(f"{self.name} yields labels with some batches only")
            yield part

    def _items(self) -> Iterator[Any]:
        """Yield what the function yields; an array, tuple or mapping that it returns is one batch."""
        try:
            result = self.function()
            yield from [result] if isinstance(result, (tuple, np.ndarray, Mapping)) else result
        except DataError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise failed(self.name, error) from error

    def _part(self, item: Any) -> Labelled:
        item = pair_of(item, self.name) if isinstance(item, Mapping) else item
        pair = item if isinstance(item, (tuple, list)) else (item, None)  # PyTorch's loaders yield lists
        if len(pair) != 2:
            raise DataError(f"{self.name} yields {len(pair)} things at a time; x or (x, y) is needed")
        try:
            x, y = np.asarray(pair[0]), None if pair[1] is None else np.asarray(pair[1])
        except Exception as error:  # whatever the user's objects raise
            raise failed(self.name, error) from error
        check_samples(x, self.name)
        labels = None if y is None else as_labels(y, self.name)
        if labels is not None and len(labels) != len(x):
            raise DataError(f"{self.name} yields {len(x)} samples with {len(labels)} labels")
        return x, labels


def sample_shape(source: Source) -> tuple[int, ...] | None:
    """Return the shape of a source's samples as stored, None where there are none; no pass over a script is lost."""
    peek = getattr(source, "peek", None)
    if peek is not None:
        shape: tuple[int, ...] | None = peek()
        return shape
    first = next(source.batches(1), None)
    return None if first is None else tuple(first.x.shape[1:])


def rechunked(parts: Iterable[Labelled], size: int) -> Iterator[Batch]:
    """Yield samples and labels that come in parts of any size, cut and joined to ``size``, numbered from 0."""
    held: list[Labelled] = []
    start = 0
    for part in parts:
        held.append(part)
        while sum(len(x) for x, _ in held) >= size:
            x, y = _joined(held)
            yield Batch(x[:size], None if y is None else y[:size], start)
            start += size
            held = [(x[size:], None if y is None else y[size:])] if len(x) > size else []
    if held:
        yield Batch(*_joined(held), start)


def _joined(parts: list[Labelled]) -> Labelled:
    if len(parts) == 1:
        return parts[0]
    labels = [y for _, y in parts if y is not None]
    return np.concatenate([x for x, _ in parts]), np.concatenate(labels) if labels else None


def failed(name: str | Path, error: BaseException) -> DataError:
    """Return the error of a user's function that failed, in one line."""
    return DataError(" ".join(f"{name} failed: {type(error).__name__}: {error}".split()))


def open_source(
    path: str | PathLike[str],
    *,
    labels: str | PathLike[str] | None = None,
    label_column: str | None = None,
    classes: tuple[str, ...] = (),
    resize: int | None = None,
    crop: int | None = None,
) -> Source:
    """Open a file or folder of samples by what it is: ``.npz``, ``.npy``, ``.csv``, ``.parquet`` or a folder of images.

    Args:
        path: Where it is.
        labels: Labels of an ``.npy`` file of samples (``.npy`` or ``.csv``), or of the images of a folder (``.csv``).
        label_column: The column with the labels, of a table or of ``labels``.
        classes: Class names in the order of the model's outputs, where labels are names; by their numbers, else by
            name, where empty.
        resize: Scale images so that their shorter side has this many pixels.
        crop: Cut this many pixels square out of the middle.

    Raises:
        DataError: missing, empty, pickled, or not of these kinds.
        MissingDependencyError: Pillow or pyarrow is needed.
    """
    path, labels = fetched(path), None if labels is None else fetched(labels)
    suffix = path.suffix.lower()
    is_table, has_table = suffix in _tables.SUFFIXES, labels is not None and labels.suffix.lower() in _csv.SUFFIXES
    name, classes = name_of(path), tuple(map(composed, classes))
    if path.is_dir():
        _refuse(labels and not has_table, "labels", path, "a folder's labels are its class folders, or a CSV")
        _refuse(label_column and labels is None, "label_column", path, "it is for tables and CSV files of {labels}")
        return ImageFolder.open(
            path, classes=classes, resize=resize, crop=crop, labels=labels, label_column=label_column
        )
    _refuse(classes and not (is_table or has_table), "classes", path, "it is for folders of images and tables")
    _refuse(resize or crop, "resize" if resize else "crop", path, "it is for folders of images")
    _refuse(label_column and not (is_table or has_table), "label_column", path, "it is for tables")
    if is_table:
        _refuse(labels, "labels", path, "{label_column} names the column of a table that has them")
        _refuse(classes and label_column is None, "classes", path, "it names what is in {label_column}")
        table = _tables.read_table(path, label_column=label_column, classes=classes)
        return of_table(table, name, are_named=bool(classes))
    if suffix == ".npz":
        _refuse(labels, "labels", path, "an .npz file holds its labels as y")
        return _open_npz(path)
    if suffix == ".npy":
        x = check_samples(load_array(path, mapped=True), name)
        if labels is not None and has_table:
            found = labels_in(labels, len(x), label_column=label_column, classes=classes)
            return ClassedArrays(name, x, found.labels, classes=found.classes, are_named=bool(classes))
        y = None if labels is None else as_labels(load_array(labels), labels.name)
        if y is not None and len(y) != len(x):
            raise DataError(f"{labels} has {len(y)} labels for the {len(x)} samples of {name}")
        return ArraySource(name, x, y)
    if path.suffix == ".py" or ".py:" in path.name:
        raise DataError(
            f"{path} is a script; a script is run only where {{data_script}} or {{adversarial_script}} names it, as "
            "FILE.py:FUNCTION",
            parameter=("data_script", "adversarial_script"),
        )
    if not path.exists():
        raise missing(path)
    kind = kind_of_data(path)
    raise DataError(
        f"{path} is neither an .npz nor an .npy file, nor a folder of images, nor a table (.csv, .parquet)"
        + (f"; it is {kind}" if kind else "")
    )


def of_table(found: _tables.Table, name: str, *, are_named: bool) -> ClassedArrays:
    """Return the samples of a table that was read; ``are_named`` says whether its classes were given."""
    x, labels = check_samples(found.x, name), found.labels
    return ClassedArrays(
        name,
        x,
        None if labels is None else labels.labels,
        classes=() if labels is None else labels.classes,
        are_named=are_named,
        columns=found.columns,
        notes=found.notes,
    )


def _refuse(value: object, option: str, path: Path, why: str) -> None:
    if value:
        raise DataError(
            f"{{{option}}} does not go with {path.name}: {why}", parameter=(option, "label_column", "labels")
        )


def _open_npz(path: Path) -> ArraySource:
    x, y = load_npz(path)
    x, labels = check_samples(x, path.name), None if y is None else as_labels(y, path.name)
    if labels is not None and len(labels) != len(x):
        axis = next((axis for axis, size in enumerate(x.shape) if size == len(labels)), None)
        way = "" if axis is None else f"; axis {axis} has as many: numpy.moveaxis(x, {axis}, 0) puts the samples first"
        raise DataError(f"{path} has {len(labels)} labels for {len(x)} samples{way}")
    predicted = labels is not None and has_predicted_labels(path)
    file, name = ArrayFile.in_npz(path, "x"), name_of(path)
    return ArraySource(name, x, labels, has_predicted_labels=predicted, file=file)
