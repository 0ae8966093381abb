"""What the checks of hardened models share: the check itself, and two models run on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.activations import Activations
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import CloakError, DataError, InferenceError, ModelError
from cloakonnx.graph.file.companions import Companions, Digest
from cloakonnx.graph.file.diff import Difference, file_sha256
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import ExternalFile, entries, external_recorded

Status = Literal["passed", "failed", "not checked"]

_SEEDED_SAMPLES = 4
_SEEDED_SIDE = 64
_BATCH = 64
_LISTED = 5


@dataclass(frozen=True)
class Check:
    """One thing that was checked, or could not be."""

    name: str
    status: Status
    detail: str


NO_REFERENCE = "no trusted reference given; name the source with --source or its attestation with --attestation"


def listed(found: Sequence[Difference]) -> str:
    """The first few differences, in words."""
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(map(str, found[:_LISTED])) + more


@dataclass(frozen=True)
class Reading:
    """Whether and how external data is read.

    Attributes:
        model: The hardened model.
        hashes: Whether it is.
        progress: Called with the bytes that were read of all its files.
    """

    model: Model
    hashes: bool = True
    progress: Callable[[int], None] = lambda read: None

    @cached_property
    def digests(self) -> Mapping[str, Digest]:
        """The digest of each external file of the model, by location."""
        files = Companions(self.model, self.model.external_files, self.model.folder or Path(), force=False)
        return files.copy(digests=True, on_progress=self.progress)  # beside itself there is nothing to copy


UNREAD = "it was left unread, as --no-hash-external asks"


def external_data(model: Model, source: Model | None, locations: Sequence[str], reading: Reading) -> Check:
    """Check a model's external files against what its metadata records of them, if it does, and against the source's.

    Args:
        model: The hardened model.
        source: What it was made from, where it is given.
        locations: The files that both must have.
        reading: Whether and how they are read.
    """
    name = "external data"
    if not reading.hashes and model.external_files:
        return Check(name, "not checked", UNREAD)
    try:
        recorded = external_recorded(model.proto)
    except ModelError as error:
        return Check(name, "failed", str(error))
    fault = _fault_by_record(model, recorded or {}, reading) if recorded is not None else None
    if source is not None:  # weights that only one of both keeps in a file are compared one by one
        locations = [each for each in locations if each in {*source.external_files} & {*model.external_files}]
    if fault is None and source is not None:
        fault = _fault_by_source(model, source, locations)
    if fault is not None:
        return Check(name, "failed", fault)
    return Check(name, *_agreement(model, source, len(locations), is_recorded=bool(recorded)))


def _agreement(model: Model, source: Model | None, count: int, *, is_recorded: bool) -> tuple[Status, str]:
    """Return what is known of external data where no fault was found."""
    if source is None:
        return ("passed", "as the metadata records it") if is_recorded else ("not checked", NO_REFERENCE)
    said = ", as the metadata records it" if is_recorded else ""
    if not count:
        apart = bool(model.external_files or source.external_files)
        return "passed", "no file is shared; 'structure' compares the weights" if apart else "there is none"
    if _share_folder(model, source):
        return ("passed", f"both models refer to the same files{said}") if is_recorded else ("not checked", SAME_FILES)
    return "passed", f"{count} files have the same content{said}"


SAME_FILES = (
    "both models refer to the same files, and the metadata records no digests: whether they are as they were when the "
    "model was hardened is not known"
)


def _fault_by_record(model: Model, recorded: Mapping[str, ExternalFile], reading: Reading) -> str | None:
    odd = sorted({*recorded} ^ {*model.external_files})
    if odd:
        return f"{odd[0]!r} is recorded or referred to, not both"
    found = reading.digests
    for location, wanted in recorded.items():
        if (found[location].sha256, found[location].size) != (wanted.sha256, wanted.size):
            return f"{location!r} is not as the metadata records it"
    return None


def _fault_by_source(model: Model, source: Model, locations: Sequence[str]) -> str | None:
    if model.folder is None or source.folder is None or _share_folder(model, source):
        return None
    for location in locations:
        original, copy = source.folder / location, model.folder / location
        if not copy.is_file():
            return f"{location!r} is missing beside the hardened model"
        if not original.is_file() or file_sha256(original) != file_sha256(copy):
            return f"{location!r} differs from the source's"
    return None


def _share_folder(model: Model, source: Model) -> bool:
    return model.folder is None or source.folder is None or model.folder.resolve() == source.folder.resolve()


@dataclass(frozen=True)
class Probe:
    """What the numbers are compared on and with.

    Attributes:
        classifier: The hardened model, as it is fed and where it runs.
        samples: The samples; None for random inputs.
        seed: Seed of the random inputs.
    """

    classifier: Classifier
    samples: Dataset | None
    seed: int

    def run(self, model: Model, *taps: str) -> Activations:
        """Return what computes some tensors of a model."""
        if self.samples is not None:
            self.samples.fitted_to(self.classifier)
        return self._of(model).activations(taps)

    def batches(self, model: Model) -> Iterator[NDArray[np.float32]]:
        """Yield the samples in pixel space."""
        if self.samples is not None:
            yield from (batch.x for batch in self.samples.batches(_BATCH))
            return
        shape: Sequence[int | None] = self._of(model).input_shape or ()
        sides = [side or _SEEDED_SIDE for side in shape]
        yield np.random.default_rng(self.seed).random((_SEEDED_SAMPLES, *sides), np.float32)

    def _of(self, model: Model) -> Classifier:
        """Return a model fed and run as the hardened one; random inputs are fed as they are."""
        clf, (input_name, _) = self.classifier, self.classifier.asked_names
        preprocessing = None if self.samples is None else clf.preprocessing
        return Classifier(model, preprocessing=preprocessing, provider=clf.provider, input_name=input_name)


def source_is_recorded(model: Model, source: Model) -> Check:
    """Check that a source is the one that the model's metadata names."""
    recorded = entries(model.proto).get(SOURCE_KEY, "none")
    if recorded == source.sha256:
        return Check("source", "passed", f"{source.name} has the recorded sha256 {recorded[:16]}...")
    return Check(
        "source", "failed", f"{source.name} has sha256 {source.sha256[:16]}..., but {recorded[:16]}... is recorded"
    )


class NotComparableError(Exception):
    """What the masked model is to be compared with does not run, so nothing can be said of the masked one."""


@contextmanager
def as_not_comparable() -> Iterator[None]:
    """Turn what keeps a model from running into NotComparableError."""
    try:
        yield
    except (InferenceError, ModelError) as error:
        raise NotComparableError(error) from None


def numbers(compared: Iterable[Check], probe: Probe, other: str) -> Iterator[Check]:
    """Yield checks that compare a model's numbers; where that can't be done, one that says why, and no more of them.

    Args:
        compared: Runs the models when it is asked for its checks; may raise NotComparableError.
        probe: What it runs them on.
        other: What the model is compared with, in words.

    Raises:
        DataError: of the samples.
    """
    try:
        yield from compared
    except NotComparableError as error:
        hint = "" if probe.samples is not None else " (on seeded random inputs; give real ones with --data)"
        yield Check("numbers", "not checked", f"{other} does not run: {error}{hint}")
    except DataError:
        raise
    except CloakError as error:
        yield Check("numbers", "failed", str(error))


def largest_difference(masked: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """NaN equals NaN here, and infinity itself: what the source has of them is not the mask's doing."""
    if masked.shape != wanted.shape:
        return float("nan")
    differ = (masked != wanted) & ~(np.isnan(masked) & np.isnan(wanted))
    return float(np.abs(masked[differ] - wanted[differ]).max(initial=0.0))
