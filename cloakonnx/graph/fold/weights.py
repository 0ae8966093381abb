"""Masks on weights, multiplied into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold._absorb import Change, Weights, reweighted
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.masks.insert import mask_values
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.weights import find_weight


@dataclass(frozen=True)
class Folded:
    """What some masks change, each mask by its number among all.

    Attributes:
        changes: Of weights.
        layers: Mask to the layers whose weights change because of it, in graph order.
        kept: Mask to the reason why it can't be in the weights.
    """

    changes: Sequence[Change] = ()
    layers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    kept: Mapping[int, str] = field(default_factory=dict)


def weight_changes(model: Model, masks: Sequence[Mask]) -> Folded:
    """Return what masks on weights change.

    A weight that something else reads too, that a caller may feed, that is an output of the model or that other nodes
    compute stays as it is.

    Args:
        model: The model without these masks.
        masks: All masks; those at activations are left out.

    Raises:
        TapError, MaskError: a mask that does not fit.
    """
    weights = Weights(model, Constants(model.structure))
    changes: list[Change] = []
    layers: dict[int, tuple[str, ...]] = {}
    kept: dict[int, str] = {}
    for number, mask in enumerate(masks):
        if not mask.on_weight:
            continue
        place = find_weight(model, mask.tap)
        weight = weights.find(place.nodes[0], place.name)
        if isinstance(weight, str):
            kept[number] = weight
            continue
        change = Change(weight, (mask_values(place, mask).astype(np.float64),))
        changes.append(change)
        layers[number] = () if change.is_none else (f"{place.op} node {place.layer!r}",)
    return Folded(changes, layers, kept)


def multiplied_weights(model: Model, masks: Sequence[Mask]) -> tuple[Edit, dict[str, str]]:
    """Return the edit that multiplies masks into the weights that they are on, and why some can't be, by weight.

    Raises as :func:`weight_changes` does.
    """
    found = weight_changes(model, masks)
    return reweighted(model, found.changes), {masks[number].tap: reason for number, reason in found.kept.items()}
