"""The estimate before a run: an upper bound of what is asked, which changes no result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.evaluation.estimate import Estimate
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation
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
    ],
)
def test_in_words(estimate: Estimate, said: str) -> None:
    assert str(estimate) == said
