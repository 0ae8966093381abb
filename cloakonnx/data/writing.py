"""Writes samples: the same arrays always give the same bytes, whole or not at all."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.graph import atomic

_NO_DATE = (1980, 1, 1, 0, 0, 0)
"""The zip format's first day: numpy's own writer puts the time of writing into the file."""

_TOLERANCE = 1e-4 / 255


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed ``.npz``, atomically.

    Raises:
        OutputError: it can't be written.
    """
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _NO_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(info, content.getvalue())


def as_levels(pixels: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Return pixels in [0, 1] as uint8 where every value is within 1e-4/255 of a level, else None.

    In float32 x/255 + 4/255 misses the level bitwise for 2% of the values, hence the tolerance.
    """
    levels = np.rint(pixels.astype(np.float64) * 255)
    if len(pixels) and (levels.min() < 0 or levels.max() > 255 or np.abs(pixels - levels / 255).max() > _TOLERANCE):
        return None
    return levels.astype(np.uint8)


def rounded_inward(pixels: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels rounded to levels of 1/255 towards the clean ones, so that they stay in the ball around them."""
    scaled, origin = pixels.astype(np.float64) * 255, clean.astype(np.float64) * 255
    slack = 255 * _TOLERANCE
    inward = np.where(scaled > origin, np.floor(scaled + slack), np.ceil(scaled - slack))
    unmoved = np.abs(scaled - origin) <= slack
    return np.asarray(np.where(unmoved, origin, inward) / 255).astype(np.float32)
