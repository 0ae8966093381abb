"""Where a classifier's masks are: at taps, as inputs of its graphs, and on weights, where sessions hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import MaskError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.granularity import Place
from cloakonnx.graph.masks.insert import mask_values
from cloakonnx.graph.masks.mask import FEATURE, Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.masks.weights import WeightMask, find_weight


class Places(NamedTuple):
    """Where masks are, by their keys.

    Attributes:
        taps: Feature axis of each mask at an activation; None for one of elements.
        weights: Weight and shape of each mask on a weight.
    """

    taps: dict[str, int | None]
    weights: dict[str, WeightMask]


def placed(model: Model, masks: Sequence[Mask]) -> tuple[Places, dict[str, NDArray[Any]]]:
    """Return where masks go, and their weights in the precision of the gradient graphs.

    Raises:
        TapError, MaskError: a mask that does not fit, or two at one place.
    """
    places, weights = Places({}, {}), {}
    for mask in masks:
        if mask.key in weights:
            raise MaskError(f"{model.name}: two masks at {'weight' if mask.on_weight else 'tap'} {mask.tap!r}")
        place: Place
        if mask.on_weight:
            place = find_weight(model, mask.tap)
            places.weights[mask.key] = WeightMask(place.name, mask.weights.shape)
        else:
            place = find_tap(model, mask.tap, axis=mask.feature_axis)
            places.taps[mask.key] = place.feature_axis if mask.granularity == FEATURE else None
        mask_values(place, mask)
        wide = np.float64 if place.elem_type == onnx.TensorProto.DOUBLE else np.float32
        weights[mask.key] = mask.weights.astype(wide)
    return places, weights
