"""Masks on weights, multiplied into them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold._absorb import Weight, Weights, exchange, multiplied
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.masks.insert import mask_values
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.weights import find_weight


def multiplied_weights(model: Model, masks: Sequence[Mask]) -> tuple[Edit, dict[str, str]]:
    """Return the edit that multiplies masks into the weights that they are on, and why some can't be.

    Args:
        model: The model without these masks.
        masks: Masks on weights.

    Returns:
        The edit, and for each weight that can't be changed (computed, or a caller may feed it) the reason.

    Raises:
        TapError, MaskError: a mask that does not fit.
    """
    constants = Constants(model.structure)
    weights = Weights(model, constants)
    found: dict[str, tuple[Weight, list[NDArray[np.float64]]]] = {}
    kept: dict[str, str] = {}
    for mask in masks:
        place = find_weight(model, mask.tap)
        weight = weights.find(place.nodes[0], place.name)
        if isinstance(weight, str):
            kept[mask.tap] = weight
        else:
            values = mask_values(place, mask).astype(np.float64)
            found.setdefault(mask.tap, (weight, []))[1].append(values)
    nodes: dict[int, onnx.NodeProto] = {}
    tensors: dict[str, onnx.TensorProto] = {}
    for weight, factors in found.values():
        tensor = multiplied(model, weight, factors)
        if tensor is None:
            continue
        exchange(model, weight, tensor, nodes=nodes, tensors=tensors)
    return Edit(replace_nodes=nodes, replace_initializers=tensors), kept
