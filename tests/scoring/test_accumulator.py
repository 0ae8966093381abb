"""Moments merge: two halves give what the whole gives, to float64 rounding."""

from dataclasses import replace
from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.graph.masks.taps import Tap
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.scoring.criteria import CRITERIA, criterion
from cloakonnx.scoring.sums import Moments, Reducer, Sums

FEATURES = 3
Values = NDArray[np.float64]
VALUES = st.floats(-1e6, 1e6, allow_subnormal=False)


def moments(clean: Values, adversarial: Values) -> Moments:
    """Return the moments of (values, features) in one go."""
    if not len(clean):
        return Moments.zero(FEATURES)
    mean = clean.mean(axis=0)
    return Moments(
        len(clean),
        np.abs(adversarial - clean).sum(axis=0),
        np.abs(clean).sum(axis=0),
        mean,
        ((clean - mean) ** 2).sum(axis=0),
    )


def assert_close(found: Moments, wanted: Moments, size: float) -> None:
    """Compare within what rounding in float64 can do to values up to ``size``."""
    assert found.count == wanted.count
    slack = 1e-13 * max(found.count, 1)
    least = float(np.finfo(np.float64).tiny)  # below it numbers have fewer digits
    np.testing.assert_allclose(found.abs_delta, wanted.abs_delta, rtol=1e-12, atol=slack * size + least)
    np.testing.assert_allclose(found.abs_clean, wanted.abs_clean, rtol=1e-12, atol=slack * size + least)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-12, atol=slack * size + least)
    np.testing.assert_allclose(found.m2, wanted.m2, rtol=1e-12, atol=slack * size * size + least)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Values, Values]:
    shape = (draw(st.integers(1, 12)), FEATURES)
    return draw(arrays(np.float64, shape, elements=VALUES)), draw(arrays(np.float64, shape, elements=VALUES))


@settings(deadline=None, max_examples=100)
@given(pairs(), st.data())
def test_two_halves_are_the_whole(both: tuple[Values, Values], data: st.DataObject) -> None:
    clean, adversarial = both
    cut = data.draw(st.integers(0, len(clean)))
    first, second = moments(clean[:cut], adversarial[:cut]), moments(clean[cut:], adversarial[cut:])
    size = float(np.abs(clean).max() + np.abs(adversarial).max())
    whole = moments(clean, adversarial)
    assert_close(first.merge(second), whole, size)
    assert_close(second.merge(first), whole, size)


@settings(deadline=None, max_examples=50)
@given(pairs())
def test_one_by_one_is_the_whole(both: tuple[Values, Values]) -> None:
    clean, adversarial = both
    single = [moments(clean[i : i + 1], adversarial[i : i + 1]) for i in range(len(clean))]
    size = float(np.abs(clean).max() + np.abs(adversarial).max())
    assert_close(reduce(Moments.merge, single, Moments.zero(FEATURES)), moments(clean, adversarial), size)


def test_the_graph_gives_the_same_moments() -> None:
    rng = np.random.default_rng(0)
    tap = Tap("tap", int(TensorProto.FLOAT), ("N", 5, FEATURES), 2, FEATURES, 0, "Relu", ())
    clean, adversarial = (rng.standard_normal((4, 5, FEATURES)).astype(np.float32) for _ in range(2))
    found = Reducer(tap, choose_provider("cpu"), full=True)(clean, adversarial, start=0)
    flat = [x.astype(np.float64).reshape(-1, FEATURES) for x in (clean, adversarial)]
    wanted = moments(flat[0], flat[1])
    differences = np.abs(adversarial - clean).astype(np.float64)  # taken in float32, summed in double
    assert_close(found, replace(wanted, abs_delta=differences.reshape(-1, FEATURES).sum(axis=0)), 10.0)
    np.testing.assert_allclose(found.abs_delta, wanted.abs_delta, rtol=1e-7)


def test_criteria_of_nothing_are_zero() -> None:
    for name in CRITERIA:
        np.testing.assert_array_equal(criterion(name).scores(Sums(Moments.zero(FEATURES))), np.zeros(FEATURES))
