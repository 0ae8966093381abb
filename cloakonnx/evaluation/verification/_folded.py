"""Verifies a folded model: folding its masks into the source again must give the same file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from cloakonnx.errors import CloakError, ModelError
from cloakonnx.evaluation.verification._checks import (
    Check,
    Probe,
    Reading,
    as_not_comparable,
    external_data,
    largest_difference,
    listed,
    numbers,
    source_is_recorded,
)
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold.fold import refolded
from cloakonnx.graph.fold.recorded import given_masks
from cloakonnx.graph.index.outputs import floating
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import VERSION as VERSION_KEY
from cloakonnx.graph.masks.metadata import InWeight, entries, folded_masks

_TOLERANCE: dict[int, float] = {
    onnx.TensorProto.DOUBLE: 1e-10,
    onnx.TensorProto.FLOAT: 1e-3,
    onnx.TensorProto.FLOAT16: 5e-2,
    onnx.TensorProto.BFLOAT16: 2e-1,
}
"""Of the largest output, by its type: each changed weight is rounded once more, which later layers carry on."""


_LEAST = 1e-300


def folded_checks(
    model: Model,
    source: Model | None,
    meant: Sequence[Mask],
    probe: Probe,
    reading: Reading,
    *,
    is_attested: bool = False,
) -> Iterator[Check]:
    """Yield the checks of a folded model; of an attested one without a source only its record is left to check.

    Raises:
        ModelError: neither source nor attestation, without them the weights cannot be checked.
    """
    if source is None and is_attested:
        yield _recorded(model)
        yield Check("numbers", "not checked", "name the source with --source to compare them")
        return
    if source is None:
        raise ModelError(
            f"{model.name} is folded, so its weights can only be checked by folding again; name the model it was made "
            "from with {source}, or its attestation with {attestation}",
            parameter=("source", "attestation"),
        )
    recorded = _recorded(model)
    yield recorded
    if recorded.status == "failed":
        names = ("source", "structure", "external data", "numbers")
        yield from (Check(name, "not checked", "the record of the masks is damaged") for name in names)
        return
    yield source_is_recorded(model, source)
    yield _structure(model, source, meant)
    yield external_data(model, source, model.external_files, reading)
    yield from numbers(_compared(model, source, meant, probe), probe, "the source with Mul nodes")


def _recorded(model: Model) -> Check:
    name, found = "metadata", entries(model.proto)
    missing = [key for key in (SOURCE_KEY, VERSION_KEY) if key not in found]
    if missing:
        return Check(name, "failed", f"the metadata lacks {', '.join(missing)}")
    try:
        masks = folded_masks(model.proto)
    except CloakError as error:
        return Check(name, "failed", str(error))
    said = ", ".join(map(_said, masks))
    return Check(name, "passed" if masks else "failed", f"records the folded masks of {said or 'no tap'}")


def _said(mask: Mask | InWeight) -> str:
    inside = isinstance(mask, InWeight)
    removed = mask.removed if isinstance(mask, InWeight) else len(mask.removed)
    return f"{mask.tap} (removes {removed} of {mask.size}{', by digest' if inside else ''})"


def _structure(model: Model, source: Model, meant: Sequence[Mask]) -> Check:
    try:
        again = refolded(model, source, meant)
    except CloakError as error:
        return Check("structure", "failed", f"the masks can't be folded into the source: {error}")
    if again.sha256 == model.sha256:
        return Check("structure", "passed", "folding the masks into the source again gives this file, byte for byte")
    said = listed(diff(again, model)) or "the same content is encoded in other bytes"
    return Check("structure", "failed", f"not what folding the masks into the source gives: {said}")


def _compared(model: Model, source: Model, meant: Sequence[Mask], probe: Probe) -> Iterator[Check]:
    """Compare the outputs with those of the source that carries the same masks as Mul nodes."""
    graph = source.structure
    tolerances = {
        name: _TOLERANCE[graph.elem_type(name)]
        for name in floating(graph)
        if name is not None and graph.elem_type(name) in _TOLERANCE
    }
    outputs = list(tolerances)
    if not outputs:
        yield Check("numbers", "not checked", "no output is known to be of a floating-point type")
        return
    with as_not_comparable():
        reference = probe.run(hardened(source, given_masks(model, source, meant)), *outputs)
    run = probe.run(model, *outputs)
    worst, count = 0.0, 0
    for batch in probe.batches(model):
        with as_not_comparable():
            wanted = reference(batch)
        for name, mine, its in zip(outputs, run(batch), wanted, strict=True):
            expected = its.astype(np.float64)
            largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
            allowed = tolerances[name] * largest
            error = largest_difference(mine.astype(np.float64), expected)
            worst = float(np.max([worst, np.float64(error) / max(allowed, _LEAST)]))  # keeps NaN
        count += len(batch)
    said = f"largest difference from the source with Mul nodes {worst:.3g} of the tolerance, {count} samples"
    yield Check("numbers", "passed" if worst <= 1 else "failed", said)
