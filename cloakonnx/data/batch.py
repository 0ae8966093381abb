"""The batch: what sources give."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Batch(NamedTuple):
    """Some consecutive samples.

    Attributes:
        x: (B, ...) the samples.
        y: (B,) int64 labels, or None.
        start: Index of the first one.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    start: int
