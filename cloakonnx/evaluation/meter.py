"""Tells how much of a batch's work is done, while the attacks run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloakonnx.attacks import Settings, Victim, most_work


class Meter:
    """Counts work as if every sample withstood every attack; where samples fall early, it leaps ahead.

    Args:
        total: The work of a batch, a sample (:func:`most_work`).
        on_share: Called with the share that is done, below 1: a batch counts as done once it is kept.
    """

    def __init__(self, total: int, on_share: Callable[[float], None]) -> None:
        self._total, self._on_share = total, on_share
        self.done = 0

    @contextmanager
    def attack(self, victim: Victim, settings: Settings, samples: int) -> Iterator[None]:
        """Follow an attack on so many samples by what it asks the victim."""
        most = most_work(settings, victim).total
        before = victim.counts.total

        def watch() -> None:
            self._tell(min((victim.counts.total - before) / samples, most))

        victim.on_answer = watch
        try:
            yield
        finally:
            victim.on_answer = lambda: None
        self.done += most
        self._tell(0)

    def _tell(self, more: float) -> None:
        self._on_share((self.done + more) / (self._total + 1))
