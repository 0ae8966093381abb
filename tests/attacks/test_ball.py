"""Whatever an attack does, its inputs stay in the ball around the clean ones and inside the bounds."""

from __future__ import annotations

import numpy as np
import pytest

from cloakonnx.attacks.base import make, registered

from .helpers import digits


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.3)])
@pytest.mark.parametrize("attack", list(registered()))
def test_every_input_is_in_the_ball(attack: str, norm: str, eps: float, restarts: int) -> None:
    victim, x, y = digits(40)
    takes = registered()[attack].settings()
    found = make(
        attack,
        eps=eps,
        norm=norm,
        max_iter=12 if "max_iter" in takes else None,
        restarts=restarts if "restarts" in takes else None,
    ).run(victim, x, y)
    moved = (found.x - x).reshape(len(x), -1)
    size = np.abs(moved).max(axis=1) if norm == "linf" else np.linalg.norm(moved, axis=1)
    assert size.max() <= eps * (1 + 1e-5)
    assert size.max() >= eps / 10
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    np.testing.assert_array_equal(victim.predict(found.x) != y, found.success)
