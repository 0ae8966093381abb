"""The criteria: from sums over pairs to one score a feature; higher means more worth masking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import OptionError, nearest
from cloakonnx.scoring.accumulator import Moments

Scores = NDArray[np.float64]


def deepcloak(moments: Moments) -> Scores:
    """Sum of the absolute differences, over samples and every axis but the feature axis.

    Source: Gao et al., DeepCloak (arXiv 1702.06763), section 2, and the authors' code, which sums without normalising.
    """
    return moments.abs_delta


def relative(moments: Moments) -> Scores:
    """The same over the sum of the absolute clean activations; 0/0 is 0."""
    return _ratio(moments.abs_delta, moments.abs_clean)


def standardised(moments: Moments) -> Scores:
    """The mean absolute difference over the population standard deviation of the clean activations; 0/0 is 0."""
    if not moments.count:
        return moments.abs_delta
    return _ratio(moments.abs_delta, moments.count * np.sqrt(moments.m2 / moments.count))


CRITERIA: dict[str, Callable[[Moments], Scores]] = {
    "deepcloak": deepcloak,
    "relative": relative,
    "standardised": standardised,
}


def criterion(name: str) -> Callable[[Moments], Scores]:
    """Return the criterion of that name.

    Raises:
        OptionError: there is none.
    """
    if name not in CRITERIA:
        raise OptionError(f"there is no criterion {name!r}; there are {', '.join(CRITERIA)}{nearest(name, CRITERIA)}")
    return CRITERIA[name]


def _ratio(above: Scores, below: Scores) -> Scores:
    """Divide; a feature that is silent on clean inputs but not on adversarial ones ranks above all others."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    ratio[above == 0] = 0.0
    return np.where(np.isinf(ratio), np.finfo(np.float64).max, ratio)
