"""Samples in memory, with labels or a model's predictions: read once, split once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.levels import as_levels, as_pixels
from cloakonnx.data.samples import Dataset, sample_hashes
from cloakonnx.errors import DataError

_READ = 256
HELD_OUT = 0.2
"""Share of the data that is held out for choosing (design decision 6)."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """Samples and their labels.

    Attributes:
        name: Of their source.
        x: (N, ...) pixels in the model's layout: uint8 where every value is a level of 1/255, else float32.
        y: (N,) int64 labels, or predictions that stand in for them.
        hashes: One for each.
        has_labels: Whether the labels came with the samples.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64]
    hashes: tuple[str, ...]
    has_labels: bool = True

    @classmethod
    def read(
        cls, dataset: Dataset, *, predict: Callable[[NDArray[np.float32]], NDArray[np.int64]] | None = None
    ) -> Loaded:
        """Read all samples of a dataset.

        Args:
            dataset: The dataset.
            predict: Gives the classes of a batch without labels; where None, labels are needed.

        Raises:
            DataError: no sample, or no labels.
        """
        parts: list[NDArray[Any]] = []
        labels: list[NDArray[np.int64]] = []
        hashes: list[str] = []
        has_labels = True
        for batch in dataset.batches(_READ):
            has_labels = has_labels and batch.y is not None
            if batch.y is not None:
                labels.append(batch.y)
            elif predict is not None:
                labels.append(predict(batch.x))
            else:
                raise DataError(
                    f"{dataset.source.name} has no labels, which are needed here (y in .npz, {{labels}} for .npy)",
                    parameter="labels",
                )
            levels = as_levels(batch.x) if dataset.preprocessing.bounds == (0.0, 1.0) else None
            exact = levels is not None and np.array_equal(as_pixels(levels), batch.x)
            parts.append(levels if levels is not None and exact else batch.x)
            hashes += sample_hashes(batch.x)
        if not parts:
            raise DataError(f"{dataset.source.name} is empty: it has no samples")
        if len({part.dtype for part in parts}) > 1:
            parts = [as_pixels(part) for part in parts]
        return cls(dataset.source.name, np.concatenate(parts), np.concatenate(labels), tuple(hashes), has_labels)

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.y)

    @property
    def digest(self) -> str:
        """Hex digest that tells these samples and labels from others."""
        return hashlib.sha256("".join(self.hashes).encode() + self.y.tobytes()).hexdigest()

    def take(self, rows: NDArray[np.int64]) -> Loaded:
        """Return some of the samples."""
        return Loaded(self.name, self.x[rows], self.y[rows], tuple(self.hashes[i] for i in rows), self.has_labels)

    def pixels(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return some samples as float32 pixels."""
        return as_pixels(self.x[rows])

    def batches(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield all samples in order as float32 pixels, ``size`` at a time."""
        return (self.pixels(slice(start, start + size)) for start in range(0, len(self), size))

    def labelled(self, size: int, rows: NDArray[np.int64] | None = None) -> Iterator[LabelledBatch]:
        """Yield samples with their labels, ``size`` at a time: those of some rows, or all in order."""
        chosen = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield LabelledBatch(self.pixels(part), self.y[part], part)

    def check_classes(self) -> None:
        """Raise DataError where all labels are one class."""
        if len(np.unique(self.y)) < 2:
            raise DataError(
                f"{self.name}: all {len(self)} labels are class {int(self.y[0])}; samples of two classes or more are "
                "needed"
            )


def read_parts(
    dataset: Dataset,
    select: Dataset | None,
    *,
    predict: Callable[[NDArray[np.float32]], NDArray[np.int64]],
    strata: Callable[[NDArray[np.int64]], list[NDArray[np.int64]]],
    seed: int,
) -> tuple[Loaded, Loaded]:
    """Read samples to learn on and others to choose on; a fifth of the first are held out where there are no others.

    Args:
        dataset: The samples to learn on.
        select: Those to choose on.
        predict: Gives the classes of samples without labels.
        strata: Gives the rows of each class, of labels.
        seed: Random seed.

    Raises:
        DataError: labels that are no classes, or too few samples to hold some out.
    """
    train = Loaded.read(dataset, predict=predict)
    train.check_classes()
    part = None if select is None else Loaded.read(select, predict=predict)
    if part is None:
        train, part = split(train, strata=strata, seed=seed)
    part.check_classes()
    return train, part


def split(
    samples: Loaded, *, strata: Callable[[NDArray[np.int64]], list[NDArray[np.int64]]], seed: int
) -> tuple[Loaded, Loaded]:
    """Hold out a fifth of the samples, class by class; return the others and the held-out ones, both in their order.

    Args:
        samples: The samples.
        strata: Gives the rows of each class, of labels.
        seed: Random seed.

    Raises:
        DataError: too few samples: no class has three.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 0x5EED]))
    held: list[int] = []
    for stratum in strata(samples.y):
        rows = rng.permutation(stratum)
        held += [int(i) for i in rows[: round(HELD_OUT * len(rows))]]
    if not held:
        raise DataError(
            f"{samples.name}: {len(samples)} samples are too few to hold out a fifth of each class; give more, or name "
            "others for choosing with {select}",
            parameter="select",
        )
    chosen = np.zeros(len(samples), np.bool_)
    chosen[held] = True
    return samples.take(np.flatnonzero(~chosen)), samples.take(np.flatnonzero(chosen))


def check_labelled(dataset: Dataset, message: str, *, parameter: Sequence[str] = ("labels",)) -> None:
    """Check that samples have labels, by the first of them, before any work; raises DataError with this message."""
    try:
        first = next(dataset.batches(1), None)
    except DataError:  # of a label that is there; whoever reads all of them says more
        return
    if first is not None and first.y is None:
        raise DataError(message, parameter=tuple(parameter))
