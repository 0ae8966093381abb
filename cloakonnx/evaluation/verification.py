"""Verifies a hardened model: it is its source and the masks, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import Dataset
from cloakonnx.errors import CheckError, CloakError, DataError, InferenceError, ModelError
from cloakonnx.graph import (
    SOURCE_KEY,
    STRIPPED_KEY,
    VERSION_KEY,
    Difference,
    MaskEntry,
    Model,
    canonical_buffer,
    diff,
    entries,
    file_sha256,
    hardened,
    mask_values_of,
    masks_of,
    read_masks,
    reinserted,
    stripped,
    stripped_sha256,
)
from cloakonnx.runtime import Activations, Provider, input_shape

Status = Literal["passed", "failed", "not checked"]
_TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""Of the largest activation: fusions around the mask may round once more than the unfused graph."""

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


@dataclass(frozen=True)
class Verification:
    """All checks of one hardened model."""

    model: str
    source: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)


def verify(
    model: Model,
    *,
    source: Model | None = None,
    provider: Provider,
    samples: Dataset | None = None,
    seed: int = 0,
    input_name: str | None = None,
) -> Verification:
    """Check that a hardened model is its source with the masks, in structure and in numbers.

    Args:
        model: The hardened model.
        source: The model it was made from: the trusted reference. Without it only self-consistency is checked.
        provider: Where the numbers are compared.
        samples: What they are compared on; seeded random inputs in [0, 1] where none are given.
        seed: Of these.
        input_name: The data input, where there are several.

    Raises:
        ModelError: the model carries no masks.
    """
    if not masks_of(model.proto):
        raise ModelError(
            f"{model.name} carries no cloakonnx masks: it was not hardened, or its metadata was removed "
            "('cloakonnx apply' hardens it)"
        )
    checks = [_masks_in_place(model), _mask_hashes(model), _self_consistent(model)]
    if source is None:
        reason = "no trusted reference given; name the source with --source"
        checks += [Check(name, "not checked", reason) for name in ("source", "structure", "external data")]
    else:
        checks += [_source_is_recorded(model, source), _structure(model, source), _external_data(model, source)]
    if any(check.status == "failed" for check in checks[:1]):
        checks.append(Check("numbers", "not checked", "the masks are not in place"))
    else:
        reference = source if source is not None else stripped(model)
        checks += _numbers(model, reference, _Trial(provider, samples, seed, input_name))
    return Verification(model.name, None if source is None else source.name, tuple(checks))


def _masks_in_place(model: Model) -> Check:
    """Take the masks out and put them in again: the model that this gives must be the one at hand."""
    name = "masks in place"
    try:
        found = diff(reinserted(model), model)
    except CloakError as error:
        return Check(name, "failed", str(error))
    if found:
        return Check(name, "failed", f"not as cloakonnx puts masks in: {_listed(found)}")
    taps = ", ".join(entry.tap for entry in masks_of(model.proto))
    return Check(name, "passed", f"a Mul node after {taps}")


def _mask_hashes(model: Model) -> Check:
    name, said = "mask values", []
    for entry in masks_of(model.proto):
        try:
            values = mask_values_of(model, entry)
        except CheckError as error:
            return Check(name, "failed", str(error))
        if hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() != entry.sha256:
            return Check(name, "failed", f"the mask of {entry.tap!r} is not the one that the metadata records")
        removed = int((values.astype(np.float64) == 0).sum())
        said.append(f"{entry.tap} (removes {removed} of {values.size}) sha256 {entry.sha256[:16]}...")
    return Check(name, "passed", f"as the metadata records: {', '.join(said)}")


def _listed(found: Sequence[Difference]) -> str:
    """The first few differences, in words."""
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(map(str, found[:_LISTED])) + more


def _self_consistent(model: Model) -> Check:
    name, recorded = "metadata", entries(model.proto)
    missing = [key for key in (SOURCE_KEY, STRIPPED_KEY, VERSION_KEY) if key not in recorded]
    if missing:
        return Check(name, "failed", f"the metadata lacks {', '.join(missing)}")
    try:
        found = stripped_sha256(model)
    except CheckError:
        return Check(name, "not checked", "the masks can't be taken out")
    if found != recorded[STRIPPED_KEY]:
        return Check(name, "failed", "without its masks the model has another sha256 than the metadata records")
    return Check(name, "passed", f"without its masks the model has the recorded sha256 {found[:16]}...")


def _source_is_recorded(model: Model, source: Model) -> Check:
    recorded = entries(model.proto).get(SOURCE_KEY, "none")
    if recorded == source.sha256:
        return Check("source", "passed", f"{source.name} has the recorded sha256 {recorded[:16]}...")
    return Check(
        "source", "failed", f"{source.name} has sha256 {source.sha256[:16]}..., but {recorded[:16]}... is recorded"
    )


def _structure(model: Model, source: Model) -> Check:
    try:
        if stripped_sha256(model) == hashlib.sha256(canonical_buffer(source)).hexdigest():
            return Check("structure", "passed", "without its masks the model is the source, byte for byte")
        found = diff(source, stripped(model))
    except CheckError as error:
        return Check("structure", "failed", str(error))
    said = _listed(found) or "the same content is encoded in other bytes"
    return Check("structure", "failed", f"beside the masks: {said}")


def _external_data(model: Model, source: Model) -> Check:
    name = "external data"
    if not source.external_files:
        return Check(name, "passed", "there is none")
    if model.folder is None or source.folder is None or model.folder.resolve() == source.folder.resolve():
        return Check(name, "passed", "both models refer to the same files")
    for location in source.external_files:
        copy = model.folder / location
        if not copy.is_file():
            return Check(name, "failed", f"{location!r} is missing beside the hardened model")
        if file_sha256(source.folder / location) != file_sha256(copy):
            return Check(name, "failed", f"{location!r} differs from the source's")
    return Check(name, "passed", f"{len(source.external_files)} files have the same content")


@dataclass(frozen=True)
class _Trial:
    """What the numbers are compared on and with."""

    provider: Provider
    samples: Dataset | None
    seed: int
    input_name: str | None

    def run(self, model: Model, tap: str) -> Activations:
        normalisation = None if self.samples is None else self.samples.normalisation
        return Activations(
            model, [tap], provider=self.provider, normalisation=normalisation, input_name=self.input_name
        )

    def batches(self, model: Model) -> Iterator[NDArray[np.float32]]:
        if self.samples is not None:
            yield from (batch.x for batch in self.samples.batches(_BATCH))
            return
        shape: Sequence[int | None] = input_shape(model, self.input_name) or ()
        sides = [side or _SEEDED_SIDE for side in shape]
        yield np.random.default_rng(self.seed).random((_SEEDED_SAMPLES, *sides), np.float32)


def _numbers(model: Model, reference: Model, trial: _Trial) -> Iterator[Check]:
    """Compare each masked tap with mask * tap of the source that carries the other masks only."""
    try:
        masks = read_masks(model)
        for entry in masks_of(model.proto):
            others = [mask for mask in masks if mask.tap != entry.tap]
            base = hardened(reference, others) if others else reference
            yield _compared(entry, mask_values_of(model, entry), model, base, trial)
    except _NotComparableError as error:
        hint = "" if trial.samples is not None else " (on seeded random inputs; give real ones with --data)"
        yield Check("numbers", "not checked", f"the model without this mask does not run: {error}{hint}")
    except DataError:
        raise
    except CloakError as error:
        yield Check("numbers", "failed", str(error))


class _NotComparableError(Exception):
    """What the masked model is to be compared with does not run, so nothing can be said of the masked one."""


def _compared(entry: MaskEntry, mask: NDArray[Any], model: Model, base: Model, trial: _Trial) -> Check:
    with _as_not_comparable():
        tap = trial.run(base, entry.tap)
    masked_tap = trial.run(model, entry.tap)
    largest = error = 0.0
    count, dtype = 0, "float32"
    for batch in trial.batches(model):
        with _as_not_comparable():
            unmasked = tap(batch)[0].astype(np.float64)
        masked = masked_tap(batch)[0]
        with np.errstate(invalid="ignore"):  # 0 * infinity
            wanted = unmasked * mask.astype(np.float64)
        largest = max(largest, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
        error = float(np.max([error, _largest_difference(masked.astype(np.float64), wanted)]))  # keeps NaN
        count, dtype = count + len(batch), str(masked.dtype)
    tolerance = _TOLERANCE[dtype] * largest
    said = f"tap {entry.tap!r}: largest difference from mask * tap {error:.3g}, tolerance {tolerance:.3g}"
    return Check("numbers", "passed" if error <= tolerance else "failed", f"{said}, {count} samples")


@contextmanager
def _as_not_comparable() -> Iterator[None]:
    try:
        yield
    except (InferenceError, ModelError) as error:
        raise _NotComparableError(error) from None


def _largest_difference(masked: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """NaN equals NaN here, and infinity itself: what the source has of them is not the mask's doing."""
    if masked.shape != wanted.shape:
        return float("nan")
    differ = (masked != wanted) & ~(np.isnan(masked) & np.isnan(wanted))
    return float(np.abs(masked[differ] - wanted[differ]).max(initial=0.0))
