"""The workers of one work, as the driver sees them: who is at what, and what comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

from cloakonnx.engine.batches import B, R, Work
from cloakonnx.engine.cluster._connection import loaded
from cloakonnx.engine.cluster._worker import Worker

_QUEUED = 2
"""Batches that a worker has at most: the one it handles, and the next one."""
_AHEAD = 4
"""Batches that may be under way or finished behind the first unfinished one, for each worker: it bounds memory."""
_EVERY = 1.0
"""Seconds between two questions to a worker about how far it is."""


@contextmanager
def opened(work: Work[B, R], workers: int, *, cpus: int, gpus: float) -> Iterator[RayPool[B, R]]:
    """Give the workers of a work; whatever they have under way is stopped when the block ends."""
    pool = RayPool(work, workers, cpus=cpus, gpus=gpus)
    try:
        yield pool
    finally:
        pool.stop()


@dataclass(eq=False)
class _Actor:
    """A worker process, and the batches that it has been given, first one first."""

    handle: Any
    given: deque[tuple[int, Any]] = field(default_factory=deque)
    """Numbers, and references to what comes back."""


class RayPool(Generic[B, R]):
    """Workers of Ray: each has the work, which is stored once a node."""

    def __init__(self, work: Work[B, R], workers: int, *, cpus: int, gpus: float) -> None:
        self._ray = loaded()
        self._workers = workers
        self._work = self._ray.put(work)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "concurrency_groups": {"share": 1}}
        self._kind = self._ray.remote(**options)(Worker)
        self._actors: list[_Actor] = []
        self._asked: dict[Any, _Actor] = {}

    def run(
        self, batches: Iterable[tuple[int, B | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R | None]]:
        """Yield each batch's number and result as they are finished."""
        coming = iter(batches)
        active: set[int] = set()
        failed: tuple[int, BaseException] | None = None
        following, more = 0, True
        while True:
            while more and len(active) < _QUEUED * self._workers:
                if active and following - min(active) >= _AHEAD * self._workers:
                    break
                try:
                    number, batch = next(coming)
                except StopIteration:
                    more = False
                    break
                except Exception as error:  # raised in its turn, as if batches were handled one by one
                    failed, more = (following, error), False
                    break
                following = number + 1
                if batch is None:
                    yield number, None
                    continue
                active.add(number)
                self._give(number, batch)
            if not active or (failed is not None and failed[0] < min(active)):
                break
            for number, report in self._next(tell):
                active.discard(number)
                if report.error is None:
                    yield number, report.result
                    continue
                more = False
                if failed is None or number < failed[0]:
                    failed = number, report.error
        if failed is not None:
            raise failed[1]

    def stop(self) -> None:
        """End all workers, whatever they are at."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()

    def _give(self, number: int, batch: Any) -> None:
        idle = min(self._actors, key=lambda actor: len(actor.given), default=None)
        if idle is None or (idle.given and len(self._actors) < self._workers):
            idle = _Actor(self._kind.remote([self._work]))
            self._actors.append(idle)
        idle.given.append((number, idle.handle.handle.remote(number, batch)))

    def _next(self, tell: Callable[[int, float], None]) -> Iterator[tuple[int, Any]]:
        """Yield what has come back, after a wait at most as long as between two questions about progress."""
        owners = {reference: actor for actor in self._actors for _, reference in actor.given}
        done, _ = self._ray.wait(list(owners), num_returns=1, timeout=_EVERY)
        for reference in done:
            actor = owners[reference]
            number = next(n for n, each in actor.given if each == reference)
            report = self._ray.get(reference)
            actor.given.remove((number, reference))
            yield number, report
        self._ask(tell)

    def _ask(self, tell: Callable[[int, float], None]) -> None:
        """Ask busy workers how far they are, one question at a time, and pass on what the last one has brought."""
        if self._asked:
            answered, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for reference in answered:
                actor = self._asked.pop(reference)
                found = self._ray.get(reference)
                if found is not None and any(number == found[0] for number, _ in actor.given):
                    tell(*found)
            return
        if time.monotonic() - self._last_asked >= _EVERY:
            self._last_asked = time.monotonic()
            for actor in self._actors:
                if actor.given:
                    self._asked[actor.handle.share.options(concurrency_group="share").remote()] = actor

    _last_asked = 0.0
