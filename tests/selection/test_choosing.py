"""Which epoch's masks are taken, from counts that are given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cloakonnx.classifier.masked import Weights
from cloakonnx.selection.learn.choosing import SelectPart
from cloakonnx.selection.learn.recipe import Recipe

COUNT = 200


class Scripted(SelectPart):
    """Masks are told by their weight; a blend t of the mask 1 + e is 1 + t e.

    Args:
        budget: Of clean accuracy.
        counts: Clean and robust samples at each weight.
    """

    def __init__(self, budget: float, counts: Mapping[float, tuple[int, int]]) -> None:
        self._recipe = Recipe(eps=0.1, budget=budget, bounds=(0.0, 20.0))
        self._counts = counts
        self._attacked = np.arange(COUNT)
        self.clean_before, self.robust_before = 180, 2

    @property
    def count(self) -> int:
        return COUNT

    def clean(self, masks: Weights) -> int:
        return self._counts[round(float(masks["t"][0]), 3)][0]

    def robust(self, masks: Weights) -> int:
        return self._counts[round(float(masks["t"][0]), 3)][1]


def learned(*weights: float) -> dict[int, Weights]:
    return {epoch: {"t": np.array([weight], np.float32)} for epoch, weight in enumerate(weights, 1)}


@pytest.mark.parametrize(
    ("robust", "epoch"),
    [
        ((40, 70, 66, 69), 4),  # within a standard error of 70, which is 6.7
        ((40, 70, 66, 63), 3),
        ((40, 70, 63, 63), 2),
        ((70, 10, 10, 10), 1),
        ((10, 20, 30, 40), 4),
    ],
)
def test_the_latest_within_a_standard_error_of_the_best(robust: tuple[int, ...], epoch: int) -> None:
    part = Scripted(0.1, {weight: (175, count) for weight, count in zip((2.0, 3.0, 4.0, 5.0), robust, strict=True)})
    found = part.choose(learned(2, 3, 4, 5))
    assert (found.epoch, found.blend, found.robust) == (epoch, 1.0, robust[epoch - 1])
    assert found.within_budget


def test_what_is_over_the_budget_is_drawn_back_until_it_is_not() -> None:
    counts = {1 + t / 10: (182 - 2 * t, 5 * t) for t in range(1, 11)}  # 2 images for each tenth of the way
    counts |= {1.725: (167, 36), 1.75: (168, 38), 1.775: (166, 39)}
    part = Scripted(0.06, {round(weight, 3): both for weight, both in counts.items()})
    found = part.choose(learned(2))
    assert part.least == 168
    assert (found.blend, found.clean, found.robust) == (0.75, 168, 38)


def test_epochs_that_were_not_tried_are_left_out() -> None:
    counts = {2.0: (175, 40), 3.0: (175, 70)}
    masks = {4: learned(2)[1], 8: learned(3)[1]}
    found = Scripted(0.1, counts).choose(masks)
    assert (found.epoch, found.robust) == (8, 70)


def test_epochs_that_gain_nothing_do_not_count() -> None:
    part = Scripted(0.1, {2.0: (175, 4), 3.0: (180, 2)})
    assert part.choose(learned(2, 3)).epoch == 1


def test_the_most_robust_where_none_is_within_the_budget() -> None:
    counts = {round(1 + t * e / 10, 3): (100, 30 + e) for t in range(1, 11) for e in (1, 3)}
    found = Scripted(0.01, counts).choose(learned(4, 2))
    assert (found.epoch, found.within_budget) == (1, False)
