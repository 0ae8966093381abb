"""What an attack asks at most is what it asks of a model that withstands it."""

from __future__ import annotations

import numpy as np
import pytest

from cloakonnx.attacks.base import make, registered
from cloakonnx.attacks.cost import most_work, seconds_per_unit
from cloakonnx.graph.file.model import load_bytes
from tests.fixtures import false_defences

from .helpers import digits, flat, victim, victim_of


@pytest.mark.parametrize("restarts", [None, 2])
@pytest.mark.parametrize("name", list(registered()))
def test_most_work(name: str, restarts: int | None) -> None:
    if restarts and "restarts" not in registered()[name].settings():
        return
    settings = make(
        name,
        eps=1e-6,
        max_iter=5 if "max_iter" in registered()[name].settings() else None,
        restarts=restarts,
        early_stop=True,
    )
    classifier = victim(flat(4))
    x = np.random.default_rng(0).random((7, 12)).astype(np.float32)
    y = classifier.predict(x)
    before = classifier.counts.queries
    found = settings.run(classifier, x, y)
    assert not found.success.any()
    most = most_work(settings, classifier)
    queries = classifier.counts.queries - before
    assert classifier.counts.gradients == 7 * most.gradients
    assert queries <= 7 * most.queries
    assert queries >= 7 * (most.queries - 6 * (name == "fab-t"))  # its last search needs a perturbation to start from


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-t", "fab-t", "square"])
def test_most_work_on_a_model_that_rounds(name: str) -> None:
    """Beside each gradient its logits are asked for apart."""
    _, x, y = digits(7)
    made = load_bytes(false_defences.quantised(levels=255).SerializeToString())
    classifier = victim_of(made, sample_shape=(1, 8, 8))
    passes = {"straight_through": True} if name != "square" else {}
    settings = make(name, eps=1e-6, max_iter=None if name == "fgsm" else 5, **passes)
    before = classifier.counts.queries
    found = settings.run(classifier, x, y)
    assert not found.success[classifier.predict(x) == y].any()
    most = most_work(settings, classifier)
    assert classifier.counts.gradients <= 7 * most.gradients
    assert classifier.counts.queries - before <= 7 * most.queries + 7  # the predictions above


@pytest.mark.parametrize("name", list(registered()))
def test_seconds_per_unit(name: str) -> None:
    x = np.random.default_rng(0).random((3, 12)).astype(np.float32)
    assert 0 < seconds_per_unit(victim(flat(4)), make(name, eps=0.1), x) < 1
