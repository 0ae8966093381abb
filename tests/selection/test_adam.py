"""Adam and the one-cycle schedule beside what torch 2.13 gave in float64 (tests/peers compares with torch itself)."""

import numpy as np
import pytest

from cloakonnx.selection.learn.adam import Adam, OneCycle

RATES = [
    0.0008, 0.0104, 0.02, 0.019009692640269475, 0.016234913078995262, 0.012225240438725785, 0.007774839561274216,
    0.00376516692100474, 0.0009903873597305257, 8e-08,
]  # fmt: skip
BETAS = [
    0.95, 0.9, 0.85, 0.854951556604879, 0.8688255099070633, 0.8888739533021842, 0.9111260466978157, 0.9311744900929366,
    0.945048443395121, 0.95,
]  # fmt: skip
AFTER_4 = [1.0343632004900454, 0.4948783611118001, 1.9662402006592679]
AFTER_10 = [1.035800875750076, 0.508381783346417, 1.9593473235662546]


def gradient(values: np.ndarray, step: int) -> np.ndarray:
    return np.sin(values * 3 + step) * np.array([1.0, 0.1, 10.0])


def test_one_cycle() -> None:
    schedule = OneCycle(0.02, 10)
    assert [schedule.rate(k) for k in range(10)] == pytest.approx(RATES, rel=1e-12)
    assert [schedule.beta(k) for k in range(10)] == pytest.approx(BETAS, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_of_few_steps_stays_within_its_ends(steps: int) -> None:
    schedule = OneCycle(0.02, steps)
    assert all(0 < schedule.rate(k) <= 0.02 for k in range(steps))
    assert all(0.85 <= schedule.beta(k) <= 0.95 for k in range(steps))


def test_adam_under_one_cycle() -> None:
    adam, schedule = Adam({"m": np.array([1.0, 0.5, 2.0], np.float32)}), OneCycle(0.02, 10)
    for step in range(10):
        adam.step({"m": gradient(adam.values["m"], step)}, rate=schedule.rate(step), beta=schedule.beta(step))
        if step == 3:
            assert adam.values["m"] == pytest.approx(AFTER_4, rel=1e-12)
    assert adam.values["m"] == pytest.approx(AFTER_10, rel=1e-12)
