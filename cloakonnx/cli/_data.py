"""Samples on the command line: where they are, and their adversarial versions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click
from click.core import ParameterSource

from cloakonnx.cli._completion import classes as known_classes
from cloakonnx.cli._files import PATH
from cloakonnx.cli._output import note, warn
from cloakonnx.cli._verb import Group, option

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset, FittedPairs
    from cloakonnx.data.sources import Source
    from cloakonnx.preprocessing import Preprocessing

_SCRIPT = "FILE.py:FUNCTION"
_DATA = "Clean samples: .npz with x and y, .npy, .csv, .parquet, or a folder of images."
TABLES = frozenset({".csv", ".tsv", ".parquet", ".pq"})
"""Suffixes of tables; the command line does not load what reads them for its help."""

_SMALL = 0.1
"""Of a step of 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Data(Group):
    """Samples, and how images become arrays."""

    what: ClassVar[str] = "samples"
    """What is missing where there are none."""

    data: Path | None = option("--data", type=PATH, help=_DATA)
    data_script: str | None = option(
        "--data-script", metavar=_SCRIPT, help="Python function that yields (x, y) batches, instead of --data."
    )
    labels: Path | None = option(
        "--labels",
        type=PATH,
        place="before runs",
        help="Labels of an .npy file (.npy, .csv), or of the images in one folder (.csv with file and label).",
    )
    label_column: str | None = option(
        "--label-column", metavar="NAME", place="before runs", help="Column with the labels, in a table or --labels."
    )
    classes: str | None = option(
        "--classes",
        shell_complete=known_classes,
        metavar="A,B,...",
        place="before runs",
        help="Classes in the order of the model's outputs, if they have names.  [by number, else by name]",
    )
    resize: int | None = option(
        "--resize",
        type=click.IntRange(min=1),
        place="before runs",
        help="Resize images so that their shorter side has this many pixels.",
    )
    crop: int | None = option(
        "--crop",
        type=click.IntRange(min=1),
        place="before runs",
        help="Crop a square of this many pixels from the centre of each image.",
    )
    limit: int | None = option(
        "--limit",
        type=click.IntRange(min=1),
        place="before runs",
        help="Use this many samples, balanced over the classes; from a script or without labels, the first ones.",
    )

    def samples(self, classifier: Classifier) -> Dataset:
        """Return the samples, fitted to a model's input.

        Raises:
            UsageError: there are none.
        """
        return self.fitted(classifier, self.needed())

    def needed(self) -> Source:
        """Open the samples; raises UsageError where there are none."""
        source = self.source()
        if source is None:
            raise click.UsageError(f"{self.what} are needed: --data is missing")
        return source

    def source(self) -> Source | None:
        """Open the samples, once; None where there are none."""
        return self._source

    @cached_property
    def _source(self) -> Source | None:
        from cloakonnx.data.scripts import open_script

        if self.data is not None and self.data_script is not None:
            raise click.UsageError("--data and --data-script exclude each other")
        if self.data_script is not None:
            return open_script(self.data_script)
        return None if self.data is None else self.opened(self.data, labels=self.labels)

    def bounded(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return preprocessing with the bounds of a table's values, if they exceed [0, 1] and there is no --bounds."""
        bounds = self._bounds
        return (
            preprocessing if bounds is None or preprocessing.bounds != (0, 1) else replace(preprocessing, bounds=bounds)
        )

    @cached_property
    def _bounds(self) -> tuple[float, float] | None:
        from cloakonnx.data.subset import table_bounds

        if click.get_current_context().get_parameter_source("bounds") is not ParameterSource.DEFAULT:
            return None
        source = self.source()
        return None if source is None else table_bounds(source)

    def part(self, classifier: Classifier, path: Path) -> Dataset:
        """Return all samples of a file or folder beside --data; --labels and --limit are of that."""
        return self._fitted(classifier, self.opened(path), limit=None)

    def opened(self, path: Path, *, labels: Path | None = None) -> Source:
        """Open a file or folder of samples, and say how it was read."""
        from cloakonnx.data.sources import open_source

        # Files beside --data may have no columns.
        column = self.label_column if path == self.data or path.suffix.lower() in TABLES else None
        source = open_source(
            path,
            labels=labels,
            label_column=column,
            classes=self._class_names(),
            resize=self.resize,
            crop=self.crop,
        )
        _tell_of_reading(source)
        if source.has_predicted_labels:
            warn(
                f"the labels of {source.name} are a model's own predictions, not true ones: an accuracy on them says "
                "how often that class is kept"
            )
        return source

    def fitted(self, classifier: Classifier, source: Source) -> Dataset:
        """Fit samples to a model's input."""
        return self._fitted(classifier, source, limit=self.limit)

    def _fitted(self, classifier: Classifier, source: Source, *, limit: int | None) -> Dataset:
        """Fit samples to a model's input, and say how."""
        from cloakonnx.data.samples import Dataset

        found = Dataset.of(source, classifier, limit=limit)
        _tell_of_classes(source, found.source)
        _tell_of_arrangement(found, runs_code=source is self._source and self.data_script is not None)
        low, high = found.preprocessing.bounds
        if (low, high) == self._bounds and source is self._source:
            note(f"{source.name}: its values lie in [{low:g}, {high:g}], which are taken for --bounds")
        return found

    def _class_names(self) -> tuple[str, ...]:
        """Return the names of ``--classes``, without the spaces around commas; quotes go round a name with commas."""
        rows = csv.reader([self.classes or ""], skipinitialspace=True)
        names = tuple(name.strip() for name in next(rows, []))
        if "" in names:
            raise click.BadParameter(f"{self.classes!r} has an empty name; give A,B,...", param_hint="'--classes'")
        return names


@dataclass(frozen=True, kw_only=True)
class CleanData(Data):
    """Clean samples, which adversarial ones go with."""

    what: ClassVar[str] = "clean samples"


@dataclass(frozen=True, kw_only=True)
class LabelledData(Data):
    """Samples with labels."""

    what: ClassVar[str] = "labelled samples"


@dataclass(frozen=True, kw_only=True)
class AnyData(Data):
    """Samples that random inputs stand in for where there are none."""

    data: Path | None = option("--data", type=PATH, help=f"{_DATA}  [random inputs with a fixed seed]")


@dataclass(frozen=True, kw_only=True)
class Adversarial(Group):
    """Adversarial versions of the clean samples, from a file."""

    adversarial: Path | None = option(
        "--adversarial", type=PATH, help="Adversarial versions of --data, in the same order."
    )
    adversarial_script: str | None = option(
        "--adversarial-script",
        metavar=_SCRIPT,
        help="Python function that yields the adversarial versions, instead of --adversarial.",
    )

    def source(self, data: Data) -> Source | None:
        """Open the adversarial samples; None where there are none. Folders are read as those of the clean ones."""
        from cloakonnx.data.scripts import open_script
        from cloakonnx.data.sources import open_source
        from cloakonnx.remote import fetched

        path = self.adversarial
        if path is not None and self.adversarial_script is not None:
            raise click.UsageError("--adversarial and --adversarial-script exclude each other")
        if self.adversarial_script is not None:
            return open_script(self.adversarial_script)
        if path is None:
            return None
        # the versions of a folder of images or of an .npy file may well be an .npz
        return data.opened(path) if fetched(path).is_dir() or path.suffix.lower() in TABLES else open_source(path)

    def pairs_with(self, data: Data, classifier: Classifier) -> FittedPairs:
        """Return clean samples with their adversarial versions.

        Raises:
            UsageError: either is missing.
        """
        clean, adversarial = data.needed(), self.source(data)
        if adversarial is None:
            raise click.UsageError(
                "adversarial samples are needed: --adversarial is missing ('cloakonnx attack' makes them)"
            )
        return self.pairs(*(data.fitted(classifier, each) for each in (clean, adversarial)))

    def pairs(self, clean: Dataset, adversarial: Dataset) -> FittedPairs:
        """Pair samples with their adversarial versions, and warn where these seem to be in another order."""
        from cloakonnx.data.order import order_doubt
        from cloakonnx.data.samples import FittedPairs

        found = FittedPairs(clean, adversarial)
        doubt = order_doubt(found)
        if doubt is not None:
            warn(doubt)
        return found


def warn_of_small_eps(eps: Sequence[float], dataset: Dataset) -> None:
    """Warn of balls far smaller than a step of 8 bits: eps in another space than the samples."""
    low, high = dataset.preprocessing.bounds
    small = next((each for each in eps if 0 < each < _SMALL * (high - low) / 255), None)
    if small is not None:
        warn(
            f"--eps {small:.3g} is less than a tenth of a 255th of pixel space, [{low:g}, {high:g}]; is it in another "
            "space?"
        )


def _tell_of_arrangement(dataset: Dataset, *, runs_code: bool) -> None:
    """Say how samples are reshaped: of a script at the end, because it runs once outputs are claimed and no sooner."""

    def tell() -> None:
        arrangement = vars(dataset).get("arrangement")  # there once it was asked for
        if arrangement is not None and arrangement.note is not None:
            note(arrangement.note)

    if runs_code:
        click.get_current_context().call_on_close(tell)
    else:
        _ = dataset.arrangement
        tell()


def _tell_of_reading(source: Source) -> None:
    """Say how samples were read: now what was skipped, and at the end which images were converted."""
    from cloakonnx.data.subset import classed, grey_images

    found = classed(source)
    for each in () if found is None else found.notes:
        note(each)

    def tell_of_grey() -> None:
        grey = grey_images(source)
        if grey:
            note(f"{source.name}: {grey} grey pictures were read as colour")

    click.get_current_context().call_on_close(tell_of_grey)


def _tell_of_classes(opened: Source, fitted: Source) -> None:
    """Say which number each class has, and how names were matched to those in the model's file."""
    from cloakonnx.data.subset import classed

    before, after = classed(opened), classed(fitted)
    for each in () if after is None else after.notes[0 if before is None else len(before.notes) :]:
        note(each)
