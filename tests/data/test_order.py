"""Adversarial versions that are in another order than their clean samples."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.data.order import order_doubt
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource
from cloakonnx.preprocessing import Preprocessing

RNG = np.random.default_rng(0)
PROTOTYPES = RNG.random((5, 36))
LABELS = np.arange(100) % 5
CLEAN = np.clip(PROTOTYPES[LABELS] + RNG.normal(0, 0.1, (100, 36)), 0, 1).astype(np.float32)


def doubt(adversarial: NDArray[np.float32], clean: NDArray[np.float32] = CLEAN) -> str | None:
    sources = ArraySource("clean.npz", clean, None), ArraySource("adv.npz", adversarial, None)
    return order_doubt(FittedPairs(*(Dataset(each, Preprocessing(), (36,)) for each in sources)))


def moved(eps: float, clean: NDArray[np.float32] = CLEAN) -> NDArray[np.float32]:
    signs = np.random.default_rng(1).choice([-eps, eps], clean.shape)
    return np.clip(clean + signs, 0, 1).astype(np.float32)


@pytest.mark.parametrize("eps", [0.0, 1 / 255, 8 / 255, 0.1])
def test_an_attack_is_not_doubted(eps: float) -> None:
    assert doubt(moved(eps)) is None


def test_samples_that_are_there_twice_are_not_doubted() -> None:
    clean = np.repeat(CLEAN[:40], 2, axis=0)
    assert doubt(moved(0.05, clean), clean) is None


def test_one_pixel_moved_all_the_way_is_not_doubted() -> None:
    patched = CLEAN.copy()
    patched[:, 0] = 1 - np.rint(patched[:, 0])
    assert doubt(patched) is None


@pytest.mark.parametrize("eps", [0.0, 8 / 255])
@pytest.mark.parametrize("within", ["all", "class"])
def test_another_order_is_doubted(eps: float, within: str) -> None:
    rows = np.random.default_rng(2).permutation(100)
    if within == "class":
        rows = np.arange(100)
        for label in range(5):
            rows[label == LABELS] = np.flatnonzero(label == LABELS)[::-1]
    said = doubt(moved(eps)[rows])
    assert said is not None
    assert said.startswith(
        tuple(f"{n} of the first 64 samples of adv.npz are nearer to another" for n in range(17, 65))
    )
    assert said.endswith("are they in the same order?")
