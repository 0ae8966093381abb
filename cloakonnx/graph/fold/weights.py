"""Masks on weights, multiplied into them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold._absorb import Change, Weights, reweighted
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.masks.insert import insertion, mask_values
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

    A weight changes for all layers that read it. One that a caller may feed, that is an output of the model, that other
    nodes compute, or that another node reads before a Transpose or Reshape, stays as it is.

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
        weight = weights.find(place.nodes, place.name)
        if isinstance(weight, str):
            kept[number] = weight
            continue
        change = Change(weight, (mask_values(place, mask).astype(np.float64),))
        changes.append(change)
        layers[number] = () if change.is_none else tuple(_layer(model, index) for index in place.nodes)
    return Folded(changes, layers, kept)


def _layer(model: Model, index: int) -> str:
    node = model.structure.graph.node[index]
    return f"{node.op_type} node {node.name or node.output[0]!r}"


def with_nodes(model: Model, edit: Edit, kept: Sequence[Mask]) -> Edit:
    """Return an edit that exchanges weights and puts masks in as Mul nodes; raises as :func:`insertion` does."""
    inserted = insertion(model, kept, stripped_sha256="")
    return dataclasses.replace(
        inserted, replace_nodes=edit.replace_nodes, replace_initializers=edit.replace_initializers
    )


def multiplied_weights(model: Model, masks: Sequence[Mask]) -> tuple[Edit, dict[str, str]]:
    """Return the edit that multiplies masks into the weights that they are on, and why some can't be, by weight.

    Those that can't be are Mul nodes. Raises as :func:`weight_changes` does.
    """
    found = weight_changes(model, masks)
    edit = reweighted(model, found.changes)
    if found.kept:
        edit = with_nodes(model, edit, [masks[number] for number in found.kept])
    return edit, {masks[number].tap: reason for number, reason in found.kept.items()}
