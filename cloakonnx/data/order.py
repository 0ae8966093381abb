"""Whether adversarial versions are in the order of the clean samples that they are paired with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.samples import FittedPairs

_LOOKED_AT = 64
_FEWEST = 8
_NEARER = 0.8
"""Of its squared distance to its own sample: a version is nearer to another one, not as near."""
_SHARE = 0.25
"""Of the versions that must be nearer to another sample; an attack moves each far less than samples are apart."""


def order_doubt(pairs: FittedPairs) -> str | None:
    """Say so where many of the first versions are nearer to another clean sample than to their own.

    Raises:
        DataError: the pairs do not match.
    """
    batch = next(pairs.batches(_LOOKED_AT), None)
    if batch is None or batch.size < _FEWEST:
        return None
    found = strays(batch.clean, batch.adversarial)
    if found <= _SHARE * batch.size:
        return None
    largest = float(np.abs(batch.adversarial - batch.clean).max())
    return (
        f"{found} of the first {batch.size} samples of {pairs.adversarial.source.name} are nearer to another sample of "
        f"{pairs.clean.source.name} than to their own (largest difference {largest:.4g}): are they in the same order?"
    )


def strays(clean: NDArray[np.float32], adversarial: NDArray[np.float32]) -> int:
    """Return how many versions (N, ...) are nearer to another clean sample than to their own."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (adversarial, clean))
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    own = squares.diagonal().copy()
    np.fill_diagonal(squares, np.inf)
    return int((squares.min(axis=1) < _NEARER * own - 1e-9).sum())
