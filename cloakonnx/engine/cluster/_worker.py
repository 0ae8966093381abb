"""What runs in a worker process: one work, one batch at a time."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """What became of a batch: its result, or the error that it raised."""

    result: Any = None
    error: Exception | None = None


class Worker:
    """Handles batches of one work; its sessions are made with the first one.

    Args:
        work: Reference to the work, in a list: Ray would put the work itself in its place.
    """

    def __init__(self, work: Sequence[Any]) -> None:
        self._reference = work[0]
        self._handle: Callable[[Any, Callable[[float], None]], Any] | None = None
        self._share: tuple[int, float] | None = None

    def handle(self, number: int, batch: Any) -> Report:
        """Return the result of a batch, or its error."""
        try:
            return Report(result=self._handler()(batch, lambda share: self._at(number, share)))
        except Exception as error:  # whatever it is, the driver raises it
            return Report(error=sendable(error))
        finally:
            self._share = None

    def share(self) -> tuple[int, float] | None:
        """Return the number of the batch that is being handled, and the share of it that is done."""
        return self._share

    def _handler(self) -> Callable[[Any, Callable[[float], None]], Any]:
        if self._handle is None:
            import ray  # noqa: PLC0415 - a worker has it

            self._handle = ray.get(self._reference).start()
        return self._handle

    def _at(self, number: int, share: float) -> None:
        self._share = number, share


def sendable(error: Exception) -> Exception:
    """Return an error as it comes out of a pickle, or one that says the same where it can't be pickled."""
    error.__traceback__, error.__cause__, error.__context__, lines = (
        None,
        None,
        None,
        "".join(traceback.format_exception(error)),
    )
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling runs the error's own code
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker process:\n{lines}")
    return error
