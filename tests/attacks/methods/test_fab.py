"""FAB-T: its projections against scipy's solvers, the attack against closed forms and its own promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from scipy.optimize import linprog, minimize

from cloakonnx.attacks.ball import Norm, ball
from cloakonnx.attacks.methods.fab import FABT, to_hyperplane
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.answer import Answer
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.graph.file.model import load_bytes
from tests.attacks.helpers import CPU, Images, Labels, digits, flat, model, victim

Array = NDArray[np.float64]
NORMS: list[Norm] = ["linf", "l2"]
BOTH_NORMS = pytest.mark.parametrize("norm", NORMS)
BOXES = [(0.0, 1.0), (-2.0, 3.0), (0.0, 255.0)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, Array, tuple[float, float]]:
    """Points in a box, normals of any size with zeros among them, distances that can be reached or not."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    count, width = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    low, high = draw(st.sampled_from(BOXES))
    x = rng.uniform(low, high, (count, width))
    x[rng.random(x.shape) < 0.2] = draw(st.sampled_from([low, high]))
    w = rng.normal(size=x.shape) * 10.0 ** rng.uniform(-2, 2, x.shape) * 10.0 ** draw(st.integers(-25, 3))
    w[rng.random(x.shape) < 0.1] = 0
    c = rng.uniform(-1.2, 1.2, count) * reach(x, w, np.ones(count), (low, high))
    return x, w, c, (low, high)


def reach(x: Array, w: Array, c: Array, bounds: tuple[float, float]) -> Array:
    """(N,) the largest <w, d> of the sign of c that the box allows, as a positive number."""
    upward = w * np.where(c < 0, -1, 1)[:, None] > 0
    room = np.where(upward, bounds[1] - x, x - bounds[0])
    return np.asarray((np.abs(w) * room).sum(axis=1))


def solved(x: Array, w: Array, c: float, norm: Norm, bounds: tuple[float, float]) -> float:
    """Return the smallest norm by scipy: a linear programme, or sequential least squares from its solution."""
    width, scale = len(x), np.abs(w).max()
    box = list(zip(bounds[0] - x, bounds[1] - x, strict=True))
    caps = np.block([[np.eye(width), -np.ones((width, 1))], [-np.eye(width), -np.ones((width, 1))]])
    linear = linprog(
        [*np.zeros(width), 1.0],
        A_ub=caps,
        b_ub=np.zeros(2 * width),
        A_eq=[[*w / scale, 0.0]],
        b_eq=[c / scale],
        bounds=[*box, (0, None)],
    )
    assert linear.status == 0, linear.message
    if norm == "linf":
        return float(linear.fun)
    plane: dict[str, Any] = {"type": "eq", "fun": lambda d: d @ w / scale - c / scale, "jac": lambda d: w / scale}
    found = minimize(
        lambda d: d @ d, linear.x[:-1], jac=lambda d: 2 * d, bounds=box, constraints=[plane], method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )  # fmt: skip
    assert abs(plane["fun"](found.x)) < 1e-5
    return float(np.sqrt(found.fun))


@BOTH_NORMS
@given(problem=problems())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_move_is_the_smallest_that_reaches_the_hyperplane(
    norm: Norm, problem: tuple[Array, Array, Array, tuple[float, float]]
) -> None:
    x, w, c, bounds = problem
    wide = bounds[1] - bounds[0]
    found = to_hyperplane(x, w, c, norm=norm, bounds=bounds)
    assert (x + found >= bounds[0] - 1e-12 * wide).all()
    assert (x + found <= bounds[1] + 1e-12 * wide).all()
    most = reach(x, w, c, bounds)
    got = (w * found).sum(axis=1)
    np.testing.assert_allclose(got, np.sign(c) * np.minimum(np.abs(c), most), rtol=1e-9, atol=1e-9 * most.max())
    for i in np.flatnonzero((np.abs(c) < 0.999 * most) & (most > 0)):
        size = ball(norm, 0).measure(found[i : i + 1])[0]
        best = solved(x[i], w[i], c[i], norm, bounds)
        assert size == pytest.approx(best, rel=2e-4, abs=1e-6 * wide)


@BOTH_NORMS
def test_many_values_meet_their_bounds_one_after_the_other(norm: Norm) -> None:
    """Rooms that differ by orders of magnitude, against the sum that the move has to come to."""
    rng = np.random.default_rng(0)
    room = 10.0 ** -rng.uniform(0, 6, (3, 5000))
    w = 10.0 ** -rng.uniform(0, 3, room.shape)
    c = (w * room).sum(axis=1) * [0.1, 0.9, 0.999999]
    found = to_hyperplane(1 - room, w, c, norm=norm, bounds=(0, 1))
    np.testing.assert_allclose((w * found).sum(axis=1), c, rtol=1e-12)
    assert (found <= room + 1e-15).all()
    pace = found if norm == "linf" else found / w
    held = found < room * (1 - 1e-9)
    top = np.where(held, pace, 0).max(axis=1, keepdims=True)
    assert (np.abs(pace - top)[held] < 1e-9 * np.broadcast_to(top, pace.shape)[held]).all()  # those move alike
    assert (pace <= top * (1 + 1e-9)).all()  # the others would have gone as far


def test_large_batches_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, w, c = rng.random((7, 5)), rng.normal(size=(7, 5)), rng.normal(size=7) / 10
    whole = to_hyperplane(x, w, c, norm="l2", bounds=(0, 1))
    monkeypatch.setattr("cloakonnx.attacks.methods.fab._AT_ONCE", 10)
    np.testing.assert_array_equal(to_hyperplane(x, w, c, norm="l2", bounds=(0, 1)), whole)


def linear(classes: int, features: int = 20) -> tuple[Victim, Images, Labels, Array, Array]:
    """Return a linear classifier, points well inside the bounds, and its weights and biases."""
    rng = np.random.default_rng(classes)
    weights = {"w": rng.normal(size=(features, classes)).astype(np.float32), "b": rng.normal(size=classes) / 10}
    weights["b"] = weights["b"].astype(np.float32)
    made = model([helper.make_node("Gemm", ["x", "w", "b"], ["scores"])], weights, ["N", features], classes)
    classifier = victim(made)
    x = rng.uniform(0.45, 0.55, (25, features)).astype(np.float32)
    return classifier, x, classifier.predict(x), weights["w"].astype(np.float64), weights["b"].astype(np.float64)


def distances(x: Images, y: Labels, w: Array, b: Array, norm: Norm) -> Array:
    """(N,) how far the nearest other class is: |f| / ||w||_q for each pair, the smallest of them."""
    scores = x.astype(np.float64) @ w + b
    away = scores[np.arange(len(y)), y][:, None] - scores
    normal = w[:, y].T[:, :, None] - w[None]
    length = np.abs(normal).sum(axis=1) if norm == "linf" else np.linalg.norm(normal, axis=1)
    length[np.arange(len(y)), y], away[np.arange(len(y)), y] = 1, np.inf
    return np.asarray((away / length).min(axis=1))


@BOTH_NORMS
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_known_distance_of_a_linear_classifier(classes: int, norm: Norm) -> None:
    classifier, x, y, w, b = linear(classes)
    known = distances(x, y, w, b, norm)
    assert known.max() < {"linf": 0.4, "l2": 1.5}[norm]
    found = FABT(eps=float(known.max() * 1.5), norm=norm, max_iter=20, early_stop=False).run(classifier, x, y)
    size = ball(norm, 0).measure(found.x - x.astype(np.float64))
    assert found.success.all()
    assert (size >= known * (1 - 1e-4)).all()
    assert (size <= known * 1.0055).all()  # where a step over by 1.05, one back by 0.9 and a tenth of bias settle
    assert np.median(size / known) < 1.001  # the last search, where rounding does not stop it


@BOTH_NORMS
def test_only_what_is_inside_the_ball_is_a_success(norm: Norm) -> None:
    classifier, x, y, w, b = linear(4)
    known = distances(x, y, w, b, norm)
    eps = float(np.median(known))
    found = FABT(eps=eps, norm=norm, max_iter=20).run(classifier, x, y)
    sure = np.abs(known / eps - 1) > 0.01
    np.testing.assert_array_equal(found.success[sure], (known < eps)[sure])
    assert ball(norm, 0).measure(found.x - x.astype(np.float64)).max() <= eps * (1 + 1e-6)
    np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)


@BOTH_NORMS
def test_leaving_early_changes_no_outcome(norm: Norm) -> None:
    classifier, x, y = digits(60)
    eps = {"linf": 0.08, "l2": 0.5}[norm]
    left, stayed = (
        FABT(eps=eps, norm=norm, max_iter=8, restarts=1, early_stop=stop).run(classifier, x, y)
        for stop in (True, False)
    )
    np.testing.assert_array_equal(left.success, stayed.success)
    right = classifier.predict(x) == y
    won = left.success & right
    assert 5 < won.sum() < 50
    size = [ball(norm, 0).measure(each.x - x.astype(np.float64))[won] for each in (left, stayed)]
    assert (size[1] <= size[0]).all()
    assert size[1].mean() < 0.95 * size[0].mean()


def test_what_it_asks_for() -> None:
    """Each step of each target: one gradient and one query a sample; classes - 1 targets, at most nine."""
    for classes, targets in ((2, 1), (4, 3), (12, 9)):
        classifier = victim(flat(classes))
        x = np.random.default_rng(0).random((6, 12)).astype(np.float32)
        y = classifier.predict(x)
        before = classifier.counts.queries
        found = FABT(eps=1e-6, max_iter=3, restarts=2).run(classifier, x, y)
        assert not found.success.any()
        assert classifier.counts.gradients == 6 * 3 * 2 * targets
        assert classifier.counts.queries - before - 6 * 3 * 2 * targets <= 6 * 8  # beside the steps


class _Numberless(Victim):
    """Answers with gradients that are not numbers."""

    def gradient(self, x: Any, *args: Any, **options: Any) -> Answer:
        answer = super().gradient(x, *args, **options)
        return replace(answer, loss=answer.loss * np.float32("nan"), gradient=np.full_like(x, np.nan))


def test_what_is_no_number_moves_nothing() -> None:
    classifier = _Numberless(Classifier(load_bytes(flat(3).SerializeToString()), provider=CPU))
    x = np.random.default_rng(0).random((4, 12)).astype(np.float32)
    found = FABT(eps=0.5, max_iter=3).run(classifier, x, classifier.predict(x))
    np.testing.assert_array_equal(found.x, x)
    assert not found.success.any()


def test_a_dead_gradient_moves_nothing_and_wins_nothing() -> None:
    made = flat(3)
    made.graph.initializer[0].CopyFrom(helper.make_tensor("w1", 1, [12, 16], np.zeros(192)))
    classifier = victim(made)
    x = np.random.default_rng(0).random((4, 12)).astype(np.float32)
    y = classifier.predict(x)
    found = FABT(eps=0.5, max_iter=5).run(classifier, x, y)
    np.testing.assert_array_equal(found.x, x)
    assert not found.success.any()
