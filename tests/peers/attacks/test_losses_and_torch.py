"""Values and gradients of the losses against their formulas in torch, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor
from torch.nn.functional import cross_entropy

from cloakonnx.attacks.victim import Victim
from cloakonnx.gradient.losses import Loss
from cloakonnx.runtime.session import to_numpy
from tests.attacks.helpers import model, victim

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
CLASSES = 10


def at(z: Tensor, index: Tensor) -> Tensor:
    return z.gather(1, index[:, None])[:, 0]


def largest_other(z: Tensor, y: Tensor) -> Tensor:
    return z.scatter(1, y[:, None], -torch.inf).max(1).values


def ranked(z: Tensor, rank: int) -> Tensor:
    return z.sort(1, descending=True).values[:, rank]


FORMULAS: dict[tuple[Loss, bool], Formula] = {
    (Loss.CE, False): lambda z, y, t: cross_entropy(z, y, reduction="none"),
    (Loss.CE, True): lambda z, y, t: -cross_entropy(z, t, reduction="none"),
    (Loss.CE_SOFTMAX, False): lambda z, y, t: cross_entropy(z, y, reduction="none"),
    (Loss.LOG_ODDS, False): lambda z, y, t: z.scatter(1, y[:, None], -torch.inf).logsumexp(1) - at(z, y),
    (Loss.LOG_ODDS, True): lambda z, y, t: at(z, t) - z.scatter(1, t[:, None], -torch.inf).logsumexp(1),
    (Loss.MARGIN, False): lambda z, y, t: largest_other(z, y) - at(z, y),
    (Loss.MARGIN, True): lambda z, y, t: at(z, t) - largest_other(z, t),
    # Croce & Hein 2020, equations 5 and 6.
    (Loss.DLR, False): lambda z, y, t: (largest_other(z, y) - at(z, y)) / (ranked(z, 0) - ranked(z, 2) + 1e-12),
    (Loss.DLR, True): lambda z, y, t: (
        (at(z, t) - at(z, y)) / (ranked(z, 0) - (ranked(z, 2) + ranked(z, 3)) / 2 + 1e-12)
    ),
}


def logits_are_the_input() -> Victim:
    return victim(
        model(
            [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Neg", ["n"], ["scores"])],
            {},
            ["N", CLASSES],
            CLASSES,
        )
    )


@pytest.mark.parametrize("scale", [0.1, 3.0, 12.0])
@pytest.mark.parametrize(("loss", "targeted"), list(FORMULAS))
def test_values_and_gradients(loss: Loss, targeted: bool, scale: float) -> None:
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(200, CLASSES)) * scale).astype(np.float32)
    y = rng.integers(0, CLASSES, 200)
    y[:100] = z[:100].argmax(1)
    t = (y + rng.integers(1, CLASSES, 200)) % CLASSES
    live = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    expected = FORMULAS[loss, targeted](live, torch.tensor(y), torch.tensor(t))
    expected.sum().backward()
    assert live.grad is not None
    # A targeted loss but the DLR takes the targets alone.
    found = logits_are_the_input().gradient(z, y, loss=loss, targets=t if targeted else None)
    np.testing.assert_allclose(found.loss, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(found.gradient), live.grad, rtol=1e-4, atol=1e-6)
