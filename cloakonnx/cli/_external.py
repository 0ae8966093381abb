"""Says what becomes of external data: what is copied, and how far the reading is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloakonnx.cli._output import progress, say
from cloakonnx.text import shown

if TYPE_CHECKING:
    from cloakonnx.graph.file.companions import Copy
    from cloakonnx.graph.file.model import Model
    from cloakonnx.graph.masks.harden import Watch

_MUCH = 1 << 26
"""Bytes whose reading is worth a bar."""


@contextmanager
def reading(model: Model) -> Iterator[Callable[[float], None]]:
    """Show how far the reading of a model's external data is, where that is much."""
    if model.external_bytes < _MUCH:
        yield lambda done: None
        return
    with progress("external data", model.external_bytes) as advance:
        yield advance


@contextmanager
def watched(model: Model, folder: Path) -> Iterator[Watch]:
    """Say which files of external data are copied to a folder, and how far the reading is."""
    from cloakonnx.graph.masks.harden import Watch

    with reading(model) as advance:
        yield Watch(lambda copy: say(copied(copy, folder)), advance)


def copied(copy: Copy, folder: Path, *, verb: str = "copies") -> str:
    """Return the line on a file of external data that is copied."""
    links = ", a hard link to a file that has other names as well" if copy.is_shared else ""
    return f"{verb} external data {shown(copy.location)} ({copy.size:,} bytes{links}) to {folder}"
