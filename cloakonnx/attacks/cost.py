"""What an attack asks of a classifier at most, and how long that takes here."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.settings import Settings, run_attack
from cloakonnx.attacks.victim import Counts, Victim


def most_work(settings: Settings, victim: Victim) -> Counts:
    """Return the forward passes and gradients that one sample costs if it withstands everything.

    Early stopping can only save some of it.
    """
    counts = _most(settings, victim.classes)
    return Counts(counts.queries + counts.gradients, counts.gradients) if victim.blocked else counts


def _most(settings: Settings, classes: int) -> Counts:
    filled = settings.as_dict()
    steps, restarts = filled["max_iter"] or 1, filled["restarts"] or 1
    name = settings.attack
    if name == "fgsm":
        return Counts(queries=1, gradients=1)
    if name == "noise":
        return Counts(queries=1 + restarts)
    if name == "square":
        return Counts(queries=1 + restarts * steps)
    if name == "pgd":
        return Counts(queries=1 + restarts, gradients=restarts * steps)
    is_targeted = "targets" in filled
    runs = restarts * (min(filled["targets"], classes - 1) if is_targeted else 1)
    if name == "fab-t":  # a step is tried; then two ends, the final search and the edge of the ball
        return Counts(queries=8 + runs * steps, gradients=runs * steps)
    return Counts(queries=1 + is_targeted, gradients=runs * (steps + 1))


def seconds_per_unit(victim: Victim, settings: Settings, x: NDArray[np.float32]) -> float:
    """Measure a few steps of an attack; return seconds for a forward pass or gradient of a sample, overhead included.

    Args:
        victim: The classifier.
        settings: The attack.
        x: (N, ...) float32 pixels; any will do.
    """
    steps = 2 if settings.as_dict()["max_iter"] else None
    short = replace(settings, max_iter=steps, restarts=None, early_stop=False)
    y = np.maximum(victim.predict(x), 0)  # any label works: the probe is noise and may score NaN
    run_attack(victim, x[:1], y[:1], settings=short)  # builds the sessions
    before, start = victim.counts.total, time.perf_counter()
    run_attack(victim, x, y, settings=short)
    return (time.perf_counter() - start) / max(victim.counts.total - before, 1)
