"""The numbers of masks on weights: the model against one whose weights are multiplied, computed apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloakonnx.evaluation.verification._checks import Check, Probe, largest_difference
from cloakonnx.graph.file.edit import edited
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold.weights import multiplied_weights
from cloakonnx.graph.masks.mask import Mask

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
    if kept:
        name, reason = next(iter(kept.items()))
        return Check("numbers", "not checked", f"the mask on {name!r}: {reason}")
    base = edited(unmasked, edit)
    output = model.proto.graph.output[0].name
    ours, other = probe.run(model, output), probe.run(base, output)
    error = spread = 0.0
    count = 0
    for batch in probe.batches(model):
        found, wanted = ours(batch)[0].astype(np.float64), other(batch)[0].astype(np.float64)
        error = float(np.max([error, largest_difference(found, wanted)]))  # keeps NaN
        spread = max(spread, float(np.ptp(wanted[np.isfinite(wanted)])) if wanted.size else 0.0)
        count += len(batch)
    tolerance = _TOLERANCE * max(spread, 1e-6)
    said = (
        f"masks on weights: largest difference of {output!r} from weight * mask {error:.3g}, tolerance {tolerance:.3g}"
    )
    return Check("numbers", "passed" if error <= tolerance else "failed", f"{said}, {count} samples")
