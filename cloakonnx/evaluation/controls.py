"""The controls beside an evaluation: the control attack, and masks with their weights in random places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from cloakonnx.attacks.base import Attack, make
from cloakonnx.graph.masks.mask import Mask

CONTROL_MASKS = 3
"""How many masks that remove as many features at random an evaluation compares with."""


def control(
    eps: float, *, norm: Literal["linf", "l2"], seed: int, gradients: bool, straight_through: bool = False
) -> Attack:
    """Return the attack that models are compared under beside the worst case: PGD-20, or Square without gradients."""
    if gradients:
        return make("pgd", eps=eps, norm=norm, max_iter=20, straight_through=straight_through, seed=seed)
    return make("square", eps=eps, norm=norm, max_iter=500, seed=seed)


def shuffled(masks: Sequence[Mask], seed: int, index: int) -> list[Mask]:
    """Return masks with the same weights in random places: as many features go, but others."""
    rng = np.random.default_rng([seed, index])
    return [replace(mask, weights=rng.permutation(mask.weights.ravel()).reshape(mask.weights.shape)) for mask in masks]
