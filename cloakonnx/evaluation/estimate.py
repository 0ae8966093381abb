"""How long an evaluation takes: at most, if every sample withstands everything, and as a short attack leads to expect.

A few steps of each attack are timed. The short attack, made on the first samples, says how many fall early.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.cost import most_work, seconds_per_unit
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.engine.schedule import schedule
from cloakonnx.text import spoken

WORTH_IT = 10.0
"""Seconds from which on a run is worth an estimate; a shorter one gets no short attack for it."""

_PROBE = 0.2
"""Seconds that a forward pass of the probe may take; it has as many samples as that allows, up to a batch."""

_SHORT = 20.0
"""Seconds that the short attacks may take in all, if every sample withstands them."""

_LEAST_TRIED, MOST_TRIED = 8, 64
"""Samples that are tried, whatever it takes, and at most."""


@dataclass(frozen=True)
class Tried:
    """What short attacks (PGD-20, or Square without gradients) found on the first samples.

    Attributes:
        samples: How many were tried.
        right: The share of them that the model gets right.
        standing: The share that withstands, over all models and eps.
        shallow: Seconds of any sample in one worker.
        deep: Seconds that one which stands everywhere takes beside these.
        what: What was tried, in words.
    """

    samples: int
    right: float
    standing: float
    shallow: float
    deep: float
    what: str = "a short attack"

    def __str__(self) -> str:
        """Return what was found in words."""
        return (
            f"of the first {self.samples} samples {self.right:.0%} are right, and {self.standing:.0%} withstand "
            f"{self.what}"
        )


@dataclass(frozen=True)
class Estimate:
    """What an evaluation takes if every sample withstands every attack, and what it is expected to take.

    Attributes:
        seconds_per_sample: At most, in one worker, in one round, at all eps, for all models and the random masks.
        samples: How many; None where only the end will tell.
        eps: How many radii; 0 where nothing is attacked.
        random_masks: How many.
        sanity: Whether sanity checks follow, whose time is not in it.
        models: How many models are attacked.
        batch_size: Samples at a time.
        workers: How many batches are handled at a time.
        tried: What short attacks found; None where it was not measured.
        rounds: How often the samples are attacked: once for each amount of a sweep.
        curve: Amounts of a sweep's curve, whose time is in that of the samples; 0 without one.

    Examples:
        >>> from cloakonnx.evaluation.estimate import Estimate, Tried
        >>> found = Estimate(2.0, 640, eps=1, random_masks=0, tried=Tried(64, 0.9, 0.25, shallow=0.1, deep=1.6))
        >>> print(found)
        about 5.3 min, 21 min at most: 640 samples, 1 eps, 2 models; of the first 64 samples 90% are right, and 25% \
withstand a short attack
    """

    seconds_per_sample: float
    samples: int | None
    eps: int
    random_masks: int
    sanity: bool = False
    models: int = 2
    batch_size: int = 64
    workers: int = 1
    tried: Tried | None = None
    rounds: int = 1
    curve: int = 0

    @property
    def seconds(self) -> float | None:
        """At most, for all samples on the workers; None where nobody knows how many samples there are."""
        return None if self.samples is None else self.at_most(self.workers)

    @property
    def expected_seconds(self) -> float | None:
        """As the short attacks lead to expect; None where they were not made or samples are not counted."""
        return None if self.samples is None or self.tried is None else self.expected(self.workers)

    @property
    def batches(self) -> int:
        """How many batches there are; more workers find nothing to do."""
        assert self.samples is not None  # asked for where samples are counted
        return self.rounds * math.ceil(self.samples / self.batch_size)

    @property
    def cut(self) -> str:
        """How the work is cut, in words."""
        return f"{self.batches} batch{'es' if self.batches > 1 else ''} of {self.batch_size}"

    @property
    def most_workers(self) -> int:
        """How many workers find something to do."""
        return self.batches

    @property
    def advice(self) -> str:
        """What more workers find, and what gives them something to do."""
        return "no batch; a smaller --batch-size makes more"

    def at_most(self, workers: int) -> float:
        """Return the seconds on a number of workers if every sample withstands everything."""
        return schedule([size * self.seconds_per_sample for size in self._sizes], workers).seconds

    def expected(self, workers: int) -> float:
        """Return the seconds on a number of workers as the short attacks lead to expect.

        Batches differ in how many of their samples stand, as chance has it, so that some workers end later.
        """
        assert self.tried is not None  # asked for where it was measured
        sizes, rng = self._sizes, np.random.default_rng(0)
        standing = rng.binomial(sizes, self.tried.standing)
        scale = self.tried.standing * sum(sizes) / max(int(standing.sum()), 1)  # the total is that of the mean
        times = np.array(sizes) * self.tried.shallow + standing * scale * self.tried.deep
        return schedule(times.tolist(), workers).seconds

    def _mean(self, tried: Tried) -> float:
        """Return the seconds that a sample is expected to take in one worker."""
        return self.rounds * (tried.shallow + tried.standing * tried.deep)

    @cached_property
    def _sizes(self) -> list[int]:
        assert self.samples is not None  # asked for where samples are counted
        full, rest = divmod(self.samples, self.batch_size)
        return ([self.batch_size] * full + [rest] * (rest > 0)) * self.rounds

    @property
    def asked(self) -> str:
        """What is attacked, in words."""
        said = f"{self.eps} eps, {self.models} model{'s' if self.models > 1 else ''}" if self.eps else "no attack"
        said += f" and {self.random_masks} random masks" if self.random_masks else ""
        said += f", under {self.rounds} masks" if self.rounds > 1 else ""
        said += f"; a curve of {self.curve} amounts" if self.curve else ""
        said = said if self.samples is None else f"{self.samples} samples, {said}"
        return said + ("; the sanity checks come on top" if self.sanity else "")

    def __str__(self) -> str:
        """Return the estimate as a line."""
        found, most = "", self.seconds
        if self.tried is not None:
            mean = self._mean(self.tried)
            found = f"{spoken(mean if self.expected_seconds is None else self.expected_seconds)}, "
        text = f"{spoken(self.rounds * self.seconds_per_sample)} a sample" if most is None else spoken(most)
        return f"about {found}{text} at most: {self.asked}" + ("" if self.tried is None else f"; {self.tried}")

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON: seconds of one worker, and on the workers."""
        found: dict[str, Any] = {
            "samples": self.samples,
            "batches": None if self.samples is None else self.batches,
            **({"rounds": self.rounds} if self.rounds > 1 else {}),
            "workers": self.workers,
            "at_most": {"seconds_per_sample": self.rounds * self.seconds_per_sample, "seconds": self.seconds},
            "expected": None,
        }
        if self.tried is not None:
            found["expected"] = {
                "seconds_per_sample": self._mean(self.tried),
                "seconds": self.expected_seconds,
                "tried": self.tried.samples,
                "right": self.tried.right,
                "standing": self.tried.standing,
            }
        return found


class Costs:
    """What attacks on some models cost, measured on noise, which keeps nothing: it changes no result.

    Args:
        plans: The attacks of each eps on each model, the hardened one first.
        controls: The control attack at each eps; a random mask takes as long as the first model.
        random_masks: How many.
        shape: Of a sample in the model's layout.
        batch_size: Samples at a time.
    """

    def __init__(
        self,
        plans: Mapping[Victim, Sequence[Sequence[Attack]]],
        controls: Sequence[Attack],
        *,
        random_masks: int,
        shape: tuple[int, ...],
        batch_size: int,
    ) -> None:
        self._plans, self._controls, self._random_masks = plans, controls, random_masks
        self._forward: dict[Victim, float] = {}
        self._rates: dict[Victim, dict[str, float]] = {}
        for victim, on_victim in plans.items():
            x = np.random.default_rng(0).uniform(*victim.bounds, (batch_size, *shape)).astype(np.float32)
            victim.logits(x[:1])  # the first run is slow
            one = _timed(partial(victim.logits, x[:1]))
            x = x[: max(int(_PROBE / one), 1)]
            self._forward[victim] = _timed(partial(victim.logits, x)) / len(x)
            rates = self._rates[victim] = {}
            for settings in (each for attacks in (*on_victim, controls) for each in attacks):
                if settings.name not in rates:
                    rates[settings.name] = seconds_per_unit(victim, settings, x)

    def most(self) -> float:
        """Return the seconds of a sample that withstands everything."""
        total = 0.0
        for victim, on_victim in self._plans.items():
            for attacks, control in zip(on_victim, self._controls, strict=True):
                total += sum(self._seconds(victim, each) for each in attacks)
                total += self._often(victim) * self._seconds(victim, control)
                total += (len(attacks) + 3) * self._forward[victim]  # replayed inputs, noise
        return total

    def tried(self, batch: LabelledBatch) -> Tried:
        """Make the control attack on the first samples, and return what it leads to expect of all.

        A sample that withstands it is taken to withstand the others, one that falls to fall to the first of them, as
        early.
        """
        longest = sum(self._seconds(victim, each) for victim in self._plans for each in self._controls)
        batch = batch.take(np.arange(min(tried_at_most(longest), batch.size)))
        size = batch.size
        shallow, deep, shares, right_of_model = 0.0, 0.0, [], 0.0
        for number, (victim, on_victim) in enumerate(self._plans.items()):
            right = victim.right(batch.x, batch.y)
            right_of_model = right_of_model if number else float(right.mean())
            attacked = batch.take(np.flatnonzero(right))
            shallow += self._forward[victim]
            for attacks, control in zip(on_victim, self._controls, strict=True):
                before, standing = victim.counts.total, 0
                if attacked.size:
                    found = control.run(victim, attacked.x, attacked.y, samples=attacked.indices)
                    standing = int((~found.success).sum())
                used = victim.counts.total - before
                early = max(used - standing * most_work(control, victim).total, 0) / size
                rates, share = self._rates[victim], standing / size
                shallow += early * (rates[attacks[0].name] + self._often(victim) * rates[control.name])
                shallow += attacked.size / size * (len(attacks) + 3) * self._forward[victim]
                full = sum(self._seconds(victim, each) for each in attacks)
                deep += share * (full + self._often(victim) * self._seconds(victim, control))
                shares.append(share)
        standing_share = float(np.mean(shares))
        return Tried(size, right_of_model, standing_share, shallow, deep / standing_share if standing_share else 0.0)

    def _seconds(self, victim: Victim, attack: Attack) -> float:
        return most_work(attack, victim).total * self._rates[victim][attack.name]

    def _often(self, victim: Victim) -> int:
        """How often the control attack is made on a model, or on one that takes as long."""
        return 1 + (self._random_masks if victim is next(iter(self._plans)) else 0)


def tried_at_most(seconds_per_sample: float) -> int:
    """Return how many samples are worth trying, where each takes as long at most."""
    return min(max(int(_SHORT / seconds_per_sample), _LEAST_TRIED), MOST_TRIED)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
