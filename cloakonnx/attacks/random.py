"""Random numbers that are a function of (seed, attack, restart, sample index), never of batch order.

A counter-based generator: each number is a hash of its own coordinates, so any part of any sample's stream can be had
at any time, for a whole batch at once. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 5).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_TO_UNIT = float(2.0**-53)


@dataclass(frozen=True)
class Stream:
    """Random numbers for some samples of one attack and one restart."""

    key: int
    samples: NDArray[np.int64]

    @classmethod
    def of(cls, seed: int, attack: str, restart: int, samples: NDArray[np.int64]) -> Stream:
        """Return the stream of an attack's restart; ``samples`` are (N,) indices in the whole set of data."""
        digest = hashlib.sha256(f"{seed}/{attack}/{restart}".encode()).digest()
        return cls(int.from_bytes(digest[:8], "little"), samples)

    def take(self, kept: NDArray[np.int64]) -> Stream:
        """Return the stream of some of the samples, by position."""
        return Stream(self.key, self.samples[kept])

    def uniform(self, shape: tuple[int, ...], *, draw: int = 0) -> NDArray[np.float64]:
        """Return (N, *shape) numbers in [0, 1); ``draw`` names which ones, such as the iteration."""
        bits = self._bits(int(np.prod(shape, dtype=np.int64)), draw)
        return ((bits >> np.uint64(11)).astype(np.float64) * _TO_UNIT).reshape(len(self.samples), *shape)

    def normal(self, shape: tuple[int, ...], *, draw: int = 0) -> NDArray[np.float64]:
        """Return (N, *shape) standard normal numbers (Box and Muller 1958)."""
        first, second = np.moveaxis(self.uniform((2, *shape), draw=draw), 1, 0)
        radius = np.sqrt(-2 * np.log1p(-first))
        return np.asarray(radius * np.cos(2 * np.pi * second))

    def signs(self, shape: tuple[int, ...], *, draw: int = 0) -> NDArray[np.float32]:
        """Return (N, *shape) numbers that are -1 or 1."""
        return np.where(self.uniform(shape, draw=draw) < 0.5, np.float32(-1), np.float32(1))

    def integers(self, high: int, *, draw: int = 0) -> NDArray[np.int64]:
        """Return (N,) whole numbers from 0 to ``high`` - 1."""
        return np.asarray(self.uniform((), draw=draw) * high).astype(np.int64)

    def _bits(self, count: int, draw: int) -> NDArray[np.uint64]:
        with np.errstate(over="ignore"):
            row = _mixed(np.uint64(self.key) + _GOLDEN * (self.samples.astype(np.uint64) + np.uint64(1)))
            row = _mixed(row + _GOLDEN * np.uint64(draw + 1))
            column = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
            return _mixed(row[:, None] + column)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in zip(_SHIFTS, _MIX, strict=False):
        z = (z ^ (z >> shift)) * factor
    return z ^ (z >> _SHIFTS[2])
