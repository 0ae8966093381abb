"""Which classes targeted attacks aim at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TARGETS = 9
"""How many classes a targeted attack tries, the most likely first (Croce & Hein 2020, arXiv 2003.01690)."""


def others_by_logit(logits: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (N, classes - 1) the classes but the label, the most likely first."""
    without = logits.copy()
    without[np.arange(len(y)), y] = -np.inf
    return np.argsort(-without, axis=1, kind="stable")[:, :-1]
