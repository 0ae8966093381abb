"""The numbers of masks on weights: the model against one whose weights are multiplied, computed apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloakonnx.evaluation.verification._checks import Check, Probe, as_not_comparable, largest_difference
from cloakonnx.graph.file.edit import edited
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold.weights import multiplied_weights
from cloakonnx.graph.index.outputs import score_output
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask, largest_relative_error
from cloakonnx.graph.masks.strip import read_masks

_TOLERANCE = 1e-4
"""Share of the outputs' spread that rounding explains: products of weights are rounded in other places."""


def weight_numbers(model: Model, unmasked: Model, masks: Sequence[Mask], probe: Probe) -> Check:
    """Compare the outputs with those of a model whose weights are multiplied by the masks here.

    Args:
        model: The hardened model.
        unmasked: The same without its masks on weights.
        masks: These masks.
        probe: What runs models.
    """
    edit, kept = multiplied_weights(unmasked, masks)
    found = _difference(model, edited(unmasked, edit), probe)
    tolerance = _TOLERANCE * max(found.spread, 1e-6)
    said = (
        f"masks on weights: largest difference of {found.output!r} from weight * mask {found.largest:.3g}, tolerance "
        f"{tolerance:.3g}"
    )
    said = f"{said}, {found.count} samples" + "".join(
        f"; the mask on {name!r} is a Mul node in both: {reason}" for name, reason in kept.items()
    )
    return Check("numbers", "passed" if found.largest <= tolerance else "failed", said)


def rounding(model: Model, unmasked: Model, masks: Sequence[Mask], probe: Probe) -> Check:
    """Say what it changes that masks are stored as float16.

    Args:
        model: The hardened model.
        unmasked: The same without its masks.
        masks: The masks before they were rounded.
        probe: What runs models.
    """
    stored = {mask.key: mask for mask in read_masks(model) if mask.is_float16}
    error = largest_relative_error((mask, stored[mask.key]) for mask in masks if mask.key in stored)
    found = _difference(model, hardened(unmasked, masks), probe)
    share = found.largest / found.spread if found.spread else 0.0
    return Check(
        "float16 masks",
        "passed",
        f"largest relative error of a number {error:.2g}; largest difference of {found.output!r} from the model with "
        f"the masks as they were {found.largest:.3g}, {share:.2g} of its spread, {found.count} samples",
    )


@dataclass(frozen=True)
class _Difference:
    """How far two models' first outputs lie apart, and how far that output spreads."""

    output: str
    largest: float
    spread: float
    count: int


def _difference(model: Model, base: Model, probe: Probe) -> _Difference:
    output = score_output(model.structure)
    with as_not_comparable():
        other = probe.run(base, output)
    ours = probe.run(model, output)
    error = spread = 0.0
    count = 0
    for batch in probe.batches(model):
        with as_not_comparable():
            wanted = other(batch)[0].astype(np.float64)
        found = ours(batch)[0].astype(np.float64)
        error = float(np.max([error, largest_difference(found, wanted)]))  # keeps NaN
        spread = max(spread, float(np.ptp(wanted[np.isfinite(wanted)])) if wanted.size else 0.0)
        count += len(batch)
    return _Difference(output, error, spread, count)
