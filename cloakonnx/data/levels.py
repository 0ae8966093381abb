"""Levels of 1/255: pixels as uint8 and back, and pixels rounded to levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-4 / 255


def as_levels(pixels: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Return pixels in [0, 1] as uint8 where every value is within 1e-4/255 of a level, else None.

    In float32 x/255 + 4/255 misses the level bitwise for 2% of the values, hence the tolerance.
    """
    levels = np.rint(pixels.astype(np.float64) * 255)
    # False for NaN too.
    fits = not levels.size or (
        levels.min() >= 0 and levels.max() <= 255 and np.abs(pixels - levels / 255).max() <= _TOLERANCE
    )
    return levels.astype(np.uint8) if fits else None


def as_pixels(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return samples as float32 pixels: uint8 is divided by 255, floats are taken as they are."""
    return np.divide(x, np.float32(255), dtype=np.float32) if x.dtype == np.uint8 else np.asarray(x, np.float32)


def nearest_level(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels rounded to the nearest levels of 1/255."""
    return np.asarray(np.rint(pixels.astype(np.float64) * 255) / 255).astype(np.float32)


def rounded_inward(pixels: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels rounded to levels of 1/255 towards the clean ones, so that they stay in the ball around them.

    Where there is no level between the two, the clean value stands.
    """
    scaled, origin = pixels.astype(np.float64) * 255, clean.astype(np.float64) * 255
    slack = 255 * _TOLERANCE
    above = np.maximum(np.floor(scaled + slack), origin)
    below = np.minimum(np.ceil(scaled - slack), origin)
    return np.asarray(np.where(scaled > origin, above, below) / 255).astype(np.float32)
