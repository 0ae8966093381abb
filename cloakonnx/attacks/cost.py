"""The most forward passes and gradients that an attack takes, and how long they take here."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.victim import Victim


def most_work(attack: Attack, victim: Victim) -> Counts:
    """Return the forward passes and gradients that one sample takes if it withstands everything.

    Early stopping can only save some of it.
    """
    counts = attack.cost(victim.classes)
    return Counts(counts.total, counts.gradients) if victim.blocked else counts


def seconds_of(run: Callable[[], object]) -> float:
    """Return the seconds that a second run takes; the first one is slow."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def seconds_per_unit(victim: Victim, attack: Attack, x: NDArray[np.float32]) -> float:
    """Measure a few steps of an attack; return seconds for a forward pass or gradient of a sample, overhead included.

    Args:
        victim: The classifier.
        attack: The attack.
        x: (N, ...) float32 pixels; any will do.
    """
    steps = attack.settings().get("max_iter")
    least = 2 if steps is None else max(2, steps.metadata["least"] or 0)
    short = attack.with_settings(max_iter=least, restarts=1, early_stop=False)
    y = np.maximum(victim.predict(x), 0)  # any label works: the probe is noise and may score NaN
    short.run(victim, x[:1], y[:1])  # builds the sessions
    before, start = victim.counts.total, time.perf_counter()
    short.run(victim, x, y)
    return (time.perf_counter() - start) / max(victim.counts.total - before, 1)
