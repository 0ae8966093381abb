"""What is to be ended with a run, and what Ray's errors mean in one line."""

from __future__ import annotations

from collections.abc import Callable
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
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return "its node ran short of memory"
    if isinstance(error, ray.exceptions.NodeDiedError) or "its node has died" in text or "marked dead" in text:
        return "its node is gone"
    return "its process ended"


def disconnected(error: BaseException) -> WorkerError:
    """Return what to say where the cluster itself does not answer any more."""
    return WorkerError(f"the connection to the Ray cluster is lost: {_last_line(str(error)) or 'no answer'}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
