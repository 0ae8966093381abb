"""How long two models take, timed in alternation, so that a busy machine slows both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.declared import fixed_batch
from cloakonnx.runtime.machine import cores, processor_name
from cloakonnx.runtime.session import Session
from cloakonnx.statistics import CONFIDENCE, Interval, median_interval

SESSIONS, ROUNDS, BLOCK_SECONDS = 9, 6, 0.05
MOST_SECONDS = 60.0
"""That a measurement may take which nobody asked for by a gate; it takes about 6 where models take milliseconds."""
_WARM_UP, _LEAST_CALLS, _OPEN_SIDE = 3, 3, 64

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Latency:
    """How long a call of a model and of its baseline takes, by ONNX Runtime alone, on one machine.

    Attributes:
        ratios: The model's time over the baseline's, one for each pair of new sessions.
        seconds: Of a call of the model, the median over pairs.
        baseline_seconds: Of a call of the baseline.
        batch: Samples of a call.
        provider: The execution provider.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.
        processor: Its name, as the system tells it.
        cores: Processors that the process could use.
        shortened: Whether calls took so long that fewer were timed.
    """

    ratios: tuple[float, ...]
    seconds: float
    baseline_seconds: float
    batch: int
    provider: str
    threads: int | None
    processor: str
    cores: int
    shortened: bool = False

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> Interval:
        """The sign test's 95% interval of the median ratio; infinite where there are fewer than 6 ratios."""
        return median_interval(self.ratios, confidence=CONFIDENCE)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; an end of the interval that is not known is null."""
        low, high = (end if math.isfinite(end) else None for end in (self.interval.low, self.interval.high))
        return {
            "ratio": self.ratio,
            "interval": [low, high],
            "ratios": list(self.ratios),
            "model_seconds": self.seconds,
            "baseline_seconds": self.baseline_seconds,
            "batch": self.batch,
            "provider": self.provider,
            "threads": self.threads,
            "processor": self.processor,
            "cores": self.cores,
            "shortened": self.shortened,
        }


@dataclass(frozen=True)
class _Effort:
    """How much is timed with a pair of sessions: rounds, and the calls and seconds of each block."""

    rounds: int
    warm_up: int
    calls: int
    seconds: float

    def cost(self, call: Sequence[float]) -> float:
        """Return about how long it takes, by the seconds of a call of each model."""
        return self.rounds * sum(max(self.seconds, (self.warm_up + self.calls) * each) for each in call)


def measured_latency(
    classifier: Classifier,
    baseline: Classifier,
    *,
    sessions: int = SESSIONS,
    rounds: int = ROUNDS,
    block_seconds: float = BLOCK_SECONDS,
    most_seconds: float | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Latency:
    """Time a model and its baseline in turn.

    Where a session's memory lies matters too, so sessions are made anew, and each pair gives one ratio: the median over
    rounds in which blocks of calls to one and to the other follow each other. Batches have one sample, random with a
    fixed seed, or as many as the model fixes.

    Args:
        classifier: The classifier.
        baseline: What it is compared with; takes the same input.
        sessions: Pairs of sessions.
        rounds: Rounds with each pair.
        block_seconds: How long calls to one model follow each other.
        most_seconds: Seconds that it may take, where models are slow: then there are fewer calls, rounds and in the end
            pairs, one at least. None for no limit.
        on_progress: Called with the number of pairs done.

    Raises:
        InferenceError: ONNX Runtime fails.
        ModelError: the input is ambiguous.
    """
    both = classifier.shipped(), baseline.shipped()
    feeds = [_feed(each) for each in both]
    whole = effort = _Effort(rounds, _WARM_UP, _LEAST_CALLS, block_seconds)
    found: list[_Pair] = []
    start = time.perf_counter()
    for number in range(sessions):
        made = _sessions(both, first=number % 2)
        if number == 0 and most_seconds is not None:
            call = [_block(each, feed, _Effort(1, 0, 1, 0)) for each, feed in zip(made, feeds, strict=True)]
            effort = _within(whole, call, most_seconds / sessions)
        found.append(_pair(made, feeds, effort, first=number % 2))
        on_progress(number + 1)
        expected = (time.perf_counter() - start) * (len(found) + 1) / len(found)
        if most_seconds is not None and expected > most_seconds:
            break
    entry = next(iter(feeds[0].values()))
    return Latency(
        ratios=tuple(each.ratio for each in found),
        seconds=statistics.median(each.seconds[0] for each in found),
        baseline_seconds=statistics.median(each.seconds[1] for each in found),
        batch=entry.shape[classifier.batch_axis],
        provider=classifier.provider.name,
        threads=classifier.provider.threads,
        processor=processor_name(),
        cores=cores(),
        shortened=effort != whole or len(found) < sessions,
    )


@dataclass(frozen=True)
class _Pair:
    """What a pair of sessions gave: the ratio, and the seconds of a call of each."""

    ratio: float
    seconds: tuple[float, float]


def _sessions(both: Sequence[Classifier], *, first: int) -> list[Session]:
    """Return a new session of each model, made in turn: which one is made first changes where its memory lies."""
    made = {
        index: Session(both[index].model.proto, both[index].provider, folder=both[index].model.folder)
        for index in (first, 1 - first)
    }
    return [made[0], made[1]]


def _pair(made: Sequence[Session], feeds: Sequence[Feed], effort: _Effort, *, first: int) -> _Pair:
    """Time a pair of sessions; the one that begins changes from round to round."""
    rounds = []
    for turn in range(effort.rounds):
        begins = (first + turn) % 2
        seconds = {index: _block(made[index], feeds[index], effort) for index in (begins, 1 - begins)}
        rounds.append((seconds[0], seconds[1]))
    return _Pair(
        statistics.median(one / other for one, other in rounds),
        (statistics.median(one for one, _ in rounds), statistics.median(other for _, other in rounds)),
    )


def _within(whole: _Effort, call: Sequence[float], seconds: float) -> _Effort:
    """Return how much of the whole effort with a pair fits into some seconds."""
    if whole.cost(call) <= seconds:
        return whole
    brief = _Effort(1, 1, 1, min(whole.seconds, *call))
    rounds = int(seconds / brief.cost(call))
    return _Effort(min(max(rounds, 1), whole.rounds), brief.warm_up, brief.calls, brief.seconds)


def _feed(classifier: Classifier) -> Feed:
    entry = classifier.model.input(classifier.input_name)
    sides = [side or _OPEN_SIDE for side in classifier.input_shape or ()]
    size = fixed_batch(classifier.model, classifier.input_name, classifier.batch_axis) or 1
    dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    values = np.random.default_rng(0).random((size, *sides), np.float32).astype(dtype)
    return {entry.name: np.moveaxis(values, 0, classifier.batch_axis)}


def _block(session: Session, feed: Feed, effort: _Effort) -> float:
    """Return the median time of a call in seconds; the first few are not counted."""
    for _ in range(effort.warm_up):
        session.run(feed)
    calls: list[float] = []
    end = time.perf_counter() + effort.seconds
    while len(calls) < effort.calls or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(feed)
        calls.append(time.perf_counter() - start)
    return statistics.median(calls)
