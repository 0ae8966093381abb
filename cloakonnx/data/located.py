"""Batches on their way to other processes: without the pixels, where these can be read again from the same files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data._images import ImageFolder
from cloakonnx.data._rows import ArrayFile
from cloakonnx.data.batch import Batch
from cloakonnx.data.layout import Arrangement, to_pixels
from cloakonnx.data.sources import ArraySource, Source
from cloakonnx.data.subset import Subset
from cloakonnx.errors import CloakError


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Some rows of an array in a file.

    Attributes:
        file: The file.
        rows: (M,) the rows, or from the first one to before the last one.
    """

    file: ArrayFile
    rows: slice | NDArray[np.int64]

    def read(self) -> NDArray[Any]:
        """Return the samples as stored."""
        return self.file.read(self.rows)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Some images of a folder."""

    folder: ImageFolder

    def read(self) -> NDArray[Any]:
        """Return the samples as stored."""
        return next(self.folder.batches(len(self.folder.files))).x


Place: TypeAlias = ArrayRows | Pictures


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the pixels of a batch come from.

    Attributes:
        place: Of the samples as stored.
        arrangement: How they are laid out for the model.
        bounds: Smallest and largest value of pixel space.
    """

    place: Place
    arrangement: Arrangement
    bounds: tuple[float, float]

    def read(self) -> NDArray[np.float32]:
        """Return the pixels; raises CloakError, OSError or ValueError where they can't be read here."""
        return to_pixels(Batch(self.place.read(), None, 0), self.arrangement, self.bounds, "")


class _Digested(Protocol):
    def digest(self) -> str:
        """Return what tells these samples from others."""


@dataclass(frozen=True, eq=False)
class Located:
    """A batch without its pixels.

    Attributes:
        batch: The batch, in which arrays that can be read again have no samples.
        digest: Of the whole batch.
    """

    batch: Any
    digest: str

    def whole(self) -> Any | None:
        """Return the batch with pixels that are read here; None where the files are missing here, or others."""
        try:
            found = _filled(self.batch)
        except (CloakError, OSError, ValueError):
            return None
        return found if found.digest() == self.digest else None


def without_pixels(batch: _Digested) -> Located | None:
    """Return a batch without its pixels; None where they can't be read again from files."""
    light = _emptied(batch)
    return None if light is batch else Located(light, batch.digest())


def origin_of(
    source: Source, rows: NDArray[np.int64], arrangement: Arrangement, bounds: tuple[float, float]
) -> Origin | None:
    """Return where the pixels of some samples can be read again; None where they can't.

    Args:
        source: The samples.
        rows: (M,) which of them, rising.
        arrangement: How they are laid out for the model.
        bounds: Smallest and largest value of pixel space.
    """
    place = _place(source, rows)
    return None if place is None else Origin(place, arrangement, bounds)


def _place(source: Source, rows: NDArray[np.int64]) -> Place | None:
    if isinstance(source, Subset):
        return _place(source.source, source.rows[rows])
    if isinstance(source, ImageFolder):
        few = source.take(rows)
        nothing = np.zeros(len(rows), np.int64)
        return Pictures(replace(few, folder=few.folder.absolute(), labels=nothing, classes=(), notes=(), grey=set()))
    if not isinstance(source, ArraySource):
        return None
    file = source.file or ArrayFile.mapped(source.x)
    is_range = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    return None if file is None else ArrayRows(file, slice(int(rows[0]), int(rows[-1]) + 1) if is_range else rows)


def _emptied(batch: Any) -> Any:
    return _changed(batch, lambda value: {name: getattr(value, name)[:0] for name, _ in value.origins})


def _filled(batch: Any) -> Any:
    return _changed(batch, lambda value: {name: origin.read() for name, origin in value.origins} | {"origins": ()})


def _changed(value: Any, change: Callable[[Any], dict[str, Any]]) -> Any:
    """Return a batch with other fields, and the batches in it as well; the same one where nothing changes."""
    if not hasattr(value, "_fields"):
        return value
    inside = {name: _changed(getattr(value, name), change) for name in value._fields}
    changed = {name: each for name, each in inside.items() if each is not getattr(value, name)}
    if getattr(value, "origins", ()):
        changed |= change(value)
    return value._replace(**changed) if changed else value
