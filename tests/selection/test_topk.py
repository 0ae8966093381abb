"""Which features go."""

from typing import Any

import numpy as np
import pytest

from cloakonnx.errors import OptionError
from cloakonnx.scoring.analysis import TapScores
from cloakonnx.selection.greedy.within import within_budget
from cloakonnx.selection.topk import DEFAULT_AMOUNT, Amount, Count, Share, Threshold, ranking, select


def scored(*scores: float) -> TapScores:
    return TapScores("tap", 1, "float32", "deepcloak", np.array(scores, np.float64), 10)


def rising(count: int) -> TapScores:
    return scored(*(float(i + 1) for i in range(count)))


@pytest.mark.parametrize(
    ("features", "share", "removed"),
    [
        (64, 0.05, 3),  # 3.2
        (64, 0.01, 1),  # 0.64: at least one
        (100, 0.29, 29),  # 28.999999999999996 in binary
        (100, 0.07, 7),
        (10, 0.99, 9),
        (3, 0.99, 2),
        (1000, 0.001, 1),
        (2, 0.05, 1),
    ],
)
def test_a_share_is_rounded_down(features: int, share: float, removed: int) -> None:
    mask = select(rising(features), Share(share))
    assert mask.removed == list(range(features - removed, features))


def test_five_percent_by_default() -> None:
    assert Share(0.05) == DEFAULT_AMOUNT
    assert len(select(rising(64)).removed) == 3


@pytest.mark.parametrize("count", [1, 2, 63])
def test_a_count(count: int) -> None:
    assert len(select(rising(64), Count(count)).removed) == count


def test_a_threshold_takes_what_reaches_it() -> None:
    scores = scored(0.5, 2, 1, 3, 1)
    assert select(scores, Threshold(1)).removed == [1, 2, 3, 4]
    assert select(scores, Threshold(2)).removed == [1, 3]
    assert select(scores, Threshold(3)).removed == [3]


def test_ties_go_by_index() -> None:
    assert ranking(scored(1, 3, 1, 3, 1)) == [1, 3, 0, 2, 4]
    assert select(scored(*[1.0] * 10), Count(4)).removed == [0, 1, 2, 3]


def test_dead_features_go_last() -> None:
    scores = scored(0, 1e-300, 0, 5, 0)
    assert ranking(scores) == [3, 1, 0, 2, 4]
    assert scores.dead == [0, 2, 4]
    assert select(scores, Count(2)).removed == [1, 3]
    assert select(scores, Count(3)).removed == [0, 1, 3]


def test_the_mask_keeps_with_one_and_removes_with_zero() -> None:
    mask = select(rising(4), Count(1))
    assert (mask.tap, mask.feature_axis) == ("tap", 1)
    assert mask.weights.dtype == np.float32
    assert mask.weights.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (Share(0), "amount 0% must be above 0%"),
        (Share(1), "amount 100% must be above 0% and below 100%"),
        (Share(1.5), "amount 150%"),
        (Share(-0.1), "amount -10%"),
        (Count(0), "at least 1"),
        (Count(-3), "at least 1"),
        (Count(5), "all 5 features of 'tap'"),
        (Count(6), "all 5 features of 'tap'"),
        (Threshold(0), "threshold 0 must be above 0"),
        (Threshold(-1), "threshold -1 must be above 0"),
        (Threshold(1), "all 5 features of 'tap'"),
        (Threshold(5.5), "no feature of 'tap' scores 5.5 or more; the highest score is 5"),
    ],
)
def test_none_and_all_are_refused(amount: Amount, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        select(rising(5), amount)
    assert said in str(caught.value)


def test_a_single_feature_is_never_removed() -> None:
    with pytest.raises(OptionError, match="has one feature, and without it nothing is left"):
        select(rising(1))
    nothing: Any = None  # neither model nor samples are looked at
    with pytest.raises(OptionError, match="has one feature, and without it nothing is left"):
        within_budget(nothing, rising(1), nothing, budget=0.1)
