"""Says what becomes of external data: what is copied, and how far the reading is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloakonnx.cli._output import progress, say

if TYPE_CHECKING:
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
def watched(model: Model) -> Iterator[Watch]:
    """Say which files of external data are copied, and how far the reading is."""
    from cloakonnx.graph.masks.harden import Watch

    with reading(model) as advance:
        yield Watch(lambda copy: say(f"copies {copy}"), advance)
