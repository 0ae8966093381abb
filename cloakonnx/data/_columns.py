"""Samples in columns by name, as data frames, Hugging Face's data sets and their batches have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloakonnx.data._tables import USUAL_LABELS
from cloakonnx.errors import DataError, nearest
from cloakonnx.text import shown


def is_frame(given: Any) -> bool:
    """Return whether something is a table of pandas or polars, or like one."""
    return all(hasattr(given, name) for name in ("columns", "dtypes", "to_numpy"))


def is_dataset(given: Any) -> bool:
    """Return whether something is a data set of Hugging Face, or like one: rows that come as columns by name."""
    return all(hasattr(given, name) for name in ("column_names", "with_format", "__getitem__", "__len__"))


def batches_of(dataset: Any, size: int, name: str, label_column: str | None) -> Iterator[tuple[Any, Any]]:
    """Yield the samples and labels of such a data set.

    Raises:
        DataError: it has not one column of samples, or not one of labels.
    """
    rows = dataset.with_format("numpy")
    for start in range(0, len(rows), size):
        yield pair_of(rows[start : start + size], name, label_column)


def pair_of(batch: Mapping[str, Any], name: str, label_column: str | None = None) -> tuple[Any, Any]:
    """Return samples and labels of a batch whose parts have names.

    Args:
        batch: Columns by name: one of samples, one of labels (``label``, ``y`` and the like).
        name: What messages call it.
        label_column: The one with the labels.

    Raises:
        DataError: there is not one of each.

    Examples:
        >>> pair_of({"image": [[0.5]], "label": [1]}, "it")
        ([[0.5]], [1])
    """
    names = list(batch)
    listed = ", ".join(shown(each) for each in names[:8]) + ", ..." * (len(names) > 8)
    if label_column is not None and label_column not in names:
        hint = nearest(label_column, names)
        raise DataError(f"{name} has no column {label_column!r}{hint} (it has {listed})", parameter="label_column")
    labels = [each for each in names if each == label_column or (label_column is None and each in USUAL_LABELS)]
    others = [each for each in names if each not in labels]
    if len(labels) == 1 and len(others) == 1:
        return batch[others[0]], batch[labels[0]]
    raise DataError(
        f"{name} has the columns {listed}; one of samples and one of labels are needed: keep two of them, or give "
        "(x, y); of a table in many columns, a DataFrame (to_pandas()) with {label_column}",
        parameter="label_column",
    )
