"""What is to be ended with a run, and what Ray's errors mean in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cloakonnx.errors import WorkerError


@dataclass(eq=False)
class Ends:
    """What is there to be ended.

    Attributes:
        run: Name of what was started together.
        actors: The worker processes.
        nodes: Ids of the nodes that models were written on.
    """

    run: str
    actors: list[Any] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)


def remover(folder: str) -> Callable[[], None]:
    """Return what removes a folder; it travels as code, for it is a function inside a function."""

    def remove() -> None:
        import shutil  # noqa: PLC0415 - a function that travels imports what it needs

        shutil.rmtree(folder, ignore_errors=True)

    return remove


def why(error: Exception, ray: Any) -> str:
    """Return in a few words why a worker is gone.

    Args:
        error: What Ray has raised.
        ray: The module.

    Raises:
        WorkerError: it is not gone, or none would fare better: it can't read what it was sent, or has no cloakonnx.
    """
    text = str(error)
    if "ModuleNotFoundError" in text and "cloakonnx" in text:
        raise WorkerError("a Ray node has no cloakonnx, or another version: install the same version on every node")
    if isinstance(error, ray.exceptions.RayTaskError) or "creation task" in text:
        raise WorkerError(f"a Ray worker fails: {_last_line(text)}")
    if isinstance(error, ray.exceptions.OutOfDiskError):
        return "the disk of its node is full"
    if isinstance(error, ray.exceptions.ObjectLostError):
        return "what it was sent did not arrive"
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return "its node ran short of memory"
    if isinstance(error, ray.exceptions.NodeDiedError) or "its node has died" in text or "marked dead" in text:
        return "its node is gone"
    return "its process ended"


@contextmanager
def sending(ray: Any) -> Iterator[None]:
    """Raise WorkerError where what is sent to workers finds no room on this machine."""
    try:
        yield
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError):
        raise WorkerError(
            "no room on this machine for what is sent to workers: Ray's object store and the disk below it are full "
            "(choose a smaller {batch_size}, put the data where workers see it, or set RAY_TMPDIR to a larger disk)",
            parameter="batch_size",
        ) from None


def disconnected(error: BaseException) -> WorkerError:
    """Return what to say where the cluster itself does not answer any more."""
    return WorkerError(f"the connection to the Ray cluster is lost: {_last_line(str(error)) or 'no answer'}")


def in_short(text: str) -> str:
    """Return an error's text as one line; of a traceback in it the last line."""
    before, traceback, after = text.partition("Traceback (most recent call last)")
    last = f" {_last_line(after)}" if traceback else ""
    return " ".join(before.split()) + last


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
