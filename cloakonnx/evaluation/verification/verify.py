"""Verifies a hardened model: it is its source and the masks, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.given import ModelLike, classifier_of, model_of
from cloakonnx.data.samples import Dataset, SamplesLike
from cloakonnx.errors import CheckError, CloakError, ModelError
from cloakonnx.evaluation.verification._attested import attested_checks, intended_masks
from cloakonnx.evaluation.verification._checks import (
    NO_REFERENCE,
    SAME_FILES,
    UNREAD,
    Probe,
    Reading,
    as_not_comparable,
    external_data,
    largest_difference,
    listed,
    numbers,
    source_is_recorded,
)
from cloakonnx.evaluation.verification._checks import Check as Check  # noqa: PLC0414 - public
from cloakonnx.evaluation.verification._folded import folded_checks
from cloakonnx.evaluation.verification._same import allowed, same_function
from cloakonnx.evaluation.verification._weights import rounding, weight_numbers
from cloakonnx.evaluation.verification.attestation import Attestation
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.edit import canonical_sha256
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import PREFIX, MaskEntry, entries, is_folded, masks_of
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import STRIPPED as STRIPPED_KEY
from cloakonnx.graph.masks.metadata import VERSION as VERSION_KEY
from cloakonnx.graph.masks.strip import found_masks, mask_values_of, read_masks, reinserted, stripped, stripped_sha256
from cloakonnx.scoring.analysis import Analysis

_TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""Of the largest activation: fusions around the mask may round once more than the unfused graph."""

_NO_MASKS = (
    "{} carries no cloakonnx masks: it was not hardened, or its metadata was removed ('cloakonnx apply' hardens it)"
)


@dataclass(frozen=True)
class Verification:
    """All checks of one hardened model.

    Examples:
        >>> import cloakonnx as ck
        >>> hardened = ck.apply("samples/digits_cnn.onnx", ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)]))
        >>> [check.status for check in ck.verify(hardened, source="samples/digits_cnn.onnx").checks][:2]
        ['passed', 'passed']
    """

    model: str
    source: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)

    @property
    def data_unchecked(self) -> bool:
        """Whether there is external data whose content was not checked, though there is a reference for it."""
        return any(check.status == "not checked" and check.detail in {UNREAD, SAME_FILES} for check in self.checks)


def verify(
    model: ModelLike,
    *,
    source: ModelLike | None = None,
    attestation: Attestation | None = None,
    analysis: Analysis | None = None,
    samples: SamplesLike | None = None,
    seed: int = 0,
    hash_external: bool = True,
    on_read: Callable[[int], None] = lambda read: None,
    allow_other_bytes: bool = False,
) -> Verification:
    """Check that a hardened model is its source with the masks, in structure and in numbers.

    Args:
        model: The hardened model, or a classifier, which also says where its numbers are compared.
        source: The model it was made from: a trusted reference for all but which masks were meant; or the hardened one,
            for those as well.
        attestation: What was written when it was hardened: a trusted reference for the whole file. Without either only
            self-consistency is checked.
        analysis: What the masks come from: the trusted reference for these.
        samples: What they are compared on; seeded random inputs in [0, 1] where none are given.
        seed: Of these.
        hash_external: Whether external data is read; else it is not checked.
        on_read: Called with the bytes that were read of external data.
        allow_other_bytes: Whether a model passes whose graph is that of the source with the masks, although its bytes
            are others.

    Raises:
        ModelError: without a trusted reference: the model carries no masks, their record is damaged, or it is folded.
            In any case: a file was replaced or changed meanwhile.

    Examples:
        >>> import cloakonnx as ck
        >>> mask = ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)])
        >>> hardened = ck.apply("samples/digits_cnn.onnx", mask)
        >>> ck.verify(hardened, source="samples/digits_cnn.onnx").passed
        True
    """
    classifier = classifier_of(model)
    classifier.check_unmasked("verification")
    hardened_model, origin = classifier.model, None if source is None else model_of(source)
    probe = Probe(classifier, None if samples is None else Dataset.of(samples, classifier), seed)
    reading = Reading(hardened_model, hash_external, on_read)
    reference = origin if origin is None or is_folded(origin.proto) or not found_masks(origin)[0] else stripped(origin)
    checks = tuple(_checks(hardened_model, reference, attestation, analysis, probe, reading=reading))
    failed = any(check.status == "failed" for check in checks)
    is_other = failed or (origin is not None and reference is not origin and origin.sha256 != hardened_model.sha256)
    if is_other and (origin is not None or attestation is not None):
        same = same_function(hardened_model, origin, attestation, analysis, probe)
        shown = same.check
        if origin is not None and not failed and not same.is_exact:  # other masks than the hardened source's
            shown = replace(shown, status="failed", detail=f"not the graph of {origin.name}: {shown.detail}")
        checks = (*(map(allowed, checks) if allow_other_bytes and same.is_exact else checks), shown)
    for each in (hardened_model, origin):
        if each is not None:
            each.check_unchanged()
    return Verification(hardened_model.name, None if origin is None else origin.name, checks)


def _checks(
    model: Model,
    source: Model | None,
    attestation: Attestation | None,
    analysis: Analysis | None,
    probe: Probe,
    *,
    reading: Reading,
) -> Iterator[Check]:
    try:
        damage = None if is_folded(model.proto) or masks_of(model.proto) else _NO_MASKS.format(model.name)
    except ModelError as error:
        damage = str(error)
    if damage is not None and source is None and attestation is None:
        raise ModelError(damage)
    if attestation is not None:
        yield from attested_checks(model, source, attestation, reading)
    if damage is not None:
        yield Check("metadata", "failed", damage)
        if source is not None:
            found = listed(diff(source, model))
            said = f"beside the source: {found}" if found else f"it is {source.name} itself"
            yield Check("structure", "failed", said)
        return
    if analysis is not None:
        yield intended_masks(model, analysis)
    meant = () if analysis is None else analysis.masks
    if is_folded(model.proto):
        yield from folded_checks(model, source, meant, probe, reading, is_attested=attestation is not None)
    else:
        yield from _mul_checks(model, source, meant, probe, reading, is_attested=attestation is not None)


def _mul_checks(
    model: Model,
    source: Model | None,
    meant: Sequence[Mask],
    probe: Probe,
    reading: Reading,
    *,
    is_attested: bool,
) -> Iterator[Check]:
    first = _masks_in_place(model)
    yield from (first, _mask_hashes(model), _self_consistent(model))
    if source is not None:
        yield from (source_is_recorded(model, source), _structure(model, source))
        yield external_data(model, source, source.external_files, reading)
    elif not is_attested:
        yield from (Check(name, "not checked", NO_REFERENCE) for name in ("source", "structure"))
        yield external_data(model, None, model.external_files, reading)
    if first.status == "failed":
        yield Check("numbers", "not checked", "the masks are not in place")
    else:
        reference = source if source is not None else stripped(model)
        yield from numbers(_masked_taps(model, reference, meant, probe), probe, "the model without this mask")


def _masks_in_place(model: Model) -> Check:
    """Take the masks out and put them in again: the model that this gives must be the one at hand."""
    name = "masks in place"
    try:
        found = [each for each in diff(reinserted(model), model) if not each.part.startswith("external data")]
    except CloakError as error:
        return Check(name, "failed", str(error))
    if found:
        return Check(name, "failed", f"not as cloakonnx puts masks in: {listed(found)}")
    entries_found = masks_of(model.proto)
    taps = [entry.tap for entry in entries_found if isinstance(entry, MaskEntry)]
    weights = {entry.tap for entry in entries_found if not isinstance(entry, MaskEntry)}
    said = ([f"a Mul node after {', '.join(taps)}"] if taps else []) + (
        [f"a Mul node on each of {len(weights)} weights"] if weights else []
    )
    return Check(name, "passed", ", ".join(said))


def _mask_hashes(model: Model) -> Check:
    name, said, on_weights = "mask values", [], 0
    for entry in masks_of(model.proto):
        try:
            values = mask_values_of(model, entry)
        except CheckError as error:
            return Check(name, "failed", str(error))
        if hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() != entry.sha256:
            return Check(name, "failed", f"the mask of {entry.tap!r} is not the one that the metadata records")
        if not isinstance(entry, MaskEntry):
            on_weights += values.size
            continue
        removed = int((values.astype(np.float64) == 0).sum())
        does = f"removes {removed} of" if removed else "scales"
        said.append(f"{entry.tap} ({does} {values.size}) sha256 {entry.sha256[:16]}...")
    if on_weights:
        said.append(f"{on_weights:,} numbers on weights")
    return Check(name, "passed", f"as the metadata records: {', '.join(said)}")


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


def _structure(model: Model, source: Model) -> Check:
    try:
        if stripped_sha256(model) == canonical_sha256(source):
            return Check("structure", "passed", "without its masks the model is the source, byte for byte")
        found = diff(source, stripped(model))
    except CheckError:
        found = [each for each in diff(source, model) if not each.part.startswith(f"metadata '{PREFIX}")]
        return Check("structure", "failed", f"beside the source, without masks: {listed(found)}")
    said = listed(found) or "the same content is encoded in other bytes"
    return Check("structure", "failed", f"beside the masks: {said}")


def _masked_taps(model: Model, reference: Model, meant: Sequence[Mask], probe: Probe) -> Iterator[Check]:
    """Compare each masked tap with mask * tap of the source that carries the other masks only.

    Where masks were rounded and ``meant`` has them as they were, the outputs of both are compared.
    """
    masks = read_masks(model)
    rounded = {mask.key for mask in masks if mask.is_float16}
    if rounded and rounded <= {mask.key for mask in meant}:
        yield rounding(model, reference, meant, probe)
    on_weights = [mask for mask in masks if mask.on_weight]
    if on_weights:
        others = [mask for mask in masks if not mask.on_weight]
        yield weight_numbers(model, hardened(reference, others) if others else reference, on_weights, probe)
    for entry in masks_of(model.proto):
        if not isinstance(entry, MaskEntry):
            continue
        others = [mask for mask in masks if mask.key != entry.key]
        base = hardened(reference, others) if others else reference
        yield _compared(entry, mask_values_of(model, entry), model, base, probe)


def _compared(entry: MaskEntry, mask: NDArray[Any], model: Model, base: Model, probe: Probe) -> Check:
    with as_not_comparable():
        tap = probe.run(base, entry.tap)
    masked_tap = probe.run(model, entry.tap)
    largest = error = 0.0
    count, dtype = 0, "float32"
    for batch in probe.batches(model):
        with as_not_comparable():
            unmasked = tap(batch)[0].astype(np.float64)
        masked = masked_tap(batch)[0]
        with np.errstate(invalid="ignore"):  # 0 * infinity
            wanted = unmasked * mask.astype(np.float64)
        largest = max(largest, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
        error = float(np.max([error, largest_difference(masked.astype(np.float64), wanted)]))  # keeps NaN
        count, dtype = count + len(batch), str(masked.dtype)
    tolerance = _TOLERANCE[dtype] * largest
    said = f"tap {entry.tap!r}: largest difference from mask * tap {error:.3g}, tolerance {tolerance:.3g}"
    return Check("numbers", "passed" if error <= tolerance else "failed", f"{said}, {count} samples")
