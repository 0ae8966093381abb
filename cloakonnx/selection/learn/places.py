"""Where masks are learned, by the granularity: at activations, or on the weights of layers."""

from __future__ import annotations

from collections.abc import Sequence

from cloakonnx.classifier.masked import ones
from cloakonnx.errors import OptionError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import ELEMENT, FEATURE, INPUT_CHANNEL, KERNEL, OUTPUT_CHANNEL, WEIGHT, Mask
from cloakonnx.graph.masks.taps import places
from cloakonnx.graph.masks.weights import WeightPlace, chosen_weights
from cloakonnx.selection.learn.recipe import Granularity

_AT_ACTIVATIONS: dict[str, str] = {"feature": FEATURE, "element": ELEMENT}


def first_masks(
    model: Model,
    granularity: Granularity,
    *,
    taps: Sequence[str] = (),
    tap_patterns: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> list[Mask]:
    """Return the masks that learning begins with, all 1.

    Args:
        model: The model.
        granularity: What one weight of a mask multiplies.
        taps: Activations; without them and patterns, those that feed linear layers.
        tap_patterns: Globs over the names of taps.
        layers: Globs over the names of weights and of the layers that read them; all where there is none.

    Raises:
        TapError: no such tensor or layer, or one that can't be masked.
        OptionError: taps for masks on weights, or layers for masks at activations.
    """
    unit = _AT_ACTIVATIONS.get(granularity)
    if unit is not None:
        if layers:
            raise OptionError(
                f"{{layers}} chooses weights; masks of {granularity} go to activations: {{taps}}, {{tap_patterns}}",
                parameter=("layers", "taps", "tap_patterns"),
            )
        return [ones(tap, unit) for tap in places(model, names=taps, patterns=tap_patterns)]
    if taps or tap_patterns:
        raise OptionError(
            f"{{taps}} and {{tap_patterns}} choose activations; {granularity} masks are on weights",
            parameter=("taps", "tap_patterns"),
        )
    found = chosen_weights(model, patterns=layers, biases=granularity == "weight-channel")
    return [ones(place, unit) for place in found for unit in _units(place, granularity)]


def _units(place: WeightPlace, granularity: Granularity) -> tuple[str, ...]:
    """Return the masks that a weight gets; a vector (a bias, a normalisation's scale) has one number a channel."""
    if granularity == "weight" or place.input_axis is None:
        return (WEIGHT,)
    return (KERNEL,) if granularity == "kernel" else (OUTPUT_CHANNEL, INPUT_CHANNEL)
