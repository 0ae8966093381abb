"""Labels as text: which number each class has, by the model's file, by ``--classes``, else in order of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data._listing import few, natural
from cloakonnx.errors import DataError, nearest
from cloakonnx.text import composed, shown

_ALL, _FIRST = 20, 8
"""Classes up to which all are shown with their numbers, and how many are shown of more."""

_WHOLE = re.compile(r"[+-]?\d{1,18}(?:\.0*)?")


class Classed(Protocol):
    """Samples whose classes have names, or may have."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) the labels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the labels; none where the labels were numbers."""

    @property
    def are_named(self) -> bool:
        """Whether the names were given, not found."""

    @property
    def classes_from(self) -> str:
        """What the names are taken from, for messages: class folders, say."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how it was read."""

    def for_classes(self, names: Sequence[str] | None) -> Self:
        """Return the samples with the labels that a model's names of its classes give them."""


class Numbered(NamedTuple):
    """Labels as numbers.

    Attributes:
        labels: (N,) int64.
        classes: Names of the classes in this order; none where the labels were numbers.
        notes: What a reader should know of them.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Texts:
    """Labels as they are read: each text once, and which one each sample has."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._labels: list[int] = []

    def add(self, text: str) -> None:
        """Take the label of the next sample."""
        self._labels.append(self._codes.setdefault(composed(text), len(self._codes)))

    def numbered(self, where: str, *, classes: tuple[str, ...] = ()) -> Numbered:
        """Return the labels as numbers: whole numbers as they are, names in the order of ``classes`` or their own.

        Args:
            where: What holds them, for messages.
            classes: The names in the order of the model's outputs.

        Raises:
            DataError: numbers that are not whole or negative, or a name that ``classes`` lacks.
        """
        labels, texts = np.array(self._labels, np.int64), list(self._codes)
        if classes:
            check_once(classes)
            unknown = next((text for text in texts if text not in classes), None)
            if unknown is not None:
                hint = nearest(unknown, classes)
                raise DataError(
                    f"{where} has the class {shown(unknown)!r} that {{classes}} lacks{hint}", parameter="classes"
                )
            return Numbered(np.array([classes.index(text) for text in texts], np.int64)[labels], classes)
        if all(_WHOLE.fullmatch(text) for text in texts):
            numbers = np.array([int(text.partition(".")[0]) for text in texts], np.int64)[labels]
            if len(numbers) and numbers.min() < 0:
                raise DataError(
                    f"{where} has the negative label {numbers.min()} in row {int(numbers.argmin())}; labels count "
                    "from 0 ({classes} A,B,... names them in the order of the model's outputs)",
                    parameter="classes",
                )
            return Numbered(numbers, ())
        if all(map(_is_number, texts)):
            code = next(code for code, text in enumerate(texts) if not _WHOLE.fullmatch(text))
            raise DataError(
                f"{where} has {shown(texts[code])} in row {self._labels.index(code)}; labels are names of classes, or "
                "whole numbers that count from 0"
            )
        names = tuple(sorted(texts, key=natural))
        return Numbered(np.array([names.index(text) for text in texts], np.int64)[labels], names)


def check_once(classes: Sequence[str]) -> None:
    """Raise DataError where ``--classes`` names a class twice."""
    if len(set(classes)) < len(classes):
        raise DataError(f"{{classes}} names a class twice: {','.join(classes)}", parameter="classes")


def matched(found: Classed, names: Sequence[str] | None) -> Numbered | None:
    """Return labels numbered as a model's file names its classes, and which class has which number; None without names.

    Where the file has other names, or ``--classes`` gives another order, a note shows both.

    Args:
        found: The samples.
        names: Of the classes in the order of the model's scores; None where its file has none.
    """
    labels, classes = found.labels, found.classes
    if labels is None or not classes:
        return None
    if names is None or all(name.isdigit() for name in classes):
        return Numbered(labels, classes, _listed(found.name, classes))
    if found.are_named or not set(classes) <= set(names):
        if classes == tuple(names):
            return Numbered(labels, classes, _listed(found.name, classes))
        given = "--classes gives" if found.are_named else f"the {found.classes_from} are taken in the order of"
        note = f"warning: {found.name}: {given} {few(classes)}, and the model's file names its classes {few(names)}"
        return Numbered(labels, classes, (note, *_listed(found.name, classes)))
    numbers = np.array([names.index(name) for name in classes], np.int64)
    note = (
        f"{found.name}: the {found.classes_from} are matched by name to the classes in the model's file ({few(names)})"
    )
    return Numbered(numbers[labels], tuple(names), (note, *_listed(found.name, names)))


def renumbered(name: str, labels: NDArray[np.int64] | None, names: Sequence[str] | None) -> Numbered | None:
    """Return the places of labels that are the numbers which a model's file gives its classes; None for others.

    Args:
        name: What to call the samples in messages.
        labels: (N,) their labels, numbers.
        names: Of the classes in the order of the model's scores; None where its file has none.
    """
    if labels is None or not len(labels) or names is None or not all(map(_WHOLE.fullmatch, names)):
        return None
    numbers = np.array(list(map(int, names)), np.int64)
    if not np.isin(labels, numbers).all():
        return None
    order = np.argsort(numbers)
    places = order[np.searchsorted(numbers, labels, sorter=order)].astype(np.int64)
    note = f"{name}: its labels are taken for the numbers of the classes in the model's file ({few(names)})"
    return Numbered(places, tuple(names), (note,))


def _listed(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Say which class has which number: of all, or of the first of many; nothing where names are their numbers."""
    if list(classes) == list(map(str, range(len(classes)))):
        return ()
    few_of = classes if len(classes) <= _ALL else classes[:_FIRST]
    said = ", ".join(f"{number} {shown(each)}" for number, each in enumerate(few_of))
    return (f"{name}: {len(classes)} classes: {said}{', ...' if len(few_of) < len(classes) else ''}",)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
