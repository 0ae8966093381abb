"""Checks of a hardened model against what was recorded outside it: its attestation, and its masks' analysis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cloakonnx.errors import CloakError
from cloakonnx.evaluation.verification._checks import UNREAD, Check, Reading, listed
from cloakonnx.evaluation.verification.attestation import Attestation, AttestedMask
from cloakonnx.graph.file.fingerprint import changes_of
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import entries, is_folded, masks_of
from cloakonnx.graph.masks.strip import mask_values_of
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.topk import Count, select


def attested_checks(model: Model, source: Model | None, attestation: Attestation, reading: Reading) -> Iterator[Check]:
    """Yield the checks of a model, of its masks, external data and source, against its attestation."""
    yield _file(model, attestation)
    yield _masks(model, attestation)
    yield _files(model, attestation, reading)
    yield _source(model, source, attestation)


def _file(model: Model, attestation: Attestation) -> Check:
    name = "attested file"
    if model.sha256 == attestation.sha256:
        return Check(name, "passed", f"the file has the attested sha256 {model.sha256[:16]}...")
    said = listed(changes_of(attestation.parts, model)) or "the same content is encoded in other bytes"
    return Check(name, "failed", f"not the attested file: {said}")


def _masks(model: Model, attestation: Attestation) -> Check:
    name = "attested masks"
    try:
        found = {mask.key: mask for mask in AttestedMask.of_model(model)}
    except CloakError as error:
        return Check(name, "failed", str(error))
    wanted = {mask.key: mask for mask in attestation.masks}
    for tap in wanted:
        if tap not in found:
            return Check(name, "failed", f"the attested mask of {tap!r} is not there")
    for tap, mask in found.items():
        if tap not in wanted:
            return Check(name, "failed", f"the mask of {tap!r} is not attested")
        if mask != wanted[tap]:
            return Check(
                name,
                "failed",
                f"the mask of {tap!r} (removes {mask.removed}, sha256 {mask.sha256[:16]}...) is not the attested one "
                f"(removes {wanted[tap].removed}, sha256 {wanted[tap].sha256[:16]}...)",
            )
    if is_folded(model.proto) != (attestation.kind == "folded"):
        return Check(name, "failed", f"the attested kind is {attestation.kind!r}, the metadata's is another")
    return Check(name, "passed", f"as attested: {', '.join(wanted)}")


def _files(model: Model, attestation: Attestation, reading: Reading) -> Check:
    name = "attested data"
    odd = sorted({*attestation.files} ^ {*model.external_files})
    if odd:
        how = "attested, but the model does not refer to it" if odd[0] in attestation.files else "not attested"
        return Check(name, "failed", f"external data {odd[0]!r} is {how}")
    if not reading.hashes and attestation.files:
        return Check(name, "not checked", UNREAD)
    found = reading.digests
    for location, digest in attestation.files.items():
        if found[location].sha256 != digest:
            return Check(name, "failed", f"external data {location!r} is not the attested one")
    said = f"{len(attestation.files)} files have the attested sha256" if attestation.files else "there is none"
    return Check(name, "passed", said)


def _source(model: Model, source: Model | None, attestation: Attestation) -> Check:
    name, wanted = "attested source", attestation.source_sha256
    recorded = entries(model.proto).get(SOURCE_KEY)
    if recorded != wanted:
        there = "no sha256" if recorded is None else f"sha256 {recorded[:16]}..."
        return Check(name, "failed", f"the metadata records {there}, attested is {wanted[:16]}...")
    if source is not None and source.sha256 != wanted:
        return Check(name, "failed", f"{source.name} has sha256 {source.sha256[:16]}..., attested is {wanted[:16]}...")
    return Check(name, "passed", f"{attestation.source_name}, sha256 {wanted[:16]}...")


def intended_masks(model: Model, analysis: Analysis) -> Check:
    """Check that a model's masks are those that an analysis leads to.

    Learned and selected masks are compared weight by weight. Scores lead to a mask once the number of features to
    remove is known: it is taken from the model, and the features must be the ones that score highest.
    """
    name, recorded = "analysis", entries(model.proto).get(SOURCE_KEY, "none")
    if analysis.model_sha256 != recorded:
        return Check(
            name,
            "failed",
            f"the analysis was made for sha256 {analysis.model_sha256[:16]}..., but {recorded[:16]}... is recorded",
        )
    try:
        found = {mask.key: mask for mask in AttestedMask.of_model(model)}
        wanted = {mask.key: _as_stored(model, mask) for mask in _wanted(analysis, found)}
    except CloakError as error:
        return Check(name, "failed", str(error))
    for tap in sorted({*wanted} ^ {*found}):
        said = "is not in the model" if tap in wanted else "is not in the analysis"
        return Check(name, "failed", f"the mask of {tap!r} {said}")
    for tap, mask in wanted.items():
        if (mask.shape, mask.sha256) != (found[tap].shape, found[tap].sha256):
            return Check(name, "failed", f"the mask of {tap!r} is not the one that the analysis leads to")
    if analysis.scores is None:
        return Check(name, "passed", f"holds the masks of {', '.join(wanted)}")
    removed = found[analysis.scores.tap].removed
    said = f"the {removed} features of {analysis.scores.tap!r} that score highest are removed"
    return Check(name, "passed", f"{said}; how many were meant it does not say")


def _wanted(analysis: Analysis, found: dict[str, AttestedMask]) -> tuple[Mask, ...]:
    if analysis.scores is None:
        return analysis.masks
    mask = found.get(analysis.scores.tap)
    return (select(analysis.scores, Count(max(mask.removed if mask is not None else 0, 1))),)


def _as_stored(model: Model, mask: Mask) -> AttestedMask:
    """Describe a mask with its weights rounded as a Mul node holds them, in the dtype of its tap."""
    entry = next((each for each in masks_of(model.proto) if each.key == mask.key), None)
    if entry is not None and not is_folded(model.proto):
        mask = replace(mask, weights=mask.weights.astype(mask_values_of(model, entry).dtype).astype(np.float32))
    return AttestedMask.of(mask)
