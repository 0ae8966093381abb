"""Exact cycles of a walk whose steps depend on the input alone (PGD with cycle detection, arXiv 2503.19347)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FIRST, _SHARE = 8, 4
"""Steps between two inputs that are kept: 8 at first, later a quarter of the steps so far."""


class Cycles:
    """Compares each input of a walk, bit by bit, with one that is kept and renewed at growing distances.

    A sample that is back where it was repeats itself for ever. It may leave as soon as it stands where the last step
    would have left it: the answer is that of all steps.

    Args:
        x: (N, ...) where the walk starts.
        steps: How many steps it has.

    Attributes:
        leaves: (N,) the step after which each sample leaves: the last one until its cycle is found.
        found: (N,) whose cycle is found.
    """

    def __init__(self, x: NDArray[np.float32], steps: int) -> None:
        self._kept, self._at, self._next, self._steps = _bits(x), 0, _FIRST, steps
        self.leaves = np.full(len(x), steps)
        self.found = np.zeros(len(x), np.bool_)

    def look(self, x: NDArray[np.float32], step: int) -> NDArray[np.bool_]:
        """Look at the inputs after a step; return (N,) which samples may leave now."""
        bits = _bits(x)
        again = ~self.found & (bits == self._kept).all(axis=1)
        self.leaves[again] = step + (self._steps - step) % (step - self._at)
        self.found |= again
        if step == self._next:
            self._kept, self._at, self._next = bits.copy(), step, step + max(_FIRST, step // _SHARE)
        return np.asarray(self.found & (self.leaves == step))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some of the samples."""
        self._kept, self.leaves, self.found = self._kept[rows], self.leaves[rows], self.found[rows]


def _bits(x: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(x).view(np.uint32).reshape(len(x), -1)
