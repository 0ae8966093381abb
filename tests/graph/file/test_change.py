"""How much a mask changes, and which do most."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cloakonnx.graph.masks.mask import KERNEL, Mask, most_changed


def test_the_change_is_the_root_mean_square_of_the_distance_from_1() -> None:
    assert Mask("a", np.array([1, 1, 1], np.float32)).change == 0
    assert Mask("a", np.array([0, 1, 4], np.float32)).change == pytest.approx(math.sqrt((1 + 0 + 9) / 3))
    assert Mask("w", np.full((2, 3, 1, 1), 1.5, np.float32), granularity=KERNEL).change == pytest.approx(0.5)


def test_those_that_change_most_come_first_and_those_that_change_nothing_not_at_all() -> None:
    masks = [
        Mask(name, np.array([1, value], np.float32)) for name, value in (("a", 1.2), ("b", 0), ("c", 1), ("d", 1.5))
    ]
    assert [mask.tap for mask in most_changed(masks, 5)] == ["b", "d", "a"]
    assert [mask.tap for mask in most_changed(masks, 2)] == ["b", "d"]
