"""How far ahead batches are read while some are under way, and which error is raised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from cloakonnx.engine.batches import B
from cloakonnx.engine.schedule import AHEAD, QUEUED


class Ahead(Generic[B]):
    """The batches of one run that are under way.

    Args:
        batches: Numbers and batches; None for one that needs no work.
        workers: How many batches are handled at a time.
    """

    def __init__(self, batches: Iterable[tuple[int, B | None]], workers: int) -> None:
        self.active: dict[int, B] = {}
        self._coming = iter(batches)
        self._workers = workers
        self._failed: tuple[int, BaseException] | None = None
        self._following, self._more = 0, True

    def read(self) -> Iterator[tuple[int, B | None]]:
        """Yield the next batches, as many as may be under way; those with work to do are :attr:`active` from now on."""
        while self._more and len(self.active) < QUEUED * self._workers:
            if self.active and self._following - min(self.active) >= AHEAD * self._workers:
                return
            try:
                number, batch = next(self._coming)
            except StopIteration:
                self._more = False
                return
            except Exception as error:  # raised in its turn, as if batches were handled one by one
                self.fail(self._following, error)
                return
            self._following = number + 1
            if batch is not None:
                self.active[number] = batch
            yield number, batch

    def is_over(self) -> bool:
        """Return whether nothing is under way any more that comes before an error, or at all.

        Raises:
            Exception: the first error, once everything before it is done.
        """
        if self._failed is not None and not any(number < self._failed[0] for number in self.active):
            raise self._failed[1]
        return not self.active

    def end(self, number: int) -> B:
        """Return a batch, which is done."""
        return self.active.pop(number)

    def fail(self, number: int, error: BaseException) -> None:
        """Take note that a batch has failed; no more are read."""
        self.active.pop(number, None)
        self._more = False
        if self._failed is None or number < self._failed[0]:
            self._failed = number, error
