"""Samples as a model takes them, alone or as clean/adversarial pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data._images import ImageFolder
from cloakonnx.data._listing import count_of
from cloakonnx.data.batch import Batch, PairBatch, renamed
from cloakonnx.data.given import Given, Pairs, Samples, source_of
from cloakonnx.data.layout import Arrangement, arrange, to_pixels
from cloakonnx.data.located import origin_of
from cloakonnx.data.sources import ArraySource, ClassedArrays, Source, sample_shape
from cloakonnx.data.subset import by_rows, classed, evenly, file_names, known_labels, some
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import Preprocessing

Wanted: TypeAlias = Callable[[int], bool]
"""Whether a batch is needed, by its number."""

_FEW = 4
"""Different labels that somebody may give a model of two classes by mistake; a regression's are more."""


class Fits(Protocol):
    """What samples are fitted to: a classifier."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How samples become the model's input."""

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """The model's input without the batch axis."""

    @property
    def declared_classes(self) -> int | None:
        """How many classes the model has, where its file tells."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What its file calls them, in the order of the scores, where it does."""


@dataclass(frozen=True)
class Dataset:
    """A source fitted to a model's input: batches of float32 pixels in the model's layout.

    Attributes:
        source: Where the samples come from.
        preprocessing: How they become the model's input.
        input_shape: The model's input without the batch axis; None for free dimensions, or as a whole.
        classes: How many classes the model has, to check labels against; None where that is not known.
        limit: Number of samples to take: evenly by class where the labels are known beforehand, else the first ones.
        rows: Which rows of the source to take; None lets the limit decide.
        model_names: What the model's file calls the classes, where it does.
    """

    source: Source
    preprocessing: Preprocessing
    input_shape: tuple[int | None, ...] | None
    classes: int | None = None
    limit: int | None = None
    rows: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    model_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, samples: SamplesLike, classifier: Fits, *, limit: int | None = None) -> Dataset:
        """Fit samples of any kind to a classifier's input, preprocessing and classes; fitted ones are as they are.

        Raises:
            DataError: samples of no such kind, or a file that can't be used.
        """
        if isinstance(samples, Dataset):
            return samples if limit is None else replace(samples, limit=limit)
        if isinstance(samples, Samples) and limit is None:
            limit = samples.limit
        source = source_of(samples)
        if isinstance(source, (ImageFolder, ArraySource)):
            source = source.for_classes(classifier.class_names)
        if isinstance(source, (ImageFolder, ClassedArrays)):
            source = source.for_input(classifier.input_shape)
        return cls(
            source,
            classifier.preprocessing,
            classifier.input_shape,
            classifier.declared_classes,
            limit,
            model_names=classifier.class_names,
        )

    @cached_property
    def taken(self) -> NDArray[np.int64] | None:
        """(M,) the rows of the source that are taken, rising; None where these are all or the first ones."""
        if self.rows is not None or self.limit is None:
            return self.rows
        labels = known_labels(self.source)
        return None if labels is None or self.limit >= len(labels) else evenly(labels, self.limit)

    @cached_property
    def chosen(self) -> Source:
        """The samples that are taken; where the labels are not known beforehand, :attr:`limit` has yet to cut them."""
        return self.source if self.taken is None else some(self.source, self.taken, self.source.name)

    @cached_property
    def arrangement(self) -> Arrangement:
        """How the stored samples are laid out for the model; settled on the first one.

        Raises:
            DataError: no sample, or one that does not fit the model's input.
        """
        asked, stored = self.preprocessing.layout, self.source.layout
        return arrange(self.stored_shape, self.input_shape, layout=asked, stored=stored, name=self.source.name)

    @cached_property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of a stored sample; raises DataError where there is none."""
        self.check_not_empty()
        shape = sample_shape(self.source)
        if shape is None:
            raise self._empty()
        return shape

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample in the model's layout."""
        return self.arrangement.sample_shape(self.stored_shape)

    def fitted_to(self, classifier: Fits) -> tuple[int, ...]:
        """Return the shape of a sample in the model's layout, once it is sure that the classifier is fed as these are.

        Raises:
            DataError: the samples were fitted with other preprocessing or do not fit the model's input, or mean and std
                do not fit their channels.
        """
        if self.preprocessing != classifier.preprocessing:
            raise DataError(
                f"{self.source.name} was fitted with other preprocessing than the classifier's "
                f"({self.preprocessing}; {classifier.preprocessing}): fit them with Dataset.of(samples, classifier)"
            )
        self.preprocessing.check_channels(self.sample_shape, self.arrangement.channel_axis)
        return self.sample_shape

    def check_not_empty(self) -> None:
        """Raise DataError where the source knows that it has no samples."""
        if self.source.count() == 0:
            raise self._empty()

    def _empty(self) -> DataError:
        return DataError(f"{self.source.name} is empty: it has no samples")

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names that the data have for classes, in the order of the labels: of folders or a table; None for numbers."""
        found = classed(self.source)
        return (found.classes or None) if found is not None else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the labels: the data's, else those in the model's file; None without."""
        return self.label_names or self.model_names

    def names(self, indices: NDArray[np.int64]) -> list[str] | None:
        """Return the names of the files of samples, by their indices in the batches; None where they share one file."""
        return file_names(self.chosen, indices)

    def count(self) -> int | None:
        """Return how many samples will come, None where only the end will tell."""
        count = self.chosen.count()
        if count is None or self.limit is None:
            return count
        return min(count, self.limit)

    def first(self, count: int) -> NDArray[np.float32]:
        """Return the first samples as float32 pixels in the model's layout; raises as :meth:`batches` does."""
        return np.asarray(next(self.batches(count)).x)

    def batches(self, size: int, *, wanted: Wanted | None = None) -> Iterator[Batch]:
        """Yield batches of (B, ...) float32 pixels with their labels.

        Args:
            size: Samples in each but the last one.
            wanted: Whether a batch's pixels are needed, by its number; None where those of all are. The others are not
                read where the source has them by rows: such a batch has zeros.

        Raises:
            DataError: no sample, a value outside the bounds, a label outside the classes.
        """
        _ = self.arrangement  # an empty source is an error even where it yields nothing
        read = None if wanted is None else by_rows(self.chosen)
        if wanted is not None and read is not None:
            yield from self._picked(size, wanted, read)
            return
        for batch in self.chosen.batches(size):
            kept = self._limited(batch)
            if not len(kept.x):
                return
            yield self._placed(kept)

    def _picked(self, size: int, wanted: Wanted, read: Callable[[int, int], Batch]) -> Iterator[Batch]:
        """Yield all batches, with the pixels of those that are wanted."""
        count, labels = self.count() or 0, known_labels(self.chosen)
        for number, start in enumerate(range(0, count, size)):
            stop = min(start + size, count)
            if wanted(number):
                yield self._placed(read(start, stop))
                continue
            zeros = np.broadcast_to(np.float32(0), (stop - start, *self.sample_shape))
            batch = Batch(zeros, None if labels is None else labels[start:stop], start)
            self._check_labels(batch)
            yield batch

    def _placed(self, batch: Batch) -> Batch:
        """Return samples as stored as :meth:`fit` does, with where they can be read again."""
        origin = origin_of(self.chosen, batch.indices, self.arrangement, self.preprocessing.bounds)
        return self.fit(batch)._replace(origins=() if origin is None else (("x", origin),))

    def fit(self, batch: Batch) -> Batch:
        """Return samples as stored as float32 pixels in the model's layout.

        Raises:
            DataError: a value outside the bounds, a label outside the classes.
        """
        self._check_labels(batch)
        bounds, name = self.preprocessing.bounds, self.source.name
        return batch._replace(x=to_pixels(batch, self.arrangement, bounds, name, number=self._number))

    def _number(self, sample: int) -> int:
        """Return which sample of the source one of those taken is, for messages."""
        return sample if self.taken is None else int(self.taken[sample])

    def _limited(self, batch: Batch) -> Batch:
        if self.limit is None or batch.start + len(batch.x) <= self.limit:
            return batch
        left = max(self.limit - batch.start, 0)
        return Batch(batch.x[:left], None if batch.y is None else batch.y[:left], batch.start)

    def check_classes(self, classes: int) -> None:
        """Raise DataError where labels are names of classes, and these are not as many as the model's classes."""
        source = classed(self.source)
        if source is None or not source.classes or len(source.classes) == classes:
            return
        found = len(source.classes)
        folders = isinstance(source, ImageFolder) and source.labels_in is None
        said = count_of(found, "class folder with pictures" if folders else "class")
        said = f"{{classes}} names {found}" if source.are_named else said
        raise DataError(
            f"{source.name}: {said}, but the model has {classes} classes; name all {classes} in the order of the "
            "model's outputs with {classes} A,B,... (also those without a sample)",
            parameter="classes",
        )

    def _check_labels(self, batch: Batch) -> None:
        if self.classes is not None:
            self.check_classes(self.classes)
        if batch.y is None or self.classes is None or batch.y.max() < self.classes:
            return
        sample = int((batch.y >= self.classes).argmax())
        number = self._number(batch.start + sample)
        said = (
            f"{self.source.name}: sample {number} has label {int(batch.y[sample])}, but the model has "
            f"{self.classes} classes (0 to {self.classes - 1})"
        )
        raise DataError(said + (self._names_of_numbers() or _many_for_two(batch.y, self.classes)))

    def _names_of_numbers(self) -> str:
        """Return the option for labels of a table that may be names of classes instead of counting from 0."""
        source = classed(self.source)
        there = [] if source is None or source.labels is None else np.unique(source.labels).tolist()
        if len(there) != self.classes:
            return ""
        return f"; if they stand for the classes in this order: --classes {','.join(map(str, there))}"


def _many_for_two(y: NDArray[np.int64], classes: int) -> str:
    """Say what a model may be whose samples have more labels than a yes-or-no answer has."""
    if classes > 2 or len(np.unique(y)) <= _FEW:
        return ""
    return "; labels such as ages or prices are those of a regression, a task that is not built yet"


SamplesLike: TypeAlias = Dataset | Samples | Given
"""What every function takes as samples: see :class:`cloakonnx.Samples`."""


@dataclass(frozen=True)
class FittedPairs:
    """Clean samples and their adversarial versions, in the same order."""

    clean: Dataset
    adversarial: Dataset

    @classmethod
    def of(cls, pairs: Pairs | FittedPairs, classifier: Fits) -> FittedPairs:
        """Fit pairs to a classifier; a limit of the clean samples holds for both. Raises as :meth:`Dataset.of` does."""
        if isinstance(pairs, FittedPairs):
            return pairs
        clean, adversarial = (Dataset.of(each, classifier) for each in (pairs.clean, pairs.adversarial))
        return cls(clean, adversarial if adversarial.limit else replace(adversarial, limit=clean.limit))

    def __post_init__(self) -> None:
        """Take the first clean samples where the labels tell that the file has the versions of these alone."""
        rows, source = self.clean.taken, self.adversarial.source
        if rows is None or source.has_predicted_labels or source.count() != len(rows):
            return
        labels, own = known_labels(self.clean.source), known_labels(source)
        if labels is None or own is None or np.array_equal(labels[rows], own):
            return
        if np.array_equal(labels[: len(rows)], own):
            object.__setattr__(self, "clean", replace(self.clean, rows=np.arange(len(rows))))

    @property
    def adversarial_name(self) -> str | None:
        """Name of the source of the adversarial samples."""
        return self.adversarial.source.name

    @property
    def attack(self) -> Mapping[str, Any] | None:
        """None: the adversarial samples were given."""
        return None

    def making(self, threads: int | None) -> None:
        """None: nothing is left to be made."""

    def batches(self, size: int, *, wanted: Wanted | None = None) -> Iterator[PairBatch]:
        """Yield matching batches; of those that are not ``wanted`` as :meth:`Dataset.batches` does.

        Raises:
            DataError: the two differ in length, in the shape of a sample, or in a label.
        """
        self._check_lengths()
        names = self.clean.source.name, self.adversarial.source.name
        for clean, adversarial in zip_longest(
            *(each.batches(size, wanted=wanted) for each in (self.clean, self._versions))
        ):
            if clean is None or adversarial is None or len(clean.x) != len(adversarial.x):
                raise DataError(f"{names[0]} and {names[1]} have different numbers of samples; pairs need the same")
            if clean.x.shape != adversarial.x.shape:
                raise DataError(
                    f"{names[0]} has samples of shape {clean.x.shape[1:]}, {names[1]} of {adversarial.x.shape[1:]}; "
                    "pairs need the same"
                )
            # True labels need not agree with predictions.
            y = None if self.adversarial.source.has_predicted_labels else adversarial.y
            if clean.y is not None and y is not None and not np.array_equal(clean.y, y):
                sample = clean.start + int((clean.y != y).argmax())
                why = "" if self.clean.taken is None else " (--limit takes the classes evenly, not the first N)"
                raise DataError(
                    f"{names[0]} and {names[1]} differ in the label of sample {sample}: not the same order?{why}"
                )
            labels = adversarial.y if clean.y is None else clean.y
            origins = renamed(clean.origins, "x", "clean") + renamed(adversarial.origins, "x", "adversarial")
            yield PairBatch(clean.x, adversarial.x, labels, clean.start, origins=origins)

    @cached_property
    def _versions(self) -> Dataset:
        """The adversarial versions of the clean samples that are taken.

        Where the source has a version of every clean sample, those of the rows taken; where it has one of each that is
        taken, all.
        """
        rows, limit = self.clean.taken, self.adversarial.limit
        count = self.adversarial.source.count()
        if rows is not None and count != len(rows):
            return replace(self.adversarial, rows=rows)
        return replace(self.adversarial, rows=None if limit is None or count is None else np.arange(min(limit, count)))

    def _check_lengths(self) -> None:
        """Compare the counts before any work is done, where they are known; ``limit`` may cut a longer clean file."""
        for each in (self.clean, self.adversarial):
            each.check_not_empty()
        counts = self.clean.count(), self.adversarial.count()
        if self.clean.taken is not None and counts[0] != self.adversarial.source.count():
            counts = self.clean.source.count(), self.adversarial.source.count()
        if None not in counts and counts[0] != counts[1]:
            raise DataError(
                f"{self.clean.source.name} has {counts[0]} samples, {self.adversarial.source.name} has {counts[1]}; "
                "pairs need the same number ({limit} N takes the same N of each, classes evenly, where both have all "
                "samples or the second has those N alone)",
                parameter="limit",
            )


def sample_hashes(x: NDArray[np.float32]) -> list[str]:
    """Return 16 hex digits for each sample that tell whether it was seen before, however it was stored.

    Values are rounded to 1/255, so a uint8 image and its float copy have the same hash.
    """
    levels = np.rint(x * np.float32(255)).astype("<i4")
    return [hashlib.sha256(sample.tobytes()).hexdigest()[:16] for sample in levels]
