"""What runs in a worker process: the works that it has, one batch at a time."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloakonnx.data.located import Located
from cloakonnx.engine.cluster._shipping import is_here, placed, unpacked
from cloakonnx.engine.cluster._versions import Versions, versions
from cloakonnx.errors import CloakError

SHARE = "share"
"""The group of calls that are answered beside the batch that is being handled."""


@dataclass(frozen=True)
class Hello:
    """What a worker says before it gets batches.

    Attributes:
        node: Address of the node that it runs on.
        node_id: What Ray knows the node by.
        versions: That it has.
        lacking: Places of the models in :attr:`Packed.files` whose files are not on its node.
    """

    node: str
    node_id: str
    versions: Versions
    lacking: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What became of a batch or of the work's arrival.

    Attributes:
        result: What there is to show.
        error: The error that was raised.
        is_unseen: Whether nothing was done: the files that the batch comes from are not here, or they are others.
    """

    result: Any = None
    error: Exception | None = None
    is_unseen: bool = False


class Worker:
    """Handles batches, of one work or of several by turns; a work's sessions are made with its first batch.

    Args:
        run: Name of the run.
    """

    def __init__(self, run: str) -> None:
        import ray  # noqa: PLC0415 - a worker has it

        self._ray = ray
        self._run = run
        self._works: dict[str, Any] = {}
        self._handlers: dict[str, Callable[[Any, Callable[[float], None]], Any]] = {}
        self._share: tuple[str, int, float] | None = None

    def take(self, job: str, references: tuple[Any], stored: Mapping[int, Mapping[str, Any]]) -> Report:
        """Take a work, and report what is lacking.

        Args:
            job: What the work is known by.
            references: Reference to the packed work; in a tuple, for Ray would put the work itself in its place.
            stored: What was lacking, by its place: references to the files' bytes, by location.
        """
        try:
            packed = self._ray.get(references[0])
            files, lacking = list(packed.files), []
            for place, file in enumerate(packed.files):
                if place in stored:
                    files[place] = placed(file, stored[place], self._ray.get, run=self._run)
                elif not is_here(file):
                    lacking.append(place)
            if not lacking:
                self._works[job] = unpacked(packed.content, files)
            where = self._ray.util.get_node_ip_address(), self._ray.get_runtime_context().get_node_id()
            return Report(result=Hello(*where, versions(), tuple(lacking)))
        except Exception as error:  # whatever it is, the driver raises it
            return Report(error=sendable(error))

    def handle(self, job: str, number: int, batch: Any) -> Report:
        """Return the result of a batch, or its error; what it lacks is read from the files that it comes from."""
        try:
            if isinstance(batch, Located):
                batch = batch.whole()
                if batch is None:
                    return Report(is_unseen=True)
            if job not in self._handlers:
                self._handlers[job] = self._works[job].start()
            return Report(result=self._handlers[job](batch, lambda share: self._at(job, number, share)))
        except Exception as error:  # whatever it is, the driver raises it
            return Report(error=sendable(error))
        finally:
            self._share = None

    def share(self) -> tuple[str, int, float] | None:
        """Return the batch that is being handled, by its work and number, and the share of it that is done."""
        return self._share

    def drop(self, job: str) -> None:
        """Forget a work and its sessions."""
        self._works.pop(job, None)
        self._handlers.pop(job, None)

    def _at(self, job: str, number: int, share: float) -> None:
        self._share = job, number, share


def actor_class(ray: Any) -> type[Worker]:
    """Return the class of the workers, which answer how far they are while they are at a batch.

    The method has its group, because Ray's client takes none with a call. The class travels as code, because nodes that
    import the one of this module get it without the group.

    Args:
        ray: The module.
    """
    base = Worker

    class Answering(base):  # type: ignore[misc, valid-type]
        """Handles batches, and answers questions in a group of its own (:data:`SHARE`)."""

        @ray.method(concurrency_group=SHARE)  # type: ignore[untyped-decorator]
        def share(self) -> tuple[str, int, float] | None:
            """Return what the worker says."""
            return base.share(self)

    Answering.__name__, Answering.__qualname__ = base.__name__, base.__qualname__  # what Ray calls the process
    return Answering


def sendable(error: Exception) -> Exception:
    """Return an error that can be pickled, or one that says the same; others than ours note where they arose."""
    lines = "".join(traceback.format_exception(error)).rstrip()
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling runs the error's own code
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, CloakError):
        error.add_note(f"in a worker process:\n{lines}")
    return error
