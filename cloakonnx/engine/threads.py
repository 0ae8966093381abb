"""Several batches at a time in one process: each thread has sessions of its own with one intra-op thread each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple

from cloakonnx.engine.ahead import Ahead
from cloakonnx.engine.batches import B, Pool, R, Work
from cloakonnx.errors import OptionError


@dataclass(frozen=True)
class Threads:
    """Handles some batches at a time, each in a thread of its own.

    ONNX Runtime releases the interpreter lock while a session runs. Threads of one session wait for each other after
    every node; sessions of one thread each never do, so that small nets and busy machines gain.

    Attributes:
        workers: How many batches are handled at a time.
        threads: Intra-op threads of each session.

    Raises:
        OptionError: a number below 1.
    """

    workers: int
    threads: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.workers < 1:
            raise OptionError(f"{{workers}} {self.workers} must be at least 1", parameter="workers")
        if self.threads < 1:
            raise OptionError(f"{self.threads} threads for each session are too few: at least 1")

    def __str__(self) -> str:
        """Return the engine in words."""
        return f"{self.workers} batches at a time, each in sessions of {self.threads} intra-op thread(s)"

    @contextmanager
    def open(self, work: Work[B, R]) -> Iterator[Pool[B, R]]:
        """Give the threads, which start with the first batches; callbacks stay in the calling thread."""
        pool = _Pool(work, self.workers)
        try:
            yield pool
        finally:
            pool.stop()


class _Message(NamedTuple):
    """What a worker reports of a batch: a share that is done, a result, or an error."""

    number: int
    share: float | None = None
    result: Any = None
    error: BaseException | None = None


class _Stopped(BaseException):
    """Ends the batch that a worker is at, once nobody waits for it; no handler of an attack takes it."""


class _Pool(Generic[B, R]):
    """The threads, what they are to do and what they report."""

    def __init__(self, work: Work[B, R], workers: int) -> None:
        self._work, self._workers = work, workers
        self._tasks: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def run(
        self, batches: Iterable[tuple[int, B | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R | None]]:
        """Yield each batch's number and result as they are finished."""
        ahead = Ahead(batches, self._workers)
        while True:
            for number, batch in ahead.read():
                if batch is None:
                    yield number, None
                else:
                    self._give(number, batch)
            if ahead.is_over():
                return
            report = self._reports.get()
            if report.error is not None:
                ahead.fail(report.number, report.error)
            elif report.share is not None:
                tell(report.number, report.share)
            else:
                ahead.end(report.number)
                yield report.number, report.result

    def stop(self) -> None:
        """End all threads: each stops at the next report of its batch, or when that is done."""
        self._ended.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread.ident is not None:  # an interrupt may come before it was started
                thread.join()

    def _give(self, number: int, batch: Any) -> None:
        """Queue a batch; there are no more threads than batches."""
        if len(self._threads) < self._workers:
            thread = threading.Thread(target=self._serve, args=(len(self._threads),), daemon=True)
            self._threads.append(thread)
            thread.start()
        self._tasks.put((number, batch))

    def _serve(self, worker: int) -> None:
        handle: Callable[[Any, Callable[[float], None]], Any] | None = None
        while (task := self._tasks.get()) is not None and not self._ended.is_set():
            number, batch = task
            try:
                if handle is None:
                    handle = self._work.start(worker)
                self._reports.put(_Message(number, result=handle(batch, partial(self._tell, number))))
            except _Stopped:
                return
            except BaseException as error:  # whatever it is, the calling thread raises it
                self._reports.put(_Message(number, error=error))

    def _tell(self, number: int, share: float) -> None:
        if self._ended.is_set():
            raise _Stopped
        self._reports.put(_Message(number, share=share))
