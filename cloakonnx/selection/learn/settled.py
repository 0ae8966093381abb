"""What a recipe leaves open, as suits the samples."""

from __future__ import annotations

import math
from dataclasses import replace

from cloakonnx.data.samples import Dataset
from cloakonnx.selection.learn.recipe import Granularity, Recipe

_SHIFT_SHARE = 8
"""Images are shifted by up to an eighth of their side: 4 pixels of 32, as is usual for CIFAR (arXiv 1512.03385)."""

_EPOCHS, _STEPS, _MOST_EPOCHS = 8, 640, 40
"""8 epochs of 4,000 samples in batches of 50 are 640 steps; fewer samples get as many steps in more epochs."""


def settled(recipe: Recipe, dataset: Dataset, *, count: int) -> Recipe:
    """Return a recipe that leaves nothing open but the granularity; ``count`` is how many samples are learned on.

    Only images of three channels are mirrored and shifted unless asked for: digits lose their class, or their edge.
    """
    is_photographic = _is_photographic(dataset)
    flip = is_photographic if recipe.flip is None else recipe.flip
    usual = _side(dataset) // _SHIFT_SHARE if is_photographic else 0
    shift = usual if recipe.shift is None else recipe.shift
    epochs = _epochs(recipe, count) if recipe.epochs is None else recipe.epochs
    return replace(recipe, flip=flip, shift=shift, epochs=epochs)


def placed(granularity: Granularity | None, *, at_taps: bool) -> Granularity:
    """Return a granularity; where it is open, single weights, or features where taps are named."""
    return granularity or ("feature" if at_taps else "weight")


def _epochs(recipe: Recipe, count: int) -> int:
    steps = math.ceil(count / min(recipe.batch_size, count))
    return min(max(_EPOCHS, math.ceil(_STEPS / steps)), _MOST_EPOCHS)


def _is_photographic(dataset: Dataset) -> bool:
    """Whether samples are images of three channels."""
    shape = dataset.sample_shape
    return len(shape) == 3 and shape[dataset.arrangement.channel_axis - 1] == 3


def _side(dataset: Dataset) -> int:
    """Return the pixels along the shorter side of an image."""
    return min(size for axis, size in enumerate(dataset.sample_shape, 1) if axis != dataset.arrangement.channel_axis)
