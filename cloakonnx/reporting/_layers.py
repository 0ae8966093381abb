"""The report page's pictures of masks, layer by layer: a map of the numbers, and how they are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.graph.masks.mask import Mask, most_changed
from cloakonnx.reporting import _charts as charts

_MOST_LAYERS = 48
_MOST_CELLS = 24
"""Cells of a map in a row, and in a column."""

_LEVELS = 8
"""Steps of colour on either side of 1."""

_WITHIN = 0.99
"""Share of all numbers that the colours reach over: single ones far away would leave no colour to the others."""


@dataclass(frozen=True)
class Layer:
    """The picture of a mask.

    Attributes:
        name: What the mask is on.
        svg: The picture, safe to be put into the page.
        said: Its numbers in words.
    """

    name: str
    svg: str
    said: str


@dataclass(frozen=True)
class LayerPart:
    """The pictures.

    Attributes:
        intro: How to read them.
        legend: (swatch, text).
        layers: One for each mask.
    """

    intro: str
    legend: tuple[tuple[str, str], ...]
    layers: tuple[Layer, ...]


def layer_part(masks: Sequence[Mask]) -> LayerPart:
    """Return pictures of the masks that change most, in the model's order."""
    chosen = {mask.key for mask in most_changed(masks, _MOST_LAYERS)}
    drawn = [mask for mask in masks if mask.key in chosen]
    reach = _reach(drawn)
    few = f" of the {len(drawn)} masks that change most" if len(drawn) == _MOST_LAYERS < len(masks) else ""
    intro = (
        f"The numbers{few}, mask by mask. Left, where a mask has rows and columns: each number at its place, the first "
        "axis (of a Conv's weight its output channels) from top to bottom, the others from left to right; where there "
        f"are over {_MOST_CELLS} in a row or column, a cell is the mean of several. Right: how many are how large, "
        f"from {1 - reach:.3g} to {1 + reach:.3g}, with a line at 1; what lies beyond counts to the ends."
    )
    legend = (
        (charts.swatch("less", "bar"), "below 1: weakens"),
        (charts.swatch("same", "bar"), "about 1"),
        (charts.swatch("more", "bar"), "above 1: strengthens"),
    )
    return LayerPart(intro, legend, tuple(_layer(index, mask, reach) for index, mask in enumerate(drawn)))


def _layer(index: int, mask: Mask, reach: float) -> Layer:
    levels = _levels(mask.weights.ravel(), reach)
    counts = np.bincount(levels + _LEVELS, minlength=2 * _LEVELS + 1).tolist()
    cells = _cells(mask.weights)
    said = (
        f"{_shape(mask)}, from {mask.weights.min():.3f} to {mask.weights.max():.3f}; root mean square of the change "
        f"{mask.change:.3f}"
    )
    mapped = None if cells is None else _levels(cells, reach).tolist()
    return Layer(mask.key, charts.layer(f"layer-{index}", f"{mask.key}: {said}", mapped, counts, reach), said)


def _shape(mask: Mask) -> str:
    sizes = [size for size in mask.weights.shape if size > 1] or [1]
    return f"{mask.weights.size:,} numbers" + (f" ({' x '.join(map(str, sizes))})" if len(sizes) > 1 else "")


def _reach(masks: Sequence[Mask]) -> float:
    """Return how far from 1 the colours reach."""
    if not masks:
        return 1.0
    far = np.abs(np.concatenate([mask.weights.ravel() for mask in masks]).astype(np.float64) - 1)
    return float(np.quantile(far, _WITHIN)) or float(far.max())


def _levels(values: NDArray[np.floating], reach: float) -> NDArray[np.int64]:
    """Return for each value its step of colour, 0 for about 1."""
    steps = np.rint((values.astype(np.float64) - 1) / reach * _LEVELS)
    return np.clip(steps, -_LEVELS, _LEVELS).astype(np.int64)


def _cells(weights: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return a mask as rows and columns, few enough to be drawn; None where it is one row or column."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    if min(flat.shape) == 1:
        return None
    return _thinned(_thinned(flat, 0), 1)


def _thinned(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return means over runs along an axis, so that few are left; the last run may be shorter."""
    step = math.ceil(values.shape[axis] / _MOST_CELLS)
    starts = np.arange(0, values.shape[axis], step)
    sizes = np.diff([*starts, values.shape[axis]])
    sums = np.add.reduceat(values, starts, axis=axis)
    return np.asarray(sums / (sizes[:, None] if axis == 0 else sizes), np.float64)
