"""What scores and labels mean to a classifier of one class a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cloakonnx.classifier.task import NO_CLASS, SingleLabel, at_chance, class_scores, labels_hint
from cloakonnx.errors import DataError, InferenceError, ModelError
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import load_bytes
from tests.attacks.helpers import flat
from tests.fixtures.core import mlp

NAN = np.float32("nan")
LOGITS = np.array([[3, 1, 2], [0, 5, 5], [1, NAN, 0], [-1, -3, -2]], np.float32)


def task(classes: int = 3, final: str | None = None) -> SingleLabel:
    return SingleLabel(load_bytes(flat(classes, final=final).SerializeToString()), "scores")


def test_decide() -> None:
    """The first of equal scores wins; a score that is no number decides for nothing."""
    np.testing.assert_array_equal(task().decide(LOGITS), [0, 1, NO_CLASS, 0])
    np.testing.assert_array_equal(task().decide(np.stack([LOGITS, -LOGITS])), [[0, 1, -1, 0], [1, 0, -1, 1]])
    assert task().decide(LOGITS).dtype == np.int64
    assert task().undecided(task().decide(LOGITS)).tolist() == [False, False, True, False]


@pytest.mark.parametrize(("final", "threshold"), [(None, 0.0), ("Sigmoid", 0.5)])
def test_a_single_score(final: str | None, threshold: float) -> None:
    one = task(1, final)
    assert one.threshold == threshold
    scores = np.float32([[threshold], [np.nextafter(np.float32(threshold), np.float32(1))], [-9], [9], [NAN]])
    np.testing.assert_array_equal(one.decide(scores), [0, 1, 0, 1, NO_CLASS])
    np.testing.assert_array_equal(one.right(scores, np.array([0, 1, 1, 0, 1])), [True, True, False, False, False])


def test_a_single_score_of_which_nothing_tells_what_it_means() -> None:
    several = task(1, "Exp")
    assert several.decide(LOGITS).tolist() == [0, 1, -1, 0]  # the threshold is not needed
    with pytest.raises(ModelError, match="gives one score a sample and ends in Exp"):
        several.decide(LOGITS[:, :1])


def test_right_and_fooled() -> None:
    y = np.array([0, 2, 1, 0])
    np.testing.assert_array_equal(task().right(LOGITS, y), [True, False, False, True])
    np.testing.assert_array_equal(task().right(np.stack([LOGITS, -LOGITS]), y), [[1, 0, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(task().fooled(LOGITS, y, targeted=False), [False, True, True, False])
    np.testing.assert_array_equal(task().fooled(LOGITS, y, targeted=True), [True, False, False, True])
    np.testing.assert_array_equal(task().agrees(task().decide(LOGITS), y), task().right(LOGITS, y))


LABELLED = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        arrays(np.float32, (6, classes), elements=st.floats(-9, 9, width=16)),
        arrays(np.int64, 6, elements=st.integers(0, classes - 1)),
    )
)


@given(LABELLED)
def test_margin_and_others(both: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, y = both
    before = logits.copy()
    margin, others = task().margin(logits, y), task().others(logits, y)
    np.testing.assert_array_equal(logits, before)
    for row, label, found, rest in zip(logits, y, margin, others, strict=True):
        without = np.delete(row, label)
        assert found == row[label] - without.max()
        assert sorted([label, *rest]) == list(range(len(row)))
        np.testing.assert_array_equal(row[rest], np.sort(without)[::-1])
    right = task().right(logits, y)
    assert right[margin > 0].all()
    assert not right[margin < 0].any()
    np.testing.assert_array_equal(task().margin(np.stack([logits, -logits]), y)[1], task().margin(-logits, y))


def test_equal_logits_keep_their_order() -> None:
    assert task().others(np.float32([[2, 1, 2, 1]]), np.array([0])).tolist() == [[2, 1, 3]]


def test_strata() -> None:
    y = np.array([4, 0, 4, 2, 0])
    assert [rows.tolist() for rows in task().strata(y)] == [[1, 4], [3], [0, 2]]
    assert task().strata(np.zeros(0, np.int64)) == []


def test_check() -> None:
    model = load_bytes(mlp().SerializeToString())
    one = SingleLabel(model, "logits")
    one.check(np.array([0, 2]), 3)
    one.check(np.zeros(0, np.int64), 3)
    with pytest.raises(DataError, match=r"^label 3 does not fit model, which has 3 classes$"):
        one.check(np.array([0, 3, 7]), 3)
    with pytest.raises(DataError, match=r"^x\.npz: label -1 does not fit the model, which has 3 classes$"):
        one.check(np.array([0, -1]), 3, source="x.npz")


def test_losses() -> None:
    assert all(Loss(name) for name in SingleLabel.losses)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((4, 3), (4, 3)),
        ((4,), (4, 1)),
        ((4, 1), (4, 1)),
        ((4, 3, 1, 1), (4, 3)),
        ((4, 1, 3), (4, 3)),
        ((1, 3), None),
        ((3, 4), None),
        ((4, 3, 2), None),
        ((), None),
    ],
)
def test_class_scores(shape: tuple[int, ...], found: tuple[int, ...] | None) -> None:
    values: Any = np.random.default_rng(0).random(shape)
    if found is None:
        with pytest.raises(InferenceError, match=r"output 'y' has shape .* for 4 samples"):
            class_scores(np.asarray(values), 4, "y")
        return
    scores = class_scores(values, 4, "y")
    assert (scores.shape, scores.dtype) == (found, np.float32)
    np.testing.assert_array_equal(scores.ravel(), values.ravel().astype(np.float32))


def test_chance_takes_samples_to_tell() -> None:
    assert at_chance(2, 20, 10)
    assert not at_chance(3, 20, 10)
    assert not at_chance(0, 19, 10)


def test_ties() -> None:
    """Equal largest scores, not equal smaller ones; NaN is no tie but a sample without a class."""
    task = SingleLabel(load_bytes(mlp().SerializeToString()), "logits")
    nan, inf = np.nan, np.inf
    scores = np.array([[1, 1, 0], [0, 0, 1], [2, 1, 2], [nan, 1, 1], [inf, inf, 0], [-inf, -inf, 0]], np.float32)
    np.testing.assert_array_equal(task.tied(scores), [True, False, True, False, True, False])


@pytest.mark.parametrize(
    ("correct", "shifted", "count", "classes", "said"),
    [
        (0, (50, 0), 50, 6, "labels one lower would be right for 50 of 50 samples: do the labels count from 1"),
        (0, (0, 60), 60, 7, "labels one higher would be right for 60 of 60 samples: does the model have a class in"),
        (2, (300, 1), 1000, 1000, "labels one lower would be right for 300 of 1000"),
        (0, (19, 0), 19, 6, None),  # too few to tell
        (50, (10, 5), 100, 6, None),  # right as labelled
        (10, (25, 15), 100, 6, None),  # chance may do that: 16.7, and 4 standard deviations more are 33
        (40, (60, 0), 100, 20, None),  # not twice as many
    ],
)
def test_shifted_labels(correct: int, shifted: tuple[int, int], count: int, classes: int, said: str | None) -> None:
    found = labels_hint(correct, shifted, count, classes)
    assert (found is None) == (said is None)
    assert said is None or (found or "").startswith(said)
