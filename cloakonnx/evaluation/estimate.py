"""How long an evaluation takes at most: a few steps of each attack, measured, times what a robust sample costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.cost import most_work, seconds_per_unit
from cloakonnx.attacks.victim import Victim
from cloakonnx.text import spoken

_PROBE = 0.2
"""Seconds that a forward pass of the probe may take; it has as many samples as that allows, up to a batch."""


@dataclass(frozen=True)
class Estimate:
    """What an evaluation takes if every sample withstands every attack; most fall early, so it takes less.

    Attributes:
        seconds_per_sample: At all eps, for both models and the random masks.
        samples: How many; None where only the end will tell.
        eps: How many radii.
        random_masks: How many.
        sanity: Whether sanity checks follow, whose time is not in it.
    """

    seconds_per_sample: float
    samples: int | None
    eps: int
    random_masks: int
    sanity: bool = False

    @property
    def seconds(self) -> float | None:
        """For all samples."""
        return None if self.samples is None else self.seconds_per_sample * self.samples

    def __str__(self) -> str:
        """Return the estimate as a line."""
        masks = f", 2 models and {self.random_masks} random masks" if self.random_masks else ", 2 models"
        masks += "; the sanity checks come on top" if self.sanity else ""
        seconds = self.seconds
        if seconds is None:
            return f"about {spoken(self.seconds_per_sample)} a sample at most: {self.eps} eps{masks}"
        return f"about {spoken(seconds)} at most: {self.samples} samples, {self.eps} eps{masks}"


def seconds_per_sample(
    plans: Mapping[Victim, Sequence[Sequence[Attack]]],
    controls: Sequence[Attack],
    *,
    random_masks: int,
    shape: tuple[int, ...],
    batch_size: int,
) -> float:
    """Measure what one sample takes at most.

    The probe runs on noise and keeps nothing, so it changes no result.

    Args:
        plans: The attacks of each eps on each model, the hardened one first.
        controls: The control attack at each eps; a random mask takes as long as the first model.
        random_masks: How many.
        shape: Of a sample in the model's layout.
        batch_size: Samples at a time.
    """
    total = 0.0
    for index, (victim, on_victim) in enumerate(plans.items()):
        x = np.random.default_rng(0).uniform(*victim.bounds, (batch_size, *shape)).astype(np.float32)
        victim.logits(x[:1])  # the first run is slow
        one = _timed(partial(victim.logits, x[:1]))
        x = x[: max(int(_PROBE / one), 1)]
        forward = _timed(partial(victim.logits, x)) / len(x)
        rates: dict[str, float] = {}
        for attacks, control in zip(on_victim, controls, strict=True):
            times = 1 + (random_masks if index == 0 else 0)
            for settings, often in [*((each, 1) for each in attacks), (control, times)]:
                if settings.name not in rates:
                    rates[settings.name] = seconds_per_unit(victim, settings, x)
                total += often * most_work(settings, victim).total * rates[settings.name]
            total += (len(attacks) + 3) * forward  # replayed inputs, noise
    return total


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
