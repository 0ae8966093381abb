"""Adam and the one-cycle schedule beside torch's own."""

import numpy as np
import pytest
import torch

from cloakonnx.selection.learn.adam import Adam, OneCycle


@pytest.mark.parametrize("steps", [3, 7, 480])
def test_adam_and_one_cycle(steps: int) -> None:
    rng = np.random.default_rng(steps)
    start = rng.normal(1, 0.3, 50)
    parameter = torch.nn.Parameter(torch.tensor(start))
    peer = torch.optim.Adam([parameter], lr=1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(peer, max_lr=0.02, total_steps=steps)
    adam, schedule = Adam({"m": start}), OneCycle(0.02, steps)
    for step in range(steps):
        gradient = rng.normal(0, 10.0 ** rng.integers(-6, 2), 50)
        parameter.grad = torch.tensor(gradient)
        peer.step()
        cycle.step() if step < steps - 1 else None
        adam.step({"m": gradient}, rate=schedule.rate(step), beta=schedule.beta(step))
        np.testing.assert_allclose(adam.values["m"], parameter.detach().numpy(), rtol=1e-10, atol=1e-12)
