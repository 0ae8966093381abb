"""The batch: what sources give."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import DataError


class Readable(Protocol):
    """Pixels that can be read again, in another process as well."""

    def read(self) -> NDArray[np.float32]:
        """Return them."""


Origins: TypeAlias = tuple[tuple[str, Readable], ...]
"""Names of a batch's arrays of pixels, and where these come from, as far as they can be read again."""


class Batch(NamedTuple):
    """Some consecutive samples.

    Attributes:
        x: (B, ...) the samples.
        y: (B,) int64 labels, or None.
        start: Index of the first one.
        origins: Where x comes from.
    """

    x: NDArray[Any]
    y: NDArray[np.int64] | None
    start: int
    origins: Origins = ()

    @property
    def size(self) -> int:
        """How many samples there are."""
        return len(self.x)

    def digest(self) -> str:
        """Return the sha256 of samples and labels, in hex digits."""
        return digest(self.x, self.y)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(B,) indices of the samples in the whole data."""
        return np.arange(self.start, self.start + len(self.x))

    def labelled(self, message: str) -> LabelledBatch:
        """Return the samples with their labels; raises DataError with this message where there are none."""
        if self.y is None:
            raise DataError(message, parameter="labels")
        return LabelledBatch(self.x, self.y, self.indices, self.origins)


class LabelledBatch(NamedTuple):
    """Some samples with labels.

    Attributes:
        x: (B, ...) float32 pixels in the model's layout.
        y: (B,) int64 labels.
        indices: (B,) int64 indices of the samples in the whole data.
        origins: Where x comes from.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    indices: NDArray[np.int64]
    origins: Origins = ()

    @property
    def size(self) -> int:
        """How many samples there are."""
        return len(self.x)

    def digest(self) -> str:
        """Return the sha256 of samples and labels, in hex digits."""
        return digest(self.x, self.y)

    def take(self, rows: NDArray[np.int64]) -> LabelledBatch:
        """Return some of the samples."""
        return LabelledBatch(self.x[rows], self.y[rows], self.indices[rows])


class PairBatch(NamedTuple):
    """Some consecutive samples and their adversarial versions.

    Attributes:
        clean: (B, ...) float32 pixels.
        adversarial: The same shape.
        y: (B,) int64 labels, or None.
        start: Index of the first one.
        tied: How many clean samples have several classes of the largest score, where the versions were made here.
        climbed: For how many the attack asked for gradients.
        still: For how many of these every gradient was 0.
        origins: Where the samples and their versions come from, as far as they can be read again.
    """

    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    y: NDArray[np.int64] | None
    start: int
    tied: int = 0
    climbed: int = 0
    still: int = 0
    origins: Origins = ()

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.clean)

    def digest(self) -> str:
        """Return the sha256 of both kinds of samples and the labels, in hex digits."""
        return digest(self.clean, self.adversarial, self.y)


def digest(*arrays: NDArray[Any] | None) -> str:
    """Return the sha256 of the bytes of arrays, one after the other, in hex digits; None has none."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays if array is not None)).hexdigest()


def renamed(origins: Origins, old: str, new: str) -> Origins:
    """Return where one array comes from, under another name."""
    return tuple((new, each) for name, each in origins if name == old)
