"""`standard` and FAB-T beside torchattacks' on the same weights; autoattack.py runs it with the whole budgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloakonnx.attacks.ball import Norm
from cloakonnx.attacks.methods.fab import FABT, to_hyperplane
from tests.fixtures.real import manifest
from tests.peers.attacks import autoattack, quality

torchattacks = pytest.importorskip("torchattacks")
pytestmark = pytest.mark.filterwarnings("ignore")
with_assets = pytest.mark.skipif(
    quality.MODEL not in (manifest() or {}), reason="no real models and data: CLOAKONNX_ASSETS"
)
BOTH_NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


@with_assets
def test_standard_and_autoattack_agree_image_by_image() -> None:
    """20 images, 10 steps and 200 queries."""
    task = autoattack.Task(quality.MODEL, 1 / 255, steps=10, queries=200)
    ours, theirs = (autoattack.outcomes(who, task, 20) for who in ("cloakonnx", "torchattacks"))
    assert (ours.stands != theirs.stands).sum() <= 2, (ours, theirs)
    assert 1 < ours.stands.sum() < 15
    assert ours.disagreed <= 1


@with_assets
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.5 / 255), ("l2", 0.12)])
def test_fab_fools_the_same_images(norm: Norm, eps: float) -> None:
    x, y = quality.samples(12)
    ours = FABT(eps=eps, max_iter=10, norm=norm).run(quality.victim(), x, y).success
    kind = {"linf": "Linf", "l2": "L2"}[norm]
    made = torchattacks.FAB(quality.network(), norm=kind, eps=eps, steps=10, multi_targeted=True, n_classes=10)
    found = made(torch.from_numpy(x), torch.from_numpy(y)).detach().numpy()
    theirs = autoattack.predicted(quality.MODEL, found) != y
    assert (ours != theirs).sum() <= 1, (ours, theirs)
    assert 2 < ours.sum() < 10


@BOTH_NORMS
def test_the_way_to_a_hyperplane(norm: Norm) -> None:
    """In float64, where both are exact."""
    from torchattacks.attacks.fab import projection_l2, projection_linf

    rng = np.random.default_rng(0)
    x, w = rng.random((40, 300)), rng.normal(size=(40, 300))
    x[rng.random(x.shape) < 0.2] = 0
    c = rng.normal(size=40) * np.repeat([0.1, 3, 30, 1000], 10)  # the last ones are out of reach
    found = to_hyperplane(x, w, c, norm=norm, bounds=(0, 1))
    peer = projection_linf if norm == "linf" else projection_l2
    known = peer(*(torch.from_numpy(each) for each in (x, w, c + (w * x).sum(axis=1)))).numpy()
    np.testing.assert_allclose(found, known, atol=1e-9)
