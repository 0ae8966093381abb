"""Writes samples: the same arrays always give the same bytes, whole or not at all."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.graph import atomic

_NO_DATE = (1980, 1, 1, 0, 0, 0)
"""The zip format's first day: numpy's own writer puts the time of writing into the file."""

_TOLERANCE = 1e-4 / 255


@dataclass(frozen=True)
class Parts:
    """An array that comes in parts along its first axis, so that it need not be in memory as a whole.

    Attributes:
        shape: Of the whole array.
        dtype: Of the whole array, and of every part.
        parts: The parts, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Iterable[NDArray[Any]]


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | Parts]) -> None:
    """Write arrays as a compressed ``.npz``, atomically.

    Raises:
        OutputError: it can't be written.
    """
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            whole = array if isinstance(array, Parts) else Parts(array.shape, array.dtype, [array])
            header = io.BytesIO()
            form = {"descr": np.lib.format.dtype_to_descr(whole.dtype), "fortran_order": False, "shape": whole.shape}
            np.lib.format.write_array_header_1_0(header, form)
            info = zipfile.ZipInfo(f"{name}.npy", _NO_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.file_size = len(header.getvalue()) + math.prod(whole.shape) * whole.dtype.itemsize
            with archive.open(info, "w") as entry:
                entry.write(header.getvalue())
                for part in whole.parts:
                    entry.write(np.ascontiguousarray(part, whole.dtype).reshape(-1).view(np.uint8).data)


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


def rounded_inward(pixels: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels rounded to levels of 1/255 towards the clean ones, so that they stay in the ball around them.

    Where there is no level between the two, the clean value stands.
    """
    scaled, origin = pixels.astype(np.float64) * 255, clean.astype(np.float64) * 255
    slack = 255 * _TOLERANCE
    above = np.maximum(np.floor(scaled + slack), origin)
    below = np.minimum(np.ceil(scaled - slack), origin)
    return np.asarray(np.where(scaled > origin, above, below) / 255).astype(np.float32)
