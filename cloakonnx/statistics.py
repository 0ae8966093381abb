"""Intervals and tests for shares of samples, one alone or two on the same samples; all two-sided.

Scores, not Wald: near 0 and 1, where robust accuracies live, the usual plus or minus 1.96 standard errors is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cloakonnx.entries import Ends, Positive, Probability, Share, Whole, derived

CONFIDENCE = 0.95
_MOST_SAMPLES = 10_000_000
"""Exact tests go through all numbers up to that of the samples, so a forged one may not be endless."""
_MOST_EXACT = 50_000
"""Discordant pairs up to which McNemar's test is worked out in integers; beyond, in logarithms."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Whether a value lies in it, its ends included."""
        return self.low <= value <= self.high


def wilson(successes: int, count: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval for a share, without continuity correction.

    Wilson 1927, Journal of the American Statistical Association 22:209-212.

    Raises:
        ValueError: counts that make no share.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"{successes} of {count} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, square = successes / count, z * z / count
    middle = share + square / 2
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    # The ends are 0 and 1 exactly where no sample, or every one, is a success; rounding would leave 1e-19.
    low = 0.0 if successes == 0 else (middle - half) / (1 + square)
    high = 1.0 if successes == count else (middle + half) / (1 + square)
    return Interval(low, high)


def exact(successes: int, count: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact interval for a share: its ends are what binomial tests just do not reject.

    Each end errs in at most (1 - confidence) / 2 of all cases, whatever the share. Clopper and Pearson 1934, Biometrika
    26:404-413.

    Raises:
        ValueError: counts that make no share.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"{successes} of {count} is no share")
    level = (1 - confidence) / 2
    low = 0.0 if successes == 0 else 1 - _largest_share(count - successes, count, level)
    high = 1.0 if successes == count else _largest_share(successes, count, level)
    return Interval(low, high)


def _largest_share(successes: int, count: int, level: float) -> float:
    """Return the share at which so few successes, or fewer, have a chance of ``level``."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    k = np.arange(successes + 1)
    choices = factorials[count] - factorials[k] - factorials[count - k]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = np.exp(choices + k * math.log(middle) + (count - k) * math.log1p(-middle)).sum()
        low, high = (middle, high) if tail > level else (low, middle)
    return low


def median_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Return the sign test's interval for the median of what the values are drawn from, whatever its shape.

    Its ends are values, each beyond the median in at most (1 - confidence) / 2 of all cases; infinite where there are
    too few values for that.
    """
    ordered, count = sorted(values), len(values)
    level, tail, skipped = (1 - confidence) / 2, 0.0, -1
    while skipped + 1 < count and tail + math.comb(count, skipped + 1) / 2**count <= level:
        skipped += 1
        tail += math.comb(count, skipped) / 2**count
    if skipped < 0:
        return Interval(-math.inf, math.inf)
    return Interval(ordered[skipped], ordered[count - 1 - skipped])


def _check_size(count: int) -> None:
    if count > _MOST_SAMPLES:
        raise ValueError(f"{count} samples are more than {_MOST_SAMPLES:,}")


@dataclass(frozen=True)
class Paired:
    """What two classifiers made of the same samples.

    Attributes:
        both: The number of samples that both get right.
        only_first: The number that only the first gets right.
        only_second: The number that only the second gets right.
        neither: The number that neither gets right.

    Raises:
        ValueError: no sample, or a negative count.
    """

    both: Whole
    only_first: Whole
    only_second: Whole
    neither: Whole

    def __post_init__(self) -> None:
        """Check the counts."""
        if min(self.both, self.only_first, self.only_second, self.neither) < 0 or self.count < 1:
            raise ValueError(f"{self} counts no samples")
        for each in (self.both, self.only_first, self.only_second, self.neither):
            _check_size(each)

    @classmethod
    def of(cls, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
        """Count two outcomes (N,) of the same samples."""
        return cls(
            both=int((first & second).sum()),
            only_first=int((first & ~second).sum()),
            only_second=int((~first & second).sum()),
            neither=int((~first & ~second).sum()),
        )

    @property
    def count(self) -> int:
        """How many samples."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    @derived("difference")
    def difference(self) -> Share:
        """The first's share of successes less the second's."""
        return (self.only_first - self.only_second) / self.count

    @property
    @derived("interval")
    def ends(self) -> Ends:
        """Low and high end of Newcombe's 95% interval of the difference."""
        interval = newcombe_paired(self)
        return interval.low, interval.high

    @property
    @derived("mcnemar_p")
    def p(self) -> Probability:
        """P-value of McNemar's exact test."""
        return mcnemar_exact(self)


def mcnemar_exact(pairs: Paired) -> float:
    """Return the p-value of McNemar's exact test that both succeed equally often.

    Twice the binomial tail (half to half) of the samples that only one of them succeeds on, at most 1. McNemar 1947,
    Psychometrika 12:153-157. Worked out in integers; beyond 50,000 discordant pairs in logarithms, to 1e-9 or better.
    """
    fewer, discordant = min(pairs.only_first, pairs.only_second), pairs.only_first + pairs.only_second
    if discordant > _MOST_EXACT:
        return min(1.0, 2 * _half_tail(fewer, discordant))
    tail = term = 1
    for k in range(fewer):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return float(min(1.0, 2 * tail / 2**discordant))


def _half_tail(successes: int, count: int) -> float:
    """Return the chance of so few successes, or fewer, in ``count`` fair throws, without terms below 1e-30 of it."""
    most = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    tail = term = 1.0
    for k in range(successes, 0, -1):
        term *= k / (count - k + 1)
        tail += term
        if term < 1e-30 * tail:
            break
    return tail * math.exp(most - count * math.log(2))


def newcombe_paired(pairs: Paired, *, confidence: float = CONFIDENCE) -> Interval:
    """Return Newcombe's interval for the difference of two shares on the same samples, his method 10.

    Wilson's intervals for both shares, squared and added, with a correlation that is corrected for continuity.
    Newcombe 1998, Statistics in Medicine 17:2635-2650.
    """
    n = pairs.count
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    p1, p2 = first / n, second / n
    w1, w2 = wilson(first, n, confidence=confidence), wilson(second, n, confidence=confidence)
    phi = _correlation(pairs, first, second)
    down = _root(p1 - w1.low, w2.high - p2, phi)
    up = _root(w1.high - p1, p2 - w2.low, phi)
    return Interval(max(pairs.difference - down, -1.0), min(pairs.difference + up, 1.0))


def _correlation(pairs: Paired, first: int, second: int) -> float:
    n = pairs.count
    margins = first * (n - first) * second * (n - second)
    if not margins:
        return 0.0
    product = pairs.both * pairs.neither - pairs.only_first * pairs.only_second
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(margins)


def _root(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


@dataclass(frozen=True)
class Accuracy:
    """The number of correctly classified samples.

    Attributes:
        correct: The number of samples that are classified correctly.
        count: The number of samples.

    Raises:
        ValueError: more samples are correct than there are, or there are more than 10,000,000.
    """

    correct: Whole
    count: Positive

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.correct > self.count:
            raise ValueError(f"{self.correct} of {self.count} samples are correct")
        _check_size(self.count)

    @property
    @derived("share")
    def value(self) -> Probability:
        """The share of samples that are classified correctly."""
        return self.correct / self.count

    @property
    def interval(self) -> Interval:
        """Wilson's 95% interval of the share."""
        return wilson(self.correct, self.count)

    @property
    @derived("interval")
    def ends(self) -> tuple[Probability, Probability]:
        """Low and high end of Wilson's 95% interval of the share."""
        return self.interval.low, self.interval.high

    def __str__(self) -> str:
        """Return the share and the counts behind it."""
        return f"{self.value:.2%} ({self.correct} of {self.count})"


def share_cell(accuracy: Accuracy) -> str:
    """Return a share with its interval, in points."""
    return f"{accuracy.value:.1%} {_interval(accuracy.interval)}"


def _interval(interval: Interval) -> str:
    return f"[{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def difference_cells(pairs: Paired) -> tuple[str, str]:
    """Return a paired difference with its interval, in points, and its p-value."""
    p = mcnemar_exact(pairs)
    return (
        f"{pairs.difference * 100:+.1f} {_interval(newcombe_paired(pairs))}",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    )
