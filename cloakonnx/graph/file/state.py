"""What the pickle of a classifier holds of its model: the file and its digests, or the bytes of a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.diff import external_digests
from cloakonnx.graph.file.model import Model, load, load_bytes


@dataclass(frozen=True)
class OnDisk:
    """A file, with the sha256 of its bytes and of each file of external data."""

    path: Path
    sha256: str
    external: Mapping[str, str]


@dataclass(frozen=True)
class InMemory:
    """The bytes of a model that is not on disk as it is, the folder of its external data, and its name."""

    content: bytes
    folder: Path | None
    name: str


def state_of(model: Model) -> OnDisk | InMemory:
    """Return the state from which a model is restored."""
    if model.path is None or model.unwritten is not None:
        return InMemory(model.content[:], model.folder, model.name)
    return OnDisk(model.path.absolute(), model.sha256, external_digests(model))


def restored(state: OnDisk | InMemory) -> Model:
    """Return the model again.

    Raises:
        ModelError: the file or its external data has other bytes than it had.
    """
    if isinstance(state, InMemory):
        return load_bytes(state.content, folder=state.folder, name=state.name)
    model = load(state.path)
    if model.sha256 != state.sha256 or external_digests(model) != state.external:
        raise ModelError(f"{state.path} has changed since the classifier was pickled: make the classifier again")
    return model
