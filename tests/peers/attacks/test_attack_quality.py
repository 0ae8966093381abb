"""Our attacks beside torchattacks' and ART's on the same weights; quality.py with --full prints the whole table."""

from __future__ import annotations

import pytest

from cloakonnx.attacks.ball import Norm
from cloakonnx.attacks.base import make
from tests.fixtures.real import manifest
from tests.peers.attacks import quality

pytest.importorskip("torchattacks")
pytest.importorskip("art")
pytestmark = [
    pytest.mark.skipif(quality.MODEL not in (manifest() or {}), reason="no real models and data: CLOAKONNX_ASSETS"),
    pytest.mark.filterwarnings("ignore"),
]

IMAGES = 50
QUICK = quality.cases(steps=20, queries=100)[::2] + quality.cases(steps=20)[3:4]
LUCK = 2
"""Images that other random starts may turn, of so few."""


@pytest.mark.parametrize("norm", list(quality.EPS))
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_not_weaker_than_the_better_peer(case: quality.Case, norm: Norm) -> None:
    found = quality.compare(case, norm, IMAGES)
    peers = [found[name] for name in ("torchattacks", "ART") if name in found]
    assert peers
    assert found["cloakonnx"] <= min(peers) + 1 + LUCK * 100 / case.count(IMAGES), found


@pytest.mark.parametrize("norm", list(quality.EPS))
@pytest.mark.parametrize(("attack", "steps"), [("pgd", 40), ("apgd-ce", 100), ("apgd-dlr", 100)])
def test_doubling_the_iterations_gains_under_a_point(attack: str, steps: int, norm: Norm) -> None:
    """From the defaults on; of 100 images, so that one is a point."""
    x, y = quality.samples(100)
    held = []
    for max_iter in (steps, 2 * steps):
        settings = make(attack, eps=quality.EPS[norm], norm=norm, max_iter=max_iter)
        held.append(int((~settings.run(quality.victim(), x, y).success).sum()))
    assert held[0] - held[1] <= 1, held
