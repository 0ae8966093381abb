"""Exact cycles of a walk whose steps depend on the input alone (PGD with cycle detection, arXiv 2503.19347)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_KEPT = 1024
"""Inputs of which the digests are kept, 16 bytes each; a longer cycle is not found."""


class Cycles:
    """Compares each input of a walk with all before it, by 128-bit digests of their bits.

    A sample that returns to an earlier input repeats its cycle for ever. It leaves once it is where the last step would
    end, so the result is that of all steps.

    Args:
        x: (N, ...) where the walk starts.
        steps: How many steps it has.

    Attributes:
        leaves: (N,) the step after which each sample leaves: the last one until its cycle is found.
        found: (N,) whose cycle is found.
    """

    def __init__(self, x: NDArray[np.float32], steps: int) -> None:
        self._steps, self._kept = steps, np.zeros((len(x), min(steps, _KEPT), 2), np.uint64)
        self._kept[:, 0] = _digests(x)
        self.leaves = np.full(len(x), steps)
        self.found = np.zeros(len(x), np.bool_)

    def look(self, x: NDArray[np.float32], step: int) -> NDArray[np.bool_]:
        """Look at the inputs after a step; return (N,) which samples may leave now."""
        digests, slots = _digests(x), self._kept.shape[1]
        same = (self._kept[:, : min(step, slots)] == digests[:, None]).all(axis=2)
        again = ~self.found & same.any(axis=1)
        period = (step - same[again].argmax(axis=1) - 1) % slots + 1
        self.leaves[again] = step + (self._steps - step) % period
        self.found |= again
        self._kept[:, step % slots] = digests
        return np.asarray(self.found & (self.leaves == step))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some of the samples."""
        self._kept, self.leaves, self.found = self._kept[rows], self.leaves[rows], self.found[rows]


def _digests(x: NDArray[np.float32]) -> NDArray[np.uint64]:
    made = [hashlib.blake2b(np.ascontiguousarray(sample).data, digest_size=16).digest() for sample in x]
    return np.frombuffer(b"".join(made), np.uint64).reshape(len(x), 2)
