"""Passes over samples that a function yields: whether a later one gives what the first gave."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import DataError

Labelled: TypeAlias = tuple[NDArray[Any], NDArray[np.int64] | None]
"""Samples, and their labels where there are any."""

_STEADY = (
    "make every call return a new iterator over the same samples in the same order (no shuffling, no random "
    "augmentation, or both with a fixed seed), or save the samples as .npz"
)


class Passes:
    """What earlier passes gave: a digest of each part, as far as they went.

    Attributes:
        begun: A pass of which the first part was looked at, and which the next pass takes over.
    """

    def __init__(self) -> None:
        self.begun: Iterator[Labelled] | None = None
        self._digests: list[bytes] = []
        self._count = 0

    def followed(self, parts: Iterator[Labelled], name: str) -> Iterator[Labelled]:
        """Yield the parts of a pass, each compared with that of an earlier pass.

        Raises:
            DataError: a part is another one, or parts are missing.
        """
        start = number = 0
        for number, part in enumerate(parts, 1):
            own = _digest(part)
            if number > len(self._digests):
                self._digests.append(own)
                self._count = start + len(part[0])
            elif own != self._digests[number - 1]:
                raise DataError(
                    f"{name} yields other samples at a later pass than at the first one, from sample {start} on; "
                    f"{_STEADY}"
                )
            start += len(part[0])
            yield part
        if number < len(self._digests):
            raise DataError(
                f"{name} is used up: it yields {start or 'no'} samples at a later pass, and {self._count} or more at "
                f"the first one; {_STEADY}"
            )


def _digest(part: Labelled) -> bytes:
    x, y = part
    found = hashlib.blake2b(digest_size=12)
    for array in (x, y):
        if array is not None:
            found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return found.digest()
