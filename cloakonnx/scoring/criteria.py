"""The criteria: from sums over pairs to one score a feature; higher means more worth masking.

Each criterion declares what it needs beside the activations: labels, a gradient, a head that is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import OptionError, nearest
from cloakonnx.scoring.sums import Attributed, Sums

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """One criterion.

    Attributes:
        name: What it is called.
        scores: From the sums to (F,) scores.
        clean: Whether it needs the clean activations' own sums.
        classes: Whether it needs sums class by class.
        attributed: What it multiplies with the gradient of z_a - z_t; None where it needs no gradient. t is the label,
            a the class that the adversarial input is taken for: the one of the largest logit but the label's.
        linear: Whether the class scores must be linear in the tap, so that the gradient is the weights W_a - W_t.
        signed: Whether scores can be negative, for features that stand against the attack.
    """

    name: str
    scores: Callable[[Sums], Scores]
    clean: bool = False
    classes: bool = False
    attributed: Attributed | None = None
    linear: bool = False
    signed: bool = False

    @property
    def labels(self) -> bool:
        """Whether it needs the true labels."""
        return self.classes or self.attributed is not None


def deepcloak(sums: Sums) -> Scores:
    """Sum of the absolute differences, over samples and every axis but the feature axis.

    Source: Gao et al., DeepCloak (arXiv 1702.06763), section 2, and the authors' code, which sums without normalising.
    """
    return sums.moments.abs_delta


def relative(sums: Sums) -> Scores:
    """The same over the sum of the absolute clean activations; 0/0 is 0."""
    return _ratio(sums.moments.abs_delta, sums.moments.abs_clean)


def standardised(sums: Sums) -> Scores:
    """The mean absolute difference over the population standard deviation of the clean activations; 0/0 is 0."""
    moments = sums.moments
    if not moments.count:
        return moments.abs_delta
    return _ratio(moments.abs_delta, moments.count * np.sqrt(moments.m2 / moments.count))


def discriminability(sums: Sums) -> Scores:
    """The mean absolute difference over B / W, which tells how well a feature separates the classes; 0/0 is 0.

    B = sum_c n_c (m_c - m)^2 / n is the variance between classes and W = sum_c sum_(v in c) (v - m_c)^2 / n the one
    within them, both of the clean activations v: n values in all, n_c of them of class c (every position of a sample
    counts for its label), means m and m_c. B / W is Fisher's criterion. A feature that moves and tells no classes
    apart (B = 0) ranks above all others, one that moves and separates them without spread (W = 0 < B) scores 0.
    """
    moments, classes = sums.moments, sums.classes
    if not moments.count or classes is None:
        return moments.abs_delta
    between = classes.between(moments.mean)
    within = np.maximum(moments.m2 - between, 0.0)
    # What is left of a difference of equals is rounding.
    between[between <= _ROUNDING * moments.m2] = 0.0
    within[within <= _ROUNDING * moments.m2] = 0.0
    scores = _ratio(moments.abs_delta / moments.count, _ratio(between, within))
    return np.where((within == 0) & (between > 0), 0.0, scores)


def attribution(sums: Sums) -> Scores:
    """The mean over the samples of value times gradient of z_a - z_t, summed over every axis but the feature axis.

    With value d (margin): how far the feature carries a sample from its label to the class that it is taken for.
    With value h_adv (evidence, gradient-x-activation): how much less of that margin there is without the feature,
    exactly where the head is linear, to first order elsewhere.
    """
    if sums.attribution is None or not sums.attribution.samples:
        return np.zeros_like(sums.moments.abs_delta)
    return sums.attribution.total / sums.attribution.samples


_ALL = (
    Criterion("deepcloak", deepcloak),
    Criterion("relative", relative, clean=True),
    Criterion("standardised", standardised, clean=True),
    Criterion("discriminability", discriminability, clean=True, classes=True),
    Criterion("margin", attribution, attributed=Attributed.MOVEMENT, linear=True, signed=True),
    Criterion("evidence", attribution, attributed=Attributed.ACTIVATION, linear=True, signed=True),
    Criterion("gradient-x-activation", attribution, attributed=Attributed.ACTIVATION, signed=True),
)
CRITERIA: dict[str, Criterion] = {each.name: each for each in _ALL}

_ROUNDING = 1e-12


def criterion(name: str) -> Criterion:
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
