"""Attacks whose inputs are kept in whole levels of 1/255: the model is run on rounded inputs.

An attack that stops just over the boundary loses what it found when its input is rounded back into the ball. So the
rounding is part of the model under attack: scores and gradients are those at the rounded input, the steps are made
without it (BPDA, arXiv 1802.00420, with the identity for the rounding). Where the rounded input does not fool the
model, levels between the clean input and the edge of the ball are tried.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import Ball
from cloakonnx.attacks.run import Adversarial, Run
from cloakonnx.data.levels import nearest_level, rounded_inward

if TYPE_CHECKING:
    from cloakonnx.attacks.victim import Victim

_SHARES = (1.0, 0.9, 0.75, 0.5, 0.25)
"""Shares of the distance to the edge of the ball at which levels are tried."""


def rounding(run: Run) -> Run:
    """Make a run judge rounded inputs; returns the run."""
    victim = copy.copy(run.victim)
    victim.judged = lambda x: _judged(run, x)
    run.victim = victim
    return run


def _judged(run: Run, x: Any) -> NDArray[np.float32]:
    """Return inputs in levels, inside the ball where it is known which samples they are of: all, or the active ones."""
    pixels = run.victim.on_host(x)
    if len(pixels) == len(run.active):
        return rounded_inward(pixels, run.clean[run.active])
    if len(pixels) == len(run.clean):
        return rounded_inward(pixels, run.clean)
    return nearest_level(pixels)


def kept_in_levels(
    victim: Victim, found: Adversarial, x: NDArray[np.float32], y: NDArray[np.int64], *, within: Ball, targeted: bool
) -> Adversarial:
    """Round what an attack found, and look for levels that fool where the rounded input does not.

    Args:
        victim: The classifier.
        found: What the attack found.
        x: (N, ...) the clean inputs.
        y: (N,) labels; targeted: the classes to reach.
        within: The ball.
        targeted: Whether the labels are the classes to reach.
    """
    made = rounded_inward(found.x, x)
    success = victim.right(made, y) == targeted
    for tried in _further(found.x, x, within):
        rows = np.flatnonzero(~success & (tried != made).reshape(len(x), -1).any(axis=1))
        if len(rows):
            won = rows[victim.right(tried[rows], y[rows]) == targeted]
            made[won], success[won] = tried[won], True
    return Adversarial(made, np.asarray(success), found.converged & ~success)


def _further(x: NDArray[np.float32], clean: NDArray[np.float32], within: Ball) -> Iterator[NDArray[np.float32]]:
    """Yield inputs in levels on the way from the clean input over what was found to the ball's edge."""
    change = x.astype(np.float64) - clean
    size = within.measure(change)
    scale = np.divide(within.eps, size, out=np.zeros_like(size), where=size > 0).reshape(-1, *(1,) * (x.ndim - 1))
    for share in _SHARES:
        moved = np.clip(clean + share * scale * change, 0, 1).astype(np.float32)
        yield rounded_inward(moved, clean)
        level = nearest_level(moved)
        inside = within.measure(level.astype(np.float64) - clean) <= within.eps * (1 + 1e-6)
        yield np.where(inside.reshape(scale.shape), level, rounded_inward(moved, clean))
    if within.name == "linf":
        corner = np.clip(clean + within.eps * np.sign(change), 0, 1).astype(np.float32)
        yield rounded_inward(corner, clean)
