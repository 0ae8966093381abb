"""What lies in a folder of class folders: the pictures, the classes in their order, and what is passed over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import DataError, nearest
from cloakonnx.text import composed

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_SYSTEM = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_NAMED = 3


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder, and its classes.

    Attributes:
        files: Below the folder, in order of their class, then of their names.
        labels: (N,) int64.
        classes: The names of the classes, in the order of the labels.
        notes: What a reader should know of how the folder was read, in words.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Met:
    """What was passed over, and the pictures that lie deeper than their class folder."""

    system: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    deeper: int = 0


def listed(folder: Path, *, classes: tuple[str, ...]) -> Listing:
    """List the pictures of a folder of class folders.

    Args:
        folder: The folder.
        classes: The names of the classes in the order of the labels; by number, else by name, where empty.

    Raises:
        DataError: the folder cannot be read, has no class folders or no pictures, has a class folder that ``classes``
            lacks, or holds the parts of a data set (train, val) instead of classes.
    """
    if len(set(classes)) < len(classes):
        raise DataError(f"{{classes}} names a class twice: {','.join(classes)}", parameter="classes")
    met = _Met()
    try:
        inside = {name: list(_pictures(folder, name, met, ())) for name in _class_folders(folder, met)}
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
    if not inside:
        raise DataError(
            f"{folder} has no class folders; put the images of each class into a folder of its own, or name a CSV of "
            f"file names and labels with {{labels}}{_tables_in(met)}",
            parameter="labels",
        )
    found = {composed(name): files for name, files in inside.items() if files}
    met.without = [name for name in inside if composed(name) not in found and name not in classes]
    if not found:
        raise DataError(f"{folder} has no images in its class folders (known: {', '.join(sorted(SUFFIXES))})")
    if not classes:
        _check_parts(folder, found)
    names = classes or tuple(sorted(found, key=natural))
    unknown = next((name for name in sorted(found) if name not in names), None)
    if unknown is not None:
        raise DataError(
            f"{folder} has a folder {unknown!r} that {{classes}} lacks{nearest(unknown, names)}", parameter="classes"
        )
    files = [found.get(name, []) for name in names]
    labels = np.repeat(np.arange(len(names)), [len(each) for each in files]).astype(np.int64)
    notes = (*_about_order(folder, names, classes), *_about_skipped(folder, met))
    return Listing(tuple(file for each in files for file in each), labels, names, notes)


def pictures_in(folder: Path) -> tuple[str, ...]:
    """Return the pictures of a folder and of those below it, as paths from it, in order of their names.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return tuple(name.removeprefix("./") for name in _pictures(folder, ".", _Met(), ()))
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None


def _tables_in(met: _Met) -> str:
    tables = [name for name in met.others if name.lower().endswith(".csv")]
    return f" ({few(tables)}?)" if tables else ""


def _class_folders(folder: Path, met: _Met) -> Iterator[str]:
    """Yield the names of the folders that may be classes; note what else there is."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if _is_passed_over(entry.name, met):
            continue
        if entry.is_dir():
            yield entry.name
        elif _is_picture(entry):
            met.outside.append(entry.name)
        else:
            met.others.append(entry.name)


def _pictures(folder: Path, below: str, met: _Met, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the pictures of a class folder and of the folders in it, in order of their names."""
    here = os.path.realpath(folder / below)
    if here in above:  # a link to a folder that it lies in
        met.others.append(below)
        return
    for entry in sorted(os.scandir(folder / below), key=lambda entry: entry.name):
        path = f"{below}/{entry.name}"
        if _is_passed_over(entry.name, met):
            continue
        if entry.is_dir():
            yield from _pictures(folder, path, met, (*above, here))
        elif _is_picture(entry):
            met.deeper += bool(above)
            yield path
        else:
            met.others.append(path)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file()


def _is_passed_over(name: str, met: _Met) -> bool:
    """Return whether a file or folder is hidden or an operating system's; note it where it is."""
    if name in _SYSTEM:
        met.system.append(name)
    elif name.startswith("."):
        met.hidden.append(name)
    else:
        return False
    return True


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """Return a key that sorts by the numbers in names: class2 before class10."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def _check_parts(folder: Path, found: dict[str, list[str]]) -> None:
    """Raise DataError where the folders are the parts of a data set, with the class folders one level deeper."""
    deeper = all(file.count("/") > 1 for files in found.values() for file in files)
    if deeper and all(name.lower() in _PARTS for name in found):
        names = sorted(found)
        raise DataError(
            f"{folder} holds {', '.join(names)}: these look like the parts of a data set, not like classes; name one "
            f"of them, {folder / names[0]} say (or, if they are classes, all of them with {{classes}})",
            parameter="classes",
        )


def _about_order(folder: Path, names: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    as_text = sorted(names)
    if not classes and list(names) != as_text:
        yield (
            f"{folder.name}: the class folders are taken in order of their numbers ({few(names)}), not of their text "
            f"({few(as_text)}); --classes gives another order"
        )


def _about_skipped(folder: Path, met: _Met) -> Iterator[str]:
    skipped = [
        f"{count_of(len(names), what)} ({few(names)})"
        for names, what in (
            (met.system, "system folder"),
            (met.hidden, "hidden file or folder"),
            (met.without, "folder without pictures"),
            (met.others, "file that is no picture"),
            (met.outside, "picture outside the class folders"),
        )
        if names
    ]
    said = [f"skipped {', '.join(skipped)}"] if skipped else []
    if met.deeper:
        said.append(f"read {count_of(met.deeper, 'picture')} in sub-folders of class folders")
    if said:
        yield f"{folder.name}: {'; '.join(said)}"


_MANY = {
    "class": "classes",
    "class folder with pictures": "class folders with pictures",
    "hidden file or folder": "hidden files or folders",
    "folder without pictures": "folders without pictures",
    "file that is no picture": "files that are no pictures",
    "picture outside the class folders": "pictures outside the class folders",
    "file that it names is missing": "files that it names are missing",
    "picture has no label and is left out": "pictures have no label and are left out",
    "file is named more than once and taken once": "files are named more than once and taken once",
}


def count_of(number: int, what: str) -> str:
    """Return a number and what is counted, in the plural where it is not one."""
    return f"{number} {what if number == 1 else _MANY.get(what, what + 's')}"


def few(names: Sequence[str]) -> str:
    """Return the first of some names, without characters that a terminal would obey."""
    shown = [repr(name)[1:-1] for name in names[:_NAMED]]
    return ", ".join([*shown, "..."] if len(names) > _NAMED else shown)
