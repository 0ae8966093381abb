"""Intervals and tests against SciPy, published tables and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cloakonnx.statistics import Interval, Paired, mcnemar_exact, newcombe_paired, wilson

Cells = tuple[int, int, int, int]

TABLE_III: dict[Cells, tuple[float, float]] = {
    (36, 12, 2, 0): (0.0569, 0.3404),
    (20, 12, 2, 16): (0.0562, 0.3292),
    (18, 12, 2, 18): (0.0562, 0.3290),
    (36, 14, 0, 0): (0.1528, 0.4167),
    (35, 14, 0, 1): (0.1461, 0.4175),
    (18, 14, 0, 18): (0.1441, 0.3963),
    (2, 97, 1, 0): (0.8721, 0.9854),
    (1, 97, 1, 1): (0.8736, 0.9850),
    (0, 29, 1, 0): (0.6666, 0.9882),
    (2, 98, 0, 0): (0.9178, 0.9945),
    (1, 98, 0, 1): (0.9171, 0.9916),
    (0, 30, 0, 0): (0.8395, 1.0),
    (54, 0, 0, 0): (-0.0664, 0.0664),
    (53, 0, 0, 1): (-0.0729, 0.0729),
    (30, 0, 0, 24): (-0.0358, 0.0358),
    (29, 0, 0, 25): (-0.0354, 0.0354),
    (28, 0, 0, 26): (-0.0352, 0.0352),
    (27, 0, 0, 27): (-0.0351, 0.0351),
}
"""Newcombe 1998, Statistics in Medicine 17:2635-2650, table III, the rows of method 10."""


@pytest.mark.parametrize("count", [1, 2, 7, 100, 599, 10_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(count: int, confidence: float) -> None:
    for successes in sorted({0, 1, count // 3, count // 2, count - 1, count}):
        found = wilson(successes, count, confidence=confidence)
        expected = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
        assert found.low == pytest.approx(expected.low, abs=1e-12)
        assert found.high == pytest.approx(expected.high, abs=1e-12)
        assert successes / count in found


def test_wilson_ends_at_0_and_1() -> None:
    assert wilson(0, 17).low == 0.0
    assert wilson(17, 17).high == 1.0


@pytest.mark.parametrize(("successes", "count"), [(-1, 3), (4, 3), (0, 0)])
def test_wilson_of_no_share(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(successes, count)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs() -> None:
    for first in range(13):
        for second in range(13):
            found = mcnemar_exact(Paired(5, first, second, 3))
            expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
            assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("first", "second"), [(400, 620), (2000, 2150), (0, 1500), (3000, 3000)])
def test_mcnemar_of_many_pairs(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue
    assert mcnemar_exact(Paired(0, first, second, 0)) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_mcnemar_published() -> None:
    """Bentur et al. 2009 in Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91: 0.0703."""
    assert mcnemar_exact(Paired(1, 1, 7, 12)) == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize("cells", TABLE_III)
def test_newcombe_published(cells: Cells) -> None:
    found, expected = newcombe_paired(Paired(*cells)), TABLE_III[cells]
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-4)  # the table takes z = 1.96


def test_newcombe_turns_with_the_order() -> None:
    rng = np.random.default_rng(0)
    for cells in rng.integers(0, 40, (200, 4)):
        both, first, second, neither = map(int, cells + np.array([1, 0, 0, 0]))
        one = newcombe_paired(Paired(both, first, second, neither))
        other = newcombe_paired(Paired(both, second, first, neither))
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert -1 <= one.low < one.high <= 1
        assert (first - second) / (both + first + second + neither) in one


@pytest.mark.parametrize("shares", [(0.4, 0.1, 0.05, 0.45), (0.05, 0.08, 0.02, 0.85), (0.8, 0.02, 0.02, 0.16)])
@pytest.mark.parametrize("count", [50, 200])
def test_newcombe_covers(shares: tuple[float, ...], count: int) -> None:
    """3,000 simulated tables: the standard error of the coverage is 0.4 points; few discordant pairs cover more."""
    truth = shares[1] - shares[2]
    tables = np.random.default_rng(count).multinomial(count, shares, 3000)
    covered = [truth in newcombe_paired(Paired(*map(int, cells))) for cells in tables]
    assert 0.935 <= np.mean(covered) <= 0.999


@pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
def test_wilson_covers(share: float) -> None:
    draws = np.random.default_rng(0).binomial(300, share, 3000)
    assert 0.925 <= np.mean([share in wilson(int(k), 300) for k in draws]) <= 0.985


def test_pairs_are_counted() -> None:
    first, second = np.array([1, 1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 0, 1], bool)
    pairs = Paired.of(first, second)
    assert pairs == Paired(both=2, only_first=2, only_second=1, neither=1)
    assert pairs.count == 6
    assert pairs.difference == pytest.approx(first.mean() - second.mean())


@pytest.mark.parametrize("cells", [(0, 0, 0, 0), (1, -1, 0, 0)])
def test_no_pairs(cells: Cells) -> None:
    with pytest.raises(ValueError, match="counts no samples"):
        Paired(*cells)


def test_interval_holds_its_ends() -> None:
    assert 0.25 in Interval(0.25, 0.5)
    assert 0.5 in Interval(0.25, 0.5)
    assert 0.51 not in Interval(0.25, 0.5)
