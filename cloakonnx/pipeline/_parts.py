"""The samples of a hardening: to learn or score on, to choose on, and to report on; no sample is in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import Source
from cloakonnx.data.subset import Subset, interleaved, survey
from cloakonnx.errors import DataError

SHARES = {"learn": 0.4, "select": 0.2, "report": 0.4}
"""How one file is split (design decision 6)."""


@dataclass(frozen=True)
class DataPart:
    """One part.

    Attributes:
        data: Its samples.
        count: How many.
        digest: Tells it from others: of the source, and of which samples.
    """

    data: Dataset
    count: int
    digest: str


@dataclass(frozen=True)
class DataParts:
    """All parts.

    Attributes:
        learn: To learn masks, or to score features.
        select: To choose within the budget.
        report: For the evaluation.
        split: How the data was split, in words; None where every part has its own file.
    """

    learn: DataPart
    select: DataPart
    report: DataPart
    split: str | None


def part_data(
    data: Dataset,
    select: Dataset | None,
    report: Dataset | None,
    *,
    strata: Callable[[NDArray[np.int64]], list[NDArray[np.int64]]],
    learn_most: int | None,
    report_most: int | None,
    seed: int,
) -> DataParts:
    """Split the data among the parts that have no samples of their own, class by class.

    Args:
        data: Labelled samples, fitted to the model.
        select: Samples to choose on.
        report: Samples to report on.
        strata: Gives the rows of each class, of labels.
        learn_most: How many to learn or score on at most.
        report_most: How many to report on at most.
        seed: Of the split.

    Raises:
        DataError: no labels, a value outside the bounds, a label outside the classes, or a part would be empty.
    """
    own = {"select": select, "report": report}
    names = [name for name in SHARES if own.get(name) is None]
    found = survey(data.chosen, limit=data.limit, check=data.fit)
    order = interleaved(strata(found.labels), seed=seed)
    total = sum(SHARES[name] for name in names)
    cuts = np.rint(np.cumsum([0.0, *(SHARES[name] / total for name in names)]) * len(order)).astype(int)
    most = {"learn": learn_most, "select": None, "report": report_most}
    parts = {}
    for name, start, end in zip(names, cuts, cuts[1:], strict=False):
        parts[name] = _part(data, found.digest, order[start:end][: most[name]], name, whole=len(order))
    for name, given in own.items():
        if given is not None:
            seen = survey(given.chosen, limit=given.limit, check=given.fit)
            rows = interleaved(strata(seen.labels), seed=seed)[: most[name]]
            parts[name] = _part(given, seen.digest, rows, name, whole=len(seen.labels))
    split = None
    if len(names) > 1:
        counts = ", ".join(f"{parts[name].count} to {name}" for name in names)
        split = f"{data.source.name}, {len(order)} samples, split class by class: {counts}"
    return DataParts(**parts, split=split)


def _part(data: Dataset, digest: str, rows: NDArray[np.int64], name: str, *, whole: int) -> DataPart:
    if not len(rows):
        raise DataError(
            f"{data.source.name}: {whole} samples are too few for a part to {name} on; give more, or name files "
            "for the parts with {select_data} and {report_data}",
            parameter=("select_data", "report_data"),
        )
    if len(rows) == whole:
        return DataPart(data, whole, digest)
    rows = np.sort(rows)
    source: Source = Subset(data.chosen, rows, f"{data.source.name} ({name} part)")
    own = replace(data, source=source, limit=None, rows=None)
    return DataPart(own, len(rows), f"{digest}:{hashlib.sha256(rows.tobytes()).hexdigest()}")
