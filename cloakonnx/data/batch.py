"""The batch: what sources give."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import DataError


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

    @property
    def indices(self) -> NDArray[np.int64]:
        """(B,) indices of the samples in the whole data."""
        return np.arange(self.start, self.start + len(self.x))

    def labelled(self, message: str) -> LabelledBatch:
        """Return the samples with their labels; raises DataError with this message where there are none."""
        if self.y is None:
            raise DataError(message)
        return LabelledBatch(self.x, self.y, self.indices)


class LabelledBatch(NamedTuple):
    """Some samples with labels.

    Attributes:
        x: (B, ...) float32 pixels in the model's layout.
        y: (B,) int64 labels.
        indices: (B,) int64 indices of the samples in the whole data.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    indices: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> LabelledBatch:
        """Return some of the samples."""
        return LabelledBatch(self.x[rows], self.y[rows], self.indices[rows])
