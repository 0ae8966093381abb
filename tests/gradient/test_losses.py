"""Losses and their gradients against plain numpy and finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy.special import log_softmax, logsumexp, softmax

from cloakonnx.gradient.differentiate import GradientGraph, differentiate
from cloakonnx.gradient.losses import Loss
from tests.support.double import to_double

from .harness import evaluator, ort_run

Array = np.ndarray[Any, Any]
N, K = 6, 5


def identity(classes: int, *tail: str) -> onnx.ModelProto:
    """A model whose logits are its input."""
    names = ["x", *(f"t{i}" for i in range(len(tail))), "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate((*tail, "Identity"))]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", classes])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8)


def value(z: Array, name: str, y: Array, t: Array | None) -> Array:
    """The losses, as the papers write them."""
    rows = np.arange(len(z))

    def but(index: Array) -> Array:
        others = z.copy()
        others[rows, index] = -np.inf
        return others.max(1)

    top = -np.sort(-z, 1)
    if name == "ce":
        shifted = z - z.max(1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return -log_probabilities[rows, y] if t is None else log_probabilities[rows, t]
    if name == "log-odds":
        others = np.where(np.arange(z.shape[1]) == (y if t is None else t)[:, None], -np.inf, z)
        odds = logsumexp(others, axis=1) - z[rows, y if t is None else t]
        return odds if t is None else -odds
    if name == "margin":
        return but(y) - z[rows, y] if t is None else z[rows, t] - but(t)
    if t is None:
        return -(z[rows, y] - but(y)) / (top[:, 0] - top[:, 2] + 1e-12)
    return -(z[rows, y] - z[rows, t]) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def evaluate(graph: GradientGraph, run: Callable[..., Any], z: Array, y: Array, t: Array | None) -> Mapping[str, Array]:
    feeds = {graph.image: z}
    if graph.labels:
        feeds[graph.labels] = y
    if graph.targets and t is not None:
        feeds[graph.targets] = t
    return dict(zip((o.name for o in graph.proto.graph.output), run(feeds), strict=True))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["ce", "log-odds", "margin", "dlr"])
def test_loss_and_gradient(loss: str, targeted: bool) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, K)) * 3
    y = rng.integers(0, K, N)
    y[:2] = z[:2].argmax(1)
    t = (y + rng.integers(1, K, N)) % K if targeted else None
    graph = differentiate(to_double(identity(K)), loss=loss, targeted=targeted)
    found = evaluate(graph, evaluator(graph.proto), z, y, t)
    np.testing.assert_allclose(found[graph.logits], z)
    np.testing.assert_allclose(found[graph.loss or ""], value(z, loss, y, t), rtol=1e-12, atol=1e-12)
    numeric = np.zeros_like(z)
    for j in range(K):
        step = np.zeros(K)
        step[j] = 1e-6
        numeric[:, j] = (value(z + step, loss, y, t) - value(z - step, loss, y, t)) / 2e-6
    np.testing.assert_allclose(found[graph.gradient], numeric, rtol=1e-6, atol=1e-7)
    single = differentiate(identity(K), loss=loss, targeted=targeted)
    narrow = evaluate(single, ort_run(single.proto), z.astype(np.float32), y, t)
    np.testing.assert_allclose(narrow[single.gradient], found[graph.gradient], rtol=1e-4, atol=1e-6)


def test_the_difference_of_two_logits() -> None:
    """Labels and targets are always asked for, and its gradient is that of a plain difference."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(N, K)).astype(np.float32), rng.integers(0, K, N)
    t = (y + rng.integers(1, K, N)) % K
    for targeted in (False, True):
        graph = differentiate(identity(K), loss="difference", targeted=targeted)
        found = evaluate(graph, ort_run(graph.proto), z, y, t)
        np.testing.assert_allclose(found[graph.loss or ""], z[np.arange(N), t] - z[np.arange(N), y], rtol=1e-6)
        np.testing.assert_array_equal(found[graph.gradient], np.eye(K)[t] - np.eye(K)[y])


def test_saturated_sample_keeps_its_gradient() -> None:
    z = np.array([[60.0, 0.0, 10.0], [-200.0, 100.0, 0.0]], np.float32)
    graph = differentiate(identity(3))
    found = evaluate(graph, ort_run(graph.proto), z, np.array([0, 0]), None)
    gradient = found[graph.gradient]
    p = np.exp(np.array([-60.0, -50.0]))
    np.testing.assert_allclose(gradient[0], [-p.sum(), p[0], p[1]], rtol=1e-4)
    np.testing.assert_allclose(gradient[1], [-1.0, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found[graph.loss or ""], [p.sum(), 300.0], rtol=1e-4)


def test_cross_entropy_as_frameworks_have_it() -> None:
    z = np.array([[60.0, 0.0, 10.0], [1.0, 2.0, 0.0]], np.float32)
    graph, exact = differentiate(identity(3), loss="ce-softmax"), differentiate(identity(3))
    found, expected = (evaluate(g, ort_run(g.proto), z, np.array([0, 0]), None) for g in (graph, exact))
    p = np.exp(z[1]) / np.exp(z[1]).sum()
    assert found[graph.gradient][0, 0] == 0  # lost, which the exact one keeps
    np.testing.assert_allclose(found[graph.gradient][1], p - [1, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(found[graph.loss or ""], expected[exact.loss or ""])


@pytest.mark.parametrize("targeted", [False, True])
def test_log_odds_stand_in_for_the_cross_entropy(targeted: bool) -> None:
    """The same order and direction as the cross-entropy in float64, in float32 too, where that one is 0."""
    rng = np.random.default_rng(2)
    z = (rng.normal(size=(60, K)) * np.logspace(-1, 3, 60)[:, None]).astype(np.float32)
    y = np.where(np.arange(60) % 2, z.argmax(1), rng.integers(0, K, 60))
    graph = differentiate(identity(K), loss=Loss.CE.climbed, targeted=targeted)
    found = evaluate(graph, ort_run(graph.proto), z, y, y)
    gradient, odds = found[graph.gradient], found[graph.loss or ""].astype(np.float64) * (-1 if targeted else 1)
    wide = z.astype(np.float64)
    # -log p = log(1 + e^odds), and its gradient by the logits is softmax - onehot, a positive multiple of ours.
    rows = np.arange(60)
    exact = -log_softmax(wide, axis=1)[rows, y]
    np.testing.assert_allclose(np.logaddexp(0, odds), exact, rtol=1e-5, atol=1e-12)
    p = softmax(np.where(np.arange(K) == y[:, None], -np.inf, wide), axis=1)
    p[rows, y] = -1
    np.testing.assert_allclose(gradient, -p if targeted else p, rtol=1e-4, atol=1e-6)
    assert (exact == 0).sum() > 5  # even in float64
    assert (np.abs(gradient).max(axis=1) == 1).all()
    assert Loss.MARGIN.climbed is Loss.MARGIN


@pytest.mark.parametrize("classes", [2, 3])
def test_margin_stands_in_for_dlr(classes: int) -> None:
    z = np.random.default_rng(1).normal(size=(4, classes)).astype(np.float32)
    y = np.zeros(4, np.int64)
    dlr, margin = (differentiate(identity(classes), loss=loss) for loss in ("dlr", "margin"))
    a, b = (evaluate(g, ort_run(g.proto), z, y, None) for g in (dlr, margin))
    np.testing.assert_array_equal(a[dlr.gradient], b[margin.gradient])
    targeted = differentiate(identity(classes), loss="dlr", targeted=True)
    found = evaluate(targeted, ort_run(targeted.proto), z, y, y + 1)
    np.testing.assert_allclose(found[targeted.loss or ""], z[:, 1] - z[:, 0], rtol=1e-6)


@pytest.mark.parametrize("tail", [(), ("Sigmoid",)])
def test_one_output_is_two_classes(tail: tuple[str, ...]) -> None:
    z = np.array([[0.5], [-2.0]], np.float32)
    graph = differentiate(identity(1, *tail))
    assert graph.classes == 2
    assert graph.stripped == (tail[0] if tail else None)
    found = evaluate(graph, ort_run(graph.proto), z, np.array([0, 1]), None)
    np.testing.assert_allclose(found[graph.logits], np.hstack([0 * z, z]))
    probability = 1 / (1 + np.exp(-z[:, 0]))
    np.testing.assert_allclose(found[graph.gradient][:, 0], [probability[0], probability[1] - 1], rtol=1e-5)


@pytest.mark.parametrize("tail", [("Softmax",), ("LogSoftmax",), ("Softmax", "Identity"), ("Sigmoid",)])
def test_final_activation_is_left_out(tail: tuple[str, ...]) -> None:
    graph = differentiate(identity(4, *tail))
    assert graph.stripped == tail[0]
    z = np.array([[1.0, 2.0, 3.0, 90.0]], np.float32)
    found = evaluate(graph, ort_run(graph.proto), z, np.array([3]), None)
    np.testing.assert_array_equal(found[graph.logits], z)
    assert np.all(found[graph.gradient] != 0)


def test_cotangent() -> None:
    graph = differentiate(identity(4), loss="cotangent")
    z = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    c = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    run = ort_run(graph.proto)
    found = dict(
        zip((o.name for o in graph.proto.graph.output), run({graph.image: z, graph.cotangent: c}), strict=True)
    )
    np.testing.assert_allclose(found[graph.loss or ""], (z * c).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(found[graph.gradient], c)
