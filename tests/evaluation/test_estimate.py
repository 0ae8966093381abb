"""The estimate before a run: an upper bound of what is asked, which changes no result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.evaluation.estimate import Estimate, Tried
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.preparation import Prepared
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import flat, victim
from tests.support.classifiers import cpu

COUNT = 6


def robust(**options: Any) -> Evaluation:
    """Evaluate a model on samples and at an eps where nothing falls."""
    plain = load_bytes(flat(3).SerializeToString())
    model = hardened(plain, [Mask("a", np.r_[np.zeros(2), np.ones(14)])])
    x = np.random.default_rng(0).random((COUNT, 12)).astype(np.float32)
    y = victim(flat(3)).predict(x)
    data = Dataset(ArraySource("flat.npz", x, y), Preprocessing(), input_shape(model), classes=3)
    return evaluate(cpu(model), data, eps=(1e-6, 2e-6), seed=1, **options)


@pytest.mark.parametrize("attack", ["quick", "apgd-t", "noise"])
def test_it_bounds_what_is_asked(monkeypatch: pytest.MonkeyPatch, attack: str) -> None:
    """With a second for each forward pass and gradient, it counts them."""
    monkeypatch.setattr("cloakonnx.evaluation.estimate.seconds_per_unit", lambda *given, **named: 1.0)
    monkeypatch.setattr("cloakonnx.evaluation.estimate._timed", lambda run: 1.0)
    told: list[Estimate] = []
    found = robust(attack=attack, on_estimate=told.append)
    (estimate,) = told
    assert (estimate.samples, estimate.eps, estimate.random_masks) == (COUNT, 2, 3)
    stages = [stage for each in found.results for side in (each.hardened, each.baseline) for stage in side.stages]
    assert all(stage.robust == stage.attacked for stage in stages)
    asked = sum(stage.queries + stage.gradients for stage in stages)
    control = next(stage for stage in found.results[0].hardened.stages if stage.name == "controls")
    asked += 2 * 3 * (control.queries + control.gradients - 2 * COUNT)  # random masks get no noise
    assert estimate.seconds is not None
    assert asked * 0.8 <= estimate.seconds
    assert asked <= estimate.seconds * 1.001


def pair(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], eps: float) -> Prepared:
    return Prepared.of(
        cpu(load_bytes(flat(3).SerializeToString())),
        (x, y),
        eps=(eps,),
        attack="pgd",
        baseline=None,
        batch_size=4,
        engine=None,
    )


@pytest.mark.parametrize("eps", [1e-6, 0.2, 0.9])
def test_what_is_expected_is_what_is_asked(monkeypatch: pytest.MonkeyPatch, eps: float) -> None:
    """With a second for each forward pass and gradient, the figure for the samples that were tried is what they ask."""
    monkeypatch.setattr("cloakonnx.evaluation.estimate.seconds_per_unit", lambda *given, **named: 1.0)
    monkeypatch.setattr("cloakonnx.evaluation.estimate._timed", lambda run: 1e-9)
    monkeypatch.setattr("cloakonnx.evaluation.estimate._LEAST_TRIED", 32)
    x = np.random.default_rng(3).random((32, 12)).astype(np.float32)
    y = victim(flat(3)).predict(x)
    y[:8] = (y[:8] + 1) % 3
    prepared = replace(pair(x, y, eps), batch_size=32)
    estimate = prepared.estimate(sanity=False)
    assert estimate.tried is not None
    assert estimate.tried.right == 24 / 32
    found = evaluate(cpu(load_bytes(flat(3).SerializeToString())), (x, y), eps=(eps,), attack="pgd", sanity=False)
    model = found.results[0].hardened
    asked = sum(stage.queries + stage.gradients for stage in model.stages) - 24  # the noise
    assert estimate.expected_seconds == pytest.approx(asked, rel=0.35)
    assert estimate.seconds is not None
    assert estimate.expected_seconds is not None
    assert estimate.expected_seconds <= estimate.seconds
    if eps == 1e-6:
        assert estimate.tried.standing == 24 / 32


def test_nothing_right_costs_next_to_nothing() -> None:
    x = np.random.default_rng(3).random((8, 12)).astype(np.float32)
    y = (victim(flat(3)).predict(x) + 1) % 3
    estimate = pair(x, y, 0.1).estimate(sanity=False, always=True)
    assert estimate.tried is not None
    assert (estimate.tried.right, estimate.tried.standing, estimate.tried.deep) == (0, 0, 0)
    assert estimate.expected_seconds is not None
    assert estimate.seconds is not None
    assert estimate.expected_seconds < 0.01 * estimate.seconds


def test_a_short_run_gets_no_short_attack() -> None:
    x = np.random.default_rng(3).random((8, 12)).astype(np.float32)
    assert pair(x, victim(flat(3)).predict(x), 0.1).estimate(sanity=False).tried is None


def test_on_workers() -> None:
    """41 hours of one worker are 25 minutes on 100, as far as there are batches for them."""
    estimate = Estimate(300.0, 64 * 1000, 1, 0, models=1, tried=Tried(64, 0.9, 0.25, shallow=0.1, deep=8.8))
    assert estimate.batches == 1000
    assert estimate.expected(1) == pytest.approx(64_000 * 2.3)
    assert 64_000 * 2.3 / 100 < estimate.expected(100) < 1.5 * 64_000 * 2.3 / 100
    assert estimate.at_most(100) == 10 * 64 * 300
    assert estimate.expected(10_000) == estimate.expected(1000)
    assert estimate.as_dict()["expected"]["seconds"] == estimate.expected(1)


def test_it_changes_nothing() -> None:
    told: list[Estimate] = []
    options: dict[str, Any] = {"attack": "pgd", "max_iter": 3}
    assert robust(on_estimate=told.append, **options).to_json() == robust(**options).to_json()
    assert told[0].seconds_per_sample > 0


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (Estimate(1.2, 600, 3, 3), "about 12 min at most: 600 samples, 3 eps, 2 models and 3 random masks"),
        (
            Estimate(0.1, 100, 1, 0, sanity=True),
            "about 10 s at most: 100 samples, 1 eps, 2 models; the sanity checks come on top",
        ),
        (Estimate(0.1, 100, 1, 0), "about 10 s at most: 100 samples, 1 eps, 2 models"),
        (Estimate(22.0, 600, 1, 3), "about 3.7 h at most: 600 samples, 1 eps, 2 models and 3 random masks"),
        (Estimate(22.0, 10_000, 1, 0), "about 2.5 days at most: 10000 samples, 1 eps, 2 models"),
        (Estimate(22.0, None, 2, 0), "about 22 s a sample at most: 2 eps, 2 models"),
        (
            Estimate(0.1, 100, 1, 3, rounds=2, curve=31),
            "about 20 s at most: 100 samples, 1 eps, 2 models and 3 random masks, under 2 masks; a curve of 31 amounts",
        ),
        (Estimate(0.1, None, 1, 0, rounds=3), "about 0.3 s a sample at most: 1 eps, 2 models, under 3 masks"),
        (
            Estimate(1.2, 600, 3, 0, models=1, tried=Tried(64, 0.9, 0.25, shallow=0.1, deep=0.4)),
            "about 2 min, 12 min at most: 600 samples, 3 eps, 1 model; of the first 64 samples 90% are right, and 25% "
            "withstand a short attack",
        ),
        (
            Estimate(1.2, None, 3, 0, models=1, tried=Tried(64, 0.9, 0.25, shallow=0.1, deep=0.4)),
            "about 0.2 s, 1.2 s a sample at most: 3 eps, 1 model; of the first 64 samples 90% are right, and 25% "
            "withstand a short attack",
        ),
    ],
)
def test_in_words(estimate: Estimate, said: str) -> None:
    assert str(estimate) == said
