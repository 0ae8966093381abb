"""The order of batches on a crew of workers: how many are ahead, what is run again, which error is raised."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from cloakonnx.engine.ahead import Ahead
from cloakonnx.engine.batches import B, R
from cloakonnx.engine.cluster._crew import Crew, Job, Lost, Share
from cloakonnx.errors import WorkerError

_TRIES = 3
"""Workers that a batch may end."""


class RayPool(Generic[B, R]):
    """Workers of Ray with one work.

    Args:
        crew: The workers.
        job: The work.
        workers: How many there may be.
    """

    def __init__(self, crew: Crew, job: Job, workers: int) -> None:
        self._crew, self._job, self._workers = crew, job, workers

    def run(
        self, batches: Iterable[tuple[int, B | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R | None]]:
        """Yield each batch's number and result as they are finished; batches whose worker is lost are run again.

        Raises:
            WorkerError: a batch has ended three workers, or there are no workers any more.
        """
        ahead = Ahead(batches, self._workers)
        waiting: deque[int] = deque()
        ended: Counter[int] = Counter()
        while True:
            for number, batch in ahead.read():
                if batch is None:
                    yield number, None
                else:
                    waiting.append(number)
            if ahead.is_over():
                return
            self._dispatch(ahead, waiting)
            for event in self._crew.events(self._job):
                if isinstance(event, Share):
                    tell(event.number, event.share)
                elif isinstance(event, Lost):
                    ended[event.number] += event.was_handled
                    if ended[event.number] < _TRIES:
                        waiting.appendleft(event.number)
                    else:
                        ahead.fail(event.number, _ends_workers(event, ahead.active[event.number]))
                elif event.report.error is not None:
                    ahead.fail(event.number, event.report.error)
                else:
                    ahead.end(event.number)
                    yield event.number, event.report.result

    def _dispatch(self, ahead: Ahead[B], waiting: deque[int]) -> None:
        """Give waiting batches to workers that have room."""
        self._crew.employ(self._job, len(ahead.active))
        while waiting and self._crew.has_room(self._job):
            number = waiting.popleft()
            self._crew.give(self._job, number, ahead.active[number])


def _ends_workers(lost: Lost, batch: object) -> WorkerError:
    return WorkerError(
        f"batch {lost.number} ({_samples(batch)}) has ended {_TRIES} workers ({lost.reason}): look at the "
        "samples and the memory of the nodes, or choose a smaller {batch_size}",
        parameter="batch_size",
    )


def _samples(batch: object) -> str:
    """Return which samples a batch has, where it knows."""
    size: int = getattr(batch, "size", 0)
    indices = getattr(batch, "indices", None)
    start = getattr(batch, "start", None) if indices is None else indices[0]
    return f"{size} samples" if start is None else f"samples {start} to {start + size - 1}"
