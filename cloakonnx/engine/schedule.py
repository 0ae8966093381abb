"""How long batches take on many workers: list scheduling as the engines do it, played through event by event."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import OptionError

QUEUED = 2
"""Batches that a worker has at most: the one it handles, and the next one."""

AHEAD = 4
"""Batches that may be under way or finished behind the first unfinished one, for each worker: it bounds memory."""


@dataclass(frozen=True)
class Overheads:
    """What a run costs beside its batches.

    Attributes:
        dispatch: Seconds of the driver for each batch: it is read, sent, joined and kept, one after the other.
        start: Seconds until a new worker can handle its first batch.
        failures: How often a node dies, per node and hour; another takes its place.
        per_node: Workers of a node.
    """

    dispatch: float = 0.0
    start: float = 0.0
    failures: float = 0.0
    per_node: int = 1


@dataclass(frozen=True, eq=False)
class Schedule:
    """A run that was played through.

    Attributes:
        seconds: From its start to its last batch's end.
        work: Seconds of all batches, once each.
        lost: Seconds of batches that a failure cut off.
        failures: How many nodes died.
        tails: (workers,) seconds at the end in which each worker had nothing more to do.
    """

    seconds: float
    work: float
    lost: float
    failures: int
    tails: NDArray[np.float64] = field(repr=False)

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that went into batches that count."""
        return self.work / (len(self.tails) * self.seconds) if self.seconds else 1.0


def schedule(times: Sequence[float], workers: int, *, overheads: Overheads | None = None, seed: int = 0) -> Schedule:
    """Return how batches fare on a number of workers.

    The driver gives each batch in turn to a worker that has fewest, at most two at a time, and waits where one batch
    is so late that four times as many as there are workers have been started behind it. A node that dies loses what its
    workers have, which is given again before anything else.

    Args:
        times: Seconds of each batch, in order.
        workers: How many there are, of one kind.
        overheads: What the run costs beside its batches; nothing where None.
        seed: Of the failures.

    Raises:
        OptionError: a number that makes no sense, or failures so often that a batch seldom ends.

    Examples:
        >>> from cloakonnx.engine.schedule import Overheads, schedule
        >>> schedule([1.0] * 10, workers=4).seconds
        3.0
        >>> schedule([1.0] * 10, workers=4, overheads=Overheads(start=2.0)).seconds
        5.0
    """
    known = overheads or Overheads()
    if workers < 1 or known.per_node < 1:
        raise OptionError(f"{{workers}} {min(workers, known.per_node)} must be at least 1", parameter="workers")
    if min(known.dispatch, known.start, known.failures, *times, 0.0) < 0:
        raise OptionError("times and rates of failures must be 0 or more")
    longest = (max(times, default=0.0) + known.start) / 3600
    if known.failures * longest > _MOST:
        raise OptionError(
            f"nodes that die {known.failures:g} times an hour seldom end a batch of {longest:.2g} hours; make batches "
            "smaller ({batch_size})",
            parameter="batch_size",
        )
    return _Run(times, workers, known, seed).played()


_MOST = 5.0
"""Failures in the time of the longest batch, from which on it would run again and again."""


@dataclass
class _Worker:
    """What a worker has.

    Attributes:
        given: Numbers of its batches, first one first.
        began: When it began the first one; None where it has none that has arrived.
        life: Counts its processes: events of an earlier one are void.
        is_new: Whether it has to start yet.
        last: When its last batch ended.
    """

    given: deque[int] = field(default_factory=deque)
    arrived: int = 0
    began: float | None = None
    life: int = 0
    is_new: bool = True
    last: float = 0.0


_ARRIVES, _ENDS, _DIES = range(3)


class _Run:
    """The events of a run."""

    def __init__(self, times: Sequence[float], workers: int, known: Overheads, seed: int) -> None:
        self._times, self._known = times, known
        self._workers = [_Worker() for _ in range(workers)]
        self._rng = np.random.default_rng(seed)
        self._events: list[tuple[float, int, int, int, int]] = []
        self._count = 0
        self._by_load: tuple[list[int], ...] = (list(range(workers)), [])
        self._again: list[int] = []
        self._following = 0
        self._active: list[int] = []
        self._done: set[int] = set()
        self._under_way = 0
        self._driver = 0.0
        self._lost, self._deaths = 0.0, 0

    def played(self) -> Schedule:
        """Play it through."""
        self._plan_death(0.0)
        self._give(0.0)
        end = 0.0
        while len(self._done) < len(self._times):
            now, _, kind, index, life = heapq.heappop(self._events)
            if kind == _DIES:
                self._die(index, now)
                self._plan_death(now)
            elif life != self._workers[index].life:
                continue
            elif kind == _ARRIVES:
                self._workers[index].arrived += 1
                self._begin(index, now)
            else:
                self._end(index, now)
                end = now
            self._give(now)
        tails = np.array([end - worker.last for worker in self._workers])
        return Schedule(end, float(math.fsum(self._times)), self._lost, self._deaths, tails)

    def _push(self, when: float, kind: int, index: int) -> None:
        self._count += 1
        life = 0 if kind == _DIES else self._workers[index].life
        heapq.heappush(self._events, (when, self._count, kind, index, life))

    def _give(self, now: float) -> None:
        """Have the driver give batches as long as it may."""
        while self._again or self._may_go_on():
            index = self._least_loaded()
            if index is None:
                return
            if self._again:
                number = heapq.heappop(self._again)
            else:
                number, self._following = self._following, self._following + 1
                heapq.heappush(self._active, number)
            self._under_way += 1
            self._workers[index].given.append(number)
            self._loaded(index)
            self._driver = max(self._driver, now) + self._known.dispatch
            self._push(self._driver, _ARRIVES, index)

    def _may_go_on(self) -> bool:
        while self._active and self._active[0] in self._done:
            heapq.heappop(self._active)
        behind = self._following - self._active[0] if self._active else 0
        workers = len(self._workers)
        return self._following < len(self._times) and self._under_way < QUEUED * workers and behind < AHEAD * workers

    def _least_loaded(self) -> int | None:
        for load, waiting in enumerate(self._by_load):
            while waiting:
                index = heapq.heappop(waiting)
                if len(self._workers[index].given) == load:
                    return index
        return None

    def _loaded(self, index: int) -> None:
        """Note how many batches a worker has, where it could take another."""
        load = len(self._workers[index].given)
        if load < QUEUED:
            heapq.heappush(self._by_load[load], index)

    def _begin(self, index: int, now: float) -> None:
        worker = self._workers[index]
        if worker.began is not None or not worker.arrived:
            return
        worker.began = now
        start, worker.is_new = (self._known.start if worker.is_new else 0.0), False
        self._push(now + start + self._times[worker.given[0]], _ENDS, index)

    def _end(self, index: int, now: float) -> None:
        worker = self._workers[index]
        self._done.add(worker.given.popleft())
        self._under_way -= 1
        worker.arrived -= 1
        worker.began, worker.last = None, now
        self._loaded(index)
        self._begin(index, now)

    def _plan_death(self, now: float) -> None:
        if self._known.failures:
            nodes = math.ceil(len(self._workers) / self._known.per_node)
            wait = self._rng.exponential(3600 / (self._known.failures * nodes))
            self._push(now + wait, _DIES, int(self._rng.integers(nodes)))

    def _die(self, node: int, now: float) -> None:
        """Have new workers take the places of a node's; what they had is given again."""
        self._deaths += 1
        first = node * self._known.per_node
        for index in range(first, min(first + self._known.per_node, len(self._workers))):
            worker = self._workers[index]
            if worker.began is not None:
                self._lost += now - worker.began
            for number in worker.given:
                heapq.heappush(self._again, number)
            self._under_way -= len(worker.given)
            self._workers[index] = _Worker(life=worker.life + 1, last=worker.last)
            self._loaded(index)
