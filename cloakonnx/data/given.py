"""Samples as a user has them: arrays, files, folders, iterables of batches, functions; one rule for every verb."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data._columns import batches_of, is_dataset, is_frame, pair_of
from cloakonnx.data._tables import read_frame
from cloakonnx.data.arrays import as_labels, check_samples
from cloakonnx.data.scripts import open_script
from cloakonnx.data.sources import ArraySource, ScriptSource, Source, of_table, open_source
from cloakonnx.errors import DataError

Given: TypeAlias = Source | NDArray[Any] | tuple[Any, Any] | str | PathLike[str] | Iterable[Any] | Callable[[], Any]
"""What samples are taken from: an array (N, ...), a tuple ``(x, y)``, a path, an iterable of batches, or a function."""

_BATCH = 256
_OF_FILES = ("labels", "label_column", "classes", "resize", "crop")
_KINDS = (
    "an array, (x, y), a DataFrame, the path of an .npz or .npy file, a table or a folder of images, an iterable of "
    "batches that can be gone through again, or a function that returns one"
)


@dataclass(frozen=True)
class Samples:
    """Samples with settings that the bare value does not hold.

    Wherever samples are taken, these are too, without settings:

    - an array (N, ...) of uint8, which is divided by 255, or of floats in pixel space; or ``(x, y)`` with labels (N,);
    - the path of an ``.npz`` (x and y) or ``.npy`` file, of a table (``.csv``, ``.parquet``), or of a folder of images;
    - a ``DataFrame`` of pandas or polars with ``label_column``: what a CSV of it would give;
    - an iterable of batches ``x``, ``(x, y)`` or ``{"image": x, "label": y}`` that can be gone through again: a torch
      ``DataLoader``, a list, a ``Dataset`` of Hugging Face. Each pass has to give the same samples in the same order;
    - a function without parameters that returns one of these, or a generator of batches.

    A generator is refused, because samples are gone through several times: give the function that makes it.

    Attributes:
        given: One of the above.
        labels: Path of the labels of an ``.npy`` file of samples (``.npy`` or ``.csv``), or of one folder of images
            (``.csv`` with a column of files and one of labels).
        label_column: The column with the labels, of a table, of ``labels``, of a ``DataFrame`` or of a ``Dataset``.
        classes: Class names in the order of the model's outputs, where labels are names.
        resize: Scale images of a folder so that their shorter side has this many pixels.
        crop: Cut this many pixels square out of the middle of images of a folder.
        limit: Number of samples to take: evenly by class where the labels are known beforehand, else the first ones.
        name: What messages and records call the samples; the file's name, say, where None.

    Raises:
        DataError: a limit below 1; when samples are first used, not one of these, or a file that is missing, pickled or
            damaged.

    Examples:
        >>> import cloakonnx as ck
        >>> clf = ck.Classifier("samples/digits_cnn.onnx")
        >>> ck.accuracy(clf, ck.Samples("samples/digits_test_fgsm.npz", limit=100)).count
        100
    """

    given: Given
    labels: str | PathLike[str] | None = None
    label_column: str | None = None
    classes: tuple[str, ...] = ()
    resize: int | None = None
    crop: int | None = None
    limit: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Check the limit."""
        if self.limit is not None and self.limit < 1:
            raise DataError(f"{{limit}} {self.limit} must be at least 1", parameter="limit")

    @classmethod
    def script(cls, spec: str, *, limit: int | None = None) -> Samples:
        """Return the samples that a function of a file yields; this runs the file.

        Args:
            spec: ``FILE.py:FUNCTION``.
            limit: Number of samples to take.

        Raises:
            DataError: no such file or function, or the file fails.
        """
        return cls(open_script(spec), limit=limit)

    @cached_property
    def source(self) -> Source:
        """The opened source; raises DataError."""
        given = self.given
        if isinstance(given, (str, PathLike)):
            return open_source(
                given,
                labels=self.labels,
                label_column=self.label_column,
                classes=tuple(self.classes),
                resize=self.resize,
                crop=self.crop,
            )
        has_columns = is_frame(given) or is_dataset(given)
        names = {"labels", "resize", "crop"} if is_frame(given) else {"labels", "classes", "resize", "crop"}
        unused = next((name for name in _OF_FILES if getattr(self, name) and (name in names or not has_columns)), None)
        if unused is not None:
            raise DataError(f"{{{unused}}} is for samples in files, not for {_kind(given)}", parameter=unused)
        name = self.name or f"the {type(given).__name__}"
        if is_frame(given):
            if self.classes and self.label_column is None:
                raise DataError("{classes} names what is in {label_column}", parameter=("classes", "label_column"))
            found = read_frame(given, name, label_column=self.label_column, classes=tuple(self.classes))
            return of_table(found, name, are_named=bool(self.classes))
        if is_dataset(given):
            return ScriptSource(name, lambda: batches_of(given, _BATCH, name, self.label_column))
        return _source(given, self.name)


@dataclass(frozen=True)
class Pairs:
    """Clean samples and their adversarial versions, in the same order.

    Attributes:
        clean: The clean samples, of any kind that :class:`Samples` takes. A limit holds for both.
        adversarial: The adversarial versions.

    Examples:
        >>> import cloakonnx as ck
        >>> x = np.zeros((4, 1, 8, 8), np.float32)
        >>> pairs = ck.Pairs(x, x + np.float32(1 / 16))
    """

    clean: Samples | Given
    adversarial: Samples | Given


def source_of(given: Samples | Given) -> Source:
    """Return the source of samples of any kind.

    Raises:
        DataError: not one of these kinds, a generator, or a file that can't be used.
    """
    return (given if isinstance(given, Samples) else Samples(given)).source


def _source(given: Any, name: str | None) -> Source:
    if hasattr(given, "batches") and hasattr(given, "has_predicted_labels"):
        source: Source = given
        return source
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], (tuple, list)):
        return _in_memory(*given, name or "the array")
    if _is_array(given):
        return _in_memory(given, None, name or "the array")
    if isinstance(given, Iterator):
        raise DataError(
            f"{_kind(given)} can be gone through once only, and samples are gone through several times: give the "
            "function that makes it (without calling it), a list of batches, or arrays"
        )
    if isinstance(given, Mapping):
        raise DataError(f"samples as {_kind(given)} say neither what is x nor what is y: give (found['x'], found['y'])")
    if isinstance(given, Iterable):
        batches = list(given) if isinstance(given, tuple) else given  # a function's tuple would be one batch
        called = name or f"the {type(given).__name__}"
        return ScriptSource(called, lambda: _pairs(batches, called))
    if callable(given):
        called = name or f"{getattr(given, '__name__', type(given).__name__)}()"
        return ScriptSource(called, lambda: _pairs(_called(given), called))
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):  # a torch Dataset: single samples, not batches
        raise DataError(f"{_kind(given)} gives single samples: give batches, with torch.utils.data.DataLoader(it, 64)")
    raise DataError(f"samples can't be taken from {_kind(given)}: give {_KINDS}")


def _in_memory(x: Any, y: Any, name: str) -> ArraySource:
    samples = check_samples(np.asarray(x), name)
    labels = None if y is None else as_labels(np.asarray(y), name)
    if labels is not None and len(labels) != len(samples):
        raise DataError(f"{name} has {len(labels)} labels for {len(samples)} samples")
    return ArraySource(name, samples, labels)


def _called(function: Callable[[], Any]) -> Any:
    """Return what a function returns, as batches."""
    found = function()
    has_columns = is_frame(found) or is_dataset(found)
    if has_columns or isinstance(found, (Samples, str, PathLike)) or hasattr(found, "has_predicted_labels"):
        return ((batch.x, batch.y) for batch in source_of(found).batches(_BATCH))
    return found


def _pairs(found: Any, name: str) -> Any:
    """Return what a function or an iterable gives, each batch of columns as a pair."""
    if not isinstance(found, Iterable) or isinstance(found, tuple) or _is_array(found):
        return found
    return (pair_of(item, name) if isinstance(item, Mapping) else item for item in found)


def _is_array(given: Any) -> bool:
    return isinstance(given, np.ndarray) or (hasattr(given, "__array__") and hasattr(given, "shape"))


def _kind(given: Any) -> str:
    """Return what something is, with an article, for messages."""
    name = type(given).__name__
    return f"a{'n' * (name[0].lower() in 'aeiou')} {name}"
