"""What is left to say of a model whose bytes are others than those of the hardened one: does it compute the same?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import CheckError, CloakError, DataError
from cloakonnx.evaluation.verification._checks import Check, Probe, largest_difference, listed
from cloakonnx.evaluation.verification.attestation import Attestation, AttestedMask
from cloakonnx.graph.file.diff import Difference, diff
from cloakonnx.graph.file.equality import computes_the_same
from cloakonnx.graph.file.fingerprint import changes_of
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold.fold import refolded
from cloakonnx.graph.index.outputs import floating, scores_tensor
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import is_folded
from cloakonnx.graph.masks.strip import found_masks
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.topk import Count, select

NAME = "same function"

_TOLERANCE = 3e-5
"""Of the scores' spread: what is left of float32 after fused or reordered sums. Half precision lies above."""

_BYTES = frozenset({"attested file", "attested data", "masks in place", "metadata", "structure", "external data"})
"""The checks that ask for bytes."""

_HARMLESS = frozenset({"graph.value_info", "graph.doc_string", "graph.name", "model.doc_string", "model.ir_version"})

_UNKNOWN = (
    "the masks' values are not in the file any more; name the hardened model itself with --source, or --analysis (for "
    "scores with --attestation), for what to compare it with"
)


@dataclass(frozen=True)
class Same:
    """Whether a model computes what the hardened one does, and whether its graph proves it."""

    check: Check
    is_exact: bool = False


def same_function(
    model: Model, source: Model | None, attestation: Attestation | None, analysis: Analysis | None, probe: Probe
) -> Same:
    """Compare a model with the hardened one that its references lead to: graph by graph, else in numbers.

    Args:
        model: The model, whose bytes are others.
        source: What it was hardened from, or the hardened model.
        attestation: Of the hardened model; without a source it has digests only.
        analysis: What the masks come from, where the model does not hold them any more.
        probe: What both run on.
    """
    if source is None:
        found = [] if attestation is None else changes_of(attestation.parts, model)
        if attestation is None or not all(map(_is_harmless, found)):
            return Same(Check(NAME, "not checked", "name the source with --source, to run both"))
        said = f"the same graph by the digests of its parts, other bytes: {_named(found)}"
        return Same(Check(NAME, "passed", said))
    try:
        return _compared(_wanted(model, source, attestation, analysis), model, probe)
    except DataError:
        raise
    except CloakError as error:
        return Same(Check(NAME, "not checked", str(error)))


def allowed(check: Check) -> Check:
    """Return a check that does not fail where only bytes are others."""
    if check.status != "failed" or check.name not in _BYTES:
        return check
    return replace(check, status="not checked", detail=f"other bytes are allowed: {check.detail}")


def _named(found: Sequence[Difference]) -> str:
    return f"only {listed(found)}" if found else "the same content is encoded differently"


def _is_harmless(found: Difference) -> bool:
    return (
        found.change == "moved"
        or found.part in _HARMLESS
        or found.part.startswith(("metadata ", "model.producer", "external data "))
    )


def _wanted(model: Model, source: Model, attestation: Attestation | None, analysis: Analysis | None) -> Model:
    """Return the hardened model that a model should be.

    Raises:
        CloakError: it can't be made.
    """
    if is_folded(source.proto) or found_masks(source)[0]:
        return source
    if is_folded(model.proto):
        return refolded(model, source)
    masks = found_masks(model)[0] or _meant(attestation, analysis)
    if not masks:
        raise CheckError(_UNKNOWN)
    return hardened(source, masks)


def _meant(attestation: Attestation | None, analysis: Analysis | None) -> list[Mask]:
    """Return the masks that an analysis leads to; scores need the attested numbers of features."""
    if analysis is None:
        return []
    scores = analysis.scores
    if scores is None:
        return list(analysis.masks)
    attested = [] if attestation is None else [each for each in attestation.masks if each.tap == scores.tap]
    if not attested:
        return []
    mask = select(scores, Count(attested[0].removed))
    if AttestedMask.of(mask).sha256 != attested[0].sha256:
        raise CheckError("the analysis does not lead to the attested mask")
    return [mask]


def _compared(wanted: Model, model: Model, probe: Probe) -> Same:
    """Compare two models graph by graph, and in numbers as well: a false value info may lead a runtime astray."""
    run = _probed(wanted, model, probe)
    if not computes_the_same(wanted, model):
        return Same(run)
    if run.status == "failed":
        return Same(replace(run, detail=f"the same graph, but {run.detail}"))
    said = f"the same graph, other bytes: {_named(diff(wanted, model))}"
    if run.status == "not checked":
        return Same(Check(NAME, "passed", f"{said}; not run: {run.detail}"))
    return Same(Check(NAME, "passed", said), is_exact=True)


def _probed(wanted: Model, model: Model, probe: Probe) -> Check:
    """Run both models on the same samples, and compare their floating-point outputs."""
    try:
        return _numbers(wanted, model, probe)
    except DataError:
        raise
    except CloakError as error:
        return Check(NAME, "not checked", f"one of both does not run: {error}")


def _numbers(wanted: Model, model: Model, probe: Probe) -> Check:
    names = [each.name for each in model.proto.graph.output]
    others = [each.name for each in wanted.proto.graph.output]
    if names != others and len(names) != len(others):
        return Check(NAME, "failed", f"another function: outputs {', '.join(names)}, not {', '.join(others)}")
    pairs = [
        (a, scores_tensor(model.structure, b))
        for a, b in zip(floating(wanted.structure), names, strict=True)
        if a is not None
    ]
    if not pairs:
        return Check(NAME, "not checked", "no output is known to be of a floating-point type")
    runs = probe.run(wanted, *(a for a, _ in pairs)), probe.run(model, *(b for _, b in pairs))
    sizes = _fixed_batch(wanted), _fixed_batch(model)
    results: list[list[list[NDArray[np.float64]]]] = [[[] for _ in pairs], [[] for _ in pairs]]
    count = 0
    for batch in probe.batches(wanted):
        count += len(batch)
        for part in batch[:, None] if any(sizes) else [batch]:  # each sample alone, as often as a fixed batch asks for
            for run, size, found in zip(runs, sizes, results, strict=True):
                for position, value in enumerate(run(np.repeat(part, size or 1, axis=0))):
                    values = np.asarray(value).astype(np.float64)
                    found[position].append(values[: len(part)] if size and values.ndim else values)
    both = [(np.concatenate(a), np.concatenate(b)) for a, b in zip(*results, strict=True)]
    worst = float(np.max([_of_spread(a, b) for a, b in both]))  # keeps NaN
    on = f"{count} {'random inputs' if probe.samples is None else 'samples'}"
    agree = _agreement(*both[0])
    if worst <= _TOLERANCE:
        said = f"on {on}, largest difference {worst:.2g} of the scores' spread{agree}; a probe, no proof"
        return Check(NAME, "passed", said)
    return Check(
        NAME, "failed", f"another function: on {on} it differs by up to {worst:.2g} of the scores' spread{agree}"
    )


def _of_spread(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    finite = wanted[np.isfinite(wanted)]
    spread = float(np.ptp(finite)) if finite.size else 0.0
    difference = largest_difference(found, wanted)
    return difference / spread if spread or np.isnan(difference) else float("inf") if difference else 0.0


def _agreement(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> str:
    if wanted.ndim != 2 or wanted.shape != found.shape or wanted.shape[1] < 2:
        return ""
    return f", the same class on {int((wanted.argmax(1) == found.argmax(1)).sum())}"


def _fixed_batch(model: Model) -> int | None:
    """Return how many samples a model takes where it declares a number."""
    dims = [value.type.tensor_type.shape.dim for value in model.inputs]
    return next((each[0].dim_value for each in dims if len(each) > 0 and each[0].dim_value > 0), None)
