"""Steps and projections against numpy: they stay inside ball and bounds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloakonnx.attacks.arithmetic import Arithmetic
from cloakonnx.attacks.ball import Norm, ball
from cloakonnx.attacks.random import Stream
from cloakonnx.runtime.session import Value, to_numpy

from .helpers import CPU

Array = NDArray[np.float32]
FEW = settings(max_examples=60, deadline=None, derandomize=True)
NORMS: list[Norm] = ["linf", "l2"]


@cache
def arithmetic(rank: int, norm: Norm, bounds: tuple[float, float]) -> Arithmetic:
    return Arithmetic(rank, norm=norm, bounds=bounds, provider=CPU)


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    """A batch in its bounds, a point somewhere, a gradient of any size."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    shape = draw(st.sampled_from([(1, 1), (3, 5), (2, 3, 4, 4), (4, 1, 8)]))
    low, high = draw(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]))
    origin = rng.uniform(low, high, shape).astype(np.float32)
    origin[rng.random(shape) < 0.2] = draw(st.sampled_from([low, high]))
    eps = draw(st.sampled_from([0.0, 1 / 255, 0.1, 1.0])) * (high - low)
    gradient = rng.normal(size=shape) * 10.0 ** draw(st.integers(-30, 5))
    gradient[rng.random(shape) < 0.1] = 0
    return {
        "norm": draw(st.sampled_from(NORMS)),
        "bounds": (low, high),
        "origin": origin,
        "x": (origin + rng.uniform(-2, 2, shape) * (high - low)).astype(np.float32),
        "gradient": gradient.astype(np.float32),
        "size": rng.uniform(0, 2 * eps + 1e-3, len(origin)).astype(np.float32),
        "eps": eps,
    }


def lengths(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 1, ...) Euclidean lengths."""
    return ball("l2", 0).measure(x).reshape(-1, *(1,) * (x.ndim - 1))


def projected(x: NDArray[np.floating], case: dict[str, Any]) -> NDArray[np.float64]:
    """The nearest point of the ball (in float64), then of the bounds."""
    origin, eps = case["origin"].astype(np.float64), case["eps"]
    if case["norm"] == "linf":
        inside = np.clip(x, origin - eps, origin + eps)
    else:
        delta = x - origin
        size = lengths(delta)
        inside = origin + delta * np.where(size > eps, eps / np.maximum(size, 1e-300), 1)
    return np.clip(inside, *case["bounds"])


def stepped(x: NDArray[np.floating], case: dict[str, Any]) -> NDArray[np.float64]:
    gradient = case["gradient"].astype(np.float64)
    size = case["size"].reshape(-1, *(1,) * (gradient.ndim - 1)).astype(np.float64)
    direction = np.sign(gradient) if case["norm"] == "linf" else gradient / np.maximum(lengths(gradient), 1e-300)
    return projected(x + size * direction, case)


def close(found: Value, expected: NDArray[np.float64], case: dict[str, Any]) -> None:
    got = to_numpy(found)
    scale = case["bounds"][1]
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6 * scale * (1 + case["size"].max()))
    assert got.dtype == np.float32
    assert got.min() >= case["bounds"][0]
    assert got.max() <= case["bounds"][1]
    assert (ball(case["norm"], 0).measure(got - case["origin"].astype(np.float64)) <= case["eps"] + 1e-6 * scale).all()


@FEW
@given(batches())
def test_project(case: dict[str, Any]) -> None:
    math = arithmetic(case["x"].ndim, case["norm"], case["bounds"])
    close(math.project(case["x"], case["origin"], eps=case["eps"]), projected(case["x"], case), case)


@FEW
@given(batches())
def test_step(case: dict[str, Any]) -> None:
    math = arithmetic(case["x"].ndim, case["norm"], case["bounds"])
    start = projected(case["x"], case).astype(np.float32)
    found = math.step(start, case["gradient"], case["origin"], size=case["size"], eps=case["eps"])
    close(found, stepped(start, case), case)


@FEW
@given(batches(), st.sampled_from([0.75, 1.0]))
def test_momentum_step(case: dict[str, Any], pull: float) -> None:
    math = arithmetic(case["x"].ndim, case["norm"], case["bounds"])
    x = projected(case["x"], case).astype(np.float32)
    previous = projected(case["x"][::-1], case).astype(np.float32)
    found = math.momentum_step(
        x, previous, case["gradient"], case["origin"], size=case["size"], eps=case["eps"], pull=pull
    )
    mixed = x + pull * (stepped(x, case) - x) + (1 - pull) * (x.astype(np.float64) - previous)
    close(found, projected(mixed, case), case)


@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_that_is_not_a_number_moves_nothing(norm: Norm) -> None:
    math = arithmetic(2, norm, (0.0, 1.0))
    x = np.full((2, 3), 0.5, np.float32)
    gradient = np.array([[np.nan, 1, -1], [2, 1, 0]], np.float32)
    found = to_numpy(math.step(x, gradient, x, size=np.full(2, 0.1, np.float32), eps=0.1))
    assert np.isfinite(found).all()
    assert found[0, 0] == np.float32(0.5)
    assert found[1, 0] > 0.5


def test_where_and_take() -> None:
    math = arithmetic(2, "linf", (0.0, 1.0))
    yes, no = np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)
    mixed = to_numpy(math.where(np.array([True, False, True]), yes, no))
    np.testing.assert_array_equal(mixed, [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(to_numpy(math.take(mixed, np.array([2, 1]))), [[1, 1], [0, 0]])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(2000, 3), (500, 2, 4, 4)])
def test_starts(norm: Norm, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.5, np.float32)
    stream = Stream.of(0, "start", 0, np.arange(len(x)))
    full = ball(norm, 0).measure(ball(norm, 0.1).edge(stream, x) - x)
    np.testing.assert_allclose(full, 0.1, rtol=1e-5)
    moved = ball(norm, 0.1).inside(stream, x) - x
    sizes = ball(norm, 0).measure(moved)
    assert sizes.max() <= 0.1 + 1e-6
    assert abs(moved.mean()) < 0.005
    # Uniform in a ball of d dimensions: (size / eps)^d is uniform in [0, 1].
    share = (sizes / 0.1) ** (int(np.prod(shape[1:])))
    assert abs(share.mean() - 0.5) < 5 / np.sqrt(12 * len(x))
