"""Some of a source's samples: the parts that one file is split into."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data._classes import Classed
from cloakonnx.data._images import ImageFolder
from cloakonnx.data._passes import Labelled
from cloakonnx.data.batch import Batch
from cloakonnx.data.sources import ArraySource, ClassedArrays, Source, rechunked, sample_shape
from cloakonnx.errors import DataError

_READ = 256


@dataclass(frozen=True)
class Survey:
    """What one pass over labelled samples tells.

    Attributes:
        labels: (N,) int64.
        digest: sha256 of the samples as stored, and of their labels.
    """

    labels: NDArray[np.int64]
    digest: str


def survey(
    source: Source, *, limit: int | None = None, check: Callable[[Batch], object] = lambda batch: None
) -> Survey:
    """Go through a source once, or through its first ``limit`` samples; ``check`` raises for those that are no good.

    Raises:
        DataError: no sample, or no labels.
    """
    labels: list[NDArray[np.int64]] = []
    digest = hashlib.sha256()
    for batch in source.batches(_READ):
        left = len(batch.x) if limit is None else min(limit - batch.start, len(batch.x))
        if left <= 0:
            break
        if batch.y is None:
            raise DataError(
                f"{source.name} has no labels, which are needed here (y in .npz, {{labels}} for .npy)",
                parameter="labels",
            )
        x, y = np.ascontiguousarray(batch.x[:left]), np.ascontiguousarray(batch.y[:left])
        check(Batch(x, y, batch.start))
        if not labels:
            digest.update(f"{x.dtype.str}{x.shape[1:]}".encode())
        digest.update(x.tobytes() + y.tobytes())
        labels.append(y)
    if not labels:
        raise DataError(f"{source.name} is empty: it has no samples")
    return Survey(np.concatenate(labels), digest.hexdigest())


def interleaved(strata: Sequence[NDArray[np.int64]], *, seed: int) -> NDArray[np.int64]:
    """Return an order of the samples in which every stretch has the classes in about their shares.

    Args:
        strata: The rows of each class, all together 0 to N - 1.
        seed: Random seed of the order within each class, and of where the classes start.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 0xDEA1]))
    place = np.empty(sum(len(rows) for rows in strata))
    for stratum in strata:
        rows = rng.permutation(stratum)
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(place, kind="stable")


def known_labels(source: Source) -> NDArray[np.int64] | None:
    """Return all labels of a source where they are known without reading its samples."""
    if isinstance(source, Subset):
        labels = known_labels(source.source)
        return None if labels is None else labels[source.rows]
    return source.labels if isinstance(source, ImageFolder) else source.y if isinstance(source, ArraySource) else None


def grey_images(source: Source) -> int:
    """Return how many grey images were repeated in three channels so far."""
    if isinstance(source, Subset):
        return grey_images(source.source)
    return len(source.grey) if isinstance(source, ImageFolder) else 0


def table_bounds(source: Source) -> tuple[float, float] | None:
    """Return the smallest and largest value of a table that does not lie in [0, 1]; None for other samples."""
    if isinstance(source, Subset):
        return table_bounds(source.source)
    if not isinstance(source, ClassedArrays) or not source.columns:
        return None
    low, high = float(source.x.min()), float(source.x.max())
    return None if (low >= 0 and high <= 1) or low == high else (low, high)


def classed(source: Source) -> Classed | None:
    """Return the samples with names of classes that a source reads, None where its labels never had any."""
    if isinstance(source, Subset):
        return classed(source.source)
    return source if isinstance(source, (ImageFolder, ClassedArrays)) else None


def file_names(source: Source, indices: NDArray[np.int64]) -> list[str] | None:
    """Return the names of the files that samples were read from, None where one file has them all.

    Args:
        source: The samples.
        indices: (M,) which of them.
    """
    if isinstance(source, Subset):
        return file_names(source.source, source.rows[indices])
    return [source.files[index] for index in indices] if isinstance(source, ImageFolder) else None


def evenly(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most a number of rows, as many of each class as possible, in their order; no random number is drawn.

    Every class gives its first rows. A class that has fewer than its share gives all, and the others more. What does
    not go into equal shares goes to classes at equal distances.

    Args:
        labels: (N,) the labels.
        most: How many rows.
    """
    if most >= len(labels):
        return np.arange(len(labels))
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # The largest share that all classes together do not exceed the number with.
    shares = np.arange(counts.max() + 1)
    ends = np.searchsorted(np.sort(counts), shares)
    sums = np.concatenate([[0], np.cumsum(np.sort(counts))])[ends] + shares * (len(counts) - ends)
    share = int(np.flatnonzero(sums <= most)[-1])
    taken = np.minimum(counts, share)
    left = most - int(taken.sum())
    larger = np.flatnonzero(counts > share)
    taken[larger[((np.arange(left) + 0.5) * len(larger) / max(left, 1)).astype(int)]] += 1
    order = np.argsort(classes, kind="stable")
    place = np.empty(len(labels), np.int64)  # of each row within its class
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.flatnonzero(place < taken[classes])


def some(source: Source, rows: NDArray[np.int64], name: str) -> Source:
    """Return some rows of a source, in its order; images that are left out are not decoded."""
    return source.take(rows) if isinstance(source, ImageFolder) else Subset(source, rows, name)


def by_rows(source: Source) -> Callable[[int, int], Batch] | None:
    """Return what reads the samples from one to before another and no others; None for a source that goes through all.

    Args:
        source: The samples.
    """
    if isinstance(source, (ArraySource, ImageFolder)):
        return source.between
    return source.between if isinstance(source, Subset) and isinstance(source.source, ArraySource) else None


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of a source, in its order.

    Attributes:
        source: All samples.
        rows: (M,) indices into it, rising.
        name: What to call them in messages and records.
    """

    source: Source
    rows: NDArray[np.int64]
    name: str

    @property
    def has_predicted_labels(self) -> bool:
        """As of the source."""
        return self.source.has_predicted_labels

    @property
    def layout(self) -> str | None:
        """The source's."""
        return self.source.layout

    def peek(self) -> tuple[int, ...] | None:
        """Return the shape of a sample; as of the source."""
        return sample_shape(self.source)

    def count(self) -> int:
        """Return how many samples there are."""
        return len(self.rows)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the samples, ``size`` at a time, numbered from 0."""
        return rechunked(self._parts(size), size)

    def between(self, start: int, stop: int) -> Batch:
        """Return the samples from one to before another, of an array (:func:`by_rows`)."""
        assert isinstance(self.source, ArraySource)
        return Batch(*self.source.at(self.rows[start:stop]), start)

    def _parts(self, size: int) -> Iterator[Labelled]:
        """Yield what falls into each batch of the source."""
        if isinstance(self.source, ArraySource):
            for start in range(0, len(self.rows), size):
                yield self.source.at(self.rows[start : start + size])
            return
        for batch in self.source.batches(size):
            first, last = np.searchsorted(self.rows, [batch.start, batch.start + len(batch.x)])
            if first < last:
                rows = self.rows[first:last] - batch.start
                yield batch.x[rows], None if batch.y is None else batch.y[rows]
            if last == len(self.rows):
                break
