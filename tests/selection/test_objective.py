"""Mask gradients of a batch's mean loss, and TRADES by its logits, against finite differences; places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import rel_entr

from cloakonnx.attacks.random import Stream
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.runtime.session import to_numpy
from cloakonnx.selection.learn.objective import Objective, trades
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.recipe import Recipe
from tests.attacks.helpers import digits_arrays
from tests.selection.helpers import model
from tests.support.classifiers import cpu

pytest.importorskip("sklearn")

TAPS = [find_tap(model(), name) for name in ("/1/Relu_output_0", "/6/Relu_output_0")]


def trades_by_scipy(clean: np.ndarray, adversarial: np.ndarray, y: np.ndarray, weight: float) -> np.ndarray:
    log_p, log_q = scipy_log_softmax(clean, axis=1), scipy_log_softmax(adversarial, axis=1)
    return rel_entr(np.exp(log_p), np.exp(log_q)).sum(axis=1) - weight * log_p[np.arange(len(y)), y]


def test_trades_and_its_gradients() -> None:
    rng = np.random.default_rng(0)
    clean, adversarial = rng.normal(0, 2, (2, 6, 5))
    y = rng.integers(0, 5, 6)
    loss, by_clean, by_adversarial = trades(clean, adversarial, y, weight=0.3)
    np.testing.assert_allclose(loss, trades_by_scipy(clean, adversarial, y, 0.3), rtol=1e-12)
    h = 1e-6
    for i in range(5):
        step = np.zeros(5)
        step[i] = h
        up, down = (trades_by_scipy(clean + s, adversarial, y, 0.3) for s in (step, -step))
        np.testing.assert_allclose(by_clean[:, i], (up - down) / (2 * h), rtol=1e-6, atol=1e-9)
        up, down = (trades_by_scipy(clean, adversarial + s, y, 0.3) for s in (step, -step))
        np.testing.assert_allclose(by_adversarial[:, i], (up - down) / (2 * h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", ["soft-ce", "ce", "trades"])
@pytest.mark.parametrize("granularity", ["feature", "element", "kernel", "weight", "weight-channel"])
def test_the_gradient_is_of_the_mean_loss_of_the_batch(loss: str, granularity: Any) -> None:
    """With a radius of nearly nothing adversarial inputs stay where they are, so the loss is smooth in the masks."""
    victim = MaskedClassifier(cpu(model()), first_masks(model(), granularity))
    x, y = (a[:32] for a in digits_arrays())
    objective = Objective(victim, cpu(model()), Recipe(eps=1e-3, budget=0, loss=loss, clean_weight=0.7), (1, 8, 8))  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    masks = {tap: rng.uniform(0.3, 1.2, mask.shape) for tap, mask in victim.weights.items()}
    direction = {tap: rng.normal(0, 1, mask.shape) for tap, mask in masks.items()}

    def at(t: float) -> float:
        victim.weights = {tap: masks[tap] + t * direction[tap] for tap in masks}
        return objective(x, y, eps=1e-7, stream=Stream.of(0, "test", 0, np.arange(32))).loss / 32

    h = 1e-3
    slope = (at(h) - at(-h)) / (2 * h)
    at(0.0)
    found = objective(x, y, eps=1e-7, stream=Stream.of(0, "test", 0, np.arange(32))).gradients
    told = sum(float((found[tap] * direction[tap]).sum()) for tap in masks)
    assert told == pytest.approx(slope, rel=0.01, abs=1e-4)


def test_a_fixed_batch_gives_the_same_gradients() -> None:
    """The same model with its batch fixed at 4 sums over its runs."""
    proto = load_bytes(model().buf[:]).proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    fixed = load_bytes(proto.SerializeToString())
    x, y = (a[:12] for a in digits_arrays())
    open_batch, in_fours = (
        MaskedClassifier(cpu(m), [ones(tap) for tap in TAPS]).mask_gradients(x, y, loss=Loss.CE, by_input=True)
        for m in (model(), fixed)
    )
    np.testing.assert_allclose(open_batch.loss, in_fours.loss, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(to_numpy(open_batch.gradient), to_numpy(in_fours.gradient), rtol=1e-4, atol=1e-6)
    for tap in open_batch.gradients:
        np.testing.assert_allclose(open_batch.gradients[tap], in_fours.gradients[tap], rtol=1e-4, atol=1e-6)
