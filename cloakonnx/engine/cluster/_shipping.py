"""A work on its way to workers: models go as paths, and as bytes to nodes where the path has another file or none."""

from __future__ import annotations

import io
import pickle
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import ModelError, WorkerError
from cloakonnx.files import hold
from cloakonnx.graph.file.model import load
from cloakonnx.graph.file.state import OnDisk, restored

_PAUSE = 0.05
"""Seconds between two looks whether another worker has written a model."""


@dataclass(frozen=True)
class Packed:
    """A work as bytes, in which files of models are left out.

    Attributes:
        content: The pickle.
        files: The models' files.
    """

    content: bytes
    files: tuple[OnDisk, ...]


def packed(work: object, pickler: type[Any]) -> Packed:
    """Return a work as it travels.

    Args:
        work: The work.
        pickler: Ray's pickler, which takes classes of a notebook or a script as well.
    """
    files: list[OnDisk] = []

    class Leaving(pickler):  # type: ignore[misc]
        """Leaves files out, by their place in the list."""

        def persistent_id(self, value: object) -> int | None:
            if not isinstance(value, OnDisk):
                return None
            if value not in files:
                files.append(value)
            return files.index(value)

    stream = io.BytesIO()
    Leaving(stream).dump(work)
    return Packed(stream.getvalue(), tuple(files))


def unpacked(content: bytes, files: Sequence[OnDisk]) -> Any:
    """Return the work, with the files as they are here.

    Raises:
        ModelError: a file has other bytes than it had.
    """

    class Taking(pickle.Unpickler):
        """Puts files in."""

        def persistent_load(self, place: int) -> OnDisk:
            return files[place]

    return Taking(io.BytesIO(content)).load()


def is_here(file: OnDisk) -> bool:
    """Return whether a model's file and its external data are on this machine, at the same path."""
    try:
        restored(file)
    except ModelError:
        return False
    return True


def contents(file: OnDisk, put: Callable[[NDArray[np.uint8]], Any]) -> dict[str, Any]:
    """Return what :func:`placed` makes files of: the model and its external data, by location.

    Args:
        file: The model's file.
        put: Stores bytes where workers find them, and returns a reference.

    Raises:
        ModelError: a file can't be read any more.
    """
    model = load(file.path)
    folder = model.folder or file.path.parent
    paths = {file.path.name: file.path, **{location: folder / location for location in file.external}}
    try:
        return {location: put(np.fromfile(path, dtype=np.uint8)) for location, path in paths.items()}
    except OSError as error:
        raise ModelError(f"cannot read {file.path}: {error.strerror or error}") from None


def placed(file: OnDisk, stored: Mapping[str, Any], get: Callable[[Any], NDArray[np.uint8]], *, run: str) -> OnDisk:
    """Return a model's file, written here by the first worker that asks for it.

    Args:
        file: As it is for the driver.
        stored: References to what :func:`contents` has put, by location.
        get: Returns what a reference stands for.
        run: Name of the run.

    Raises:
        WorkerError: the files can't be written.
    """
    folder = folder_of(run) / file.sha256
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("wb") as lock:
            while not hold(lock):
                time.sleep(_PAUSE)
            if not folder.exists():
                _write(folder, stored, get)
    except OSError as error:
        raise WorkerError(f"cannot write {folder} on {platform.node()}: {error.strerror or error}") from None
    return replace(file, path=folder / file.path.name)


def _write(folder: Path, stored: Mapping[str, Any], get: Callable[[Any], NDArray[np.uint8]]) -> None:
    """Write a folder, which is there as a whole or not at all."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a worker that was ended while it wrote
    for location, reference in stored.items():
        path = unfinished / location
        path.parent.mkdir(parents=True, exist_ok=True)
        get(reference).tofile(path)
    unfinished.rename(folder)


def folder_of(run: str) -> Path:
    """Return where the models of a run are written on this machine."""
    return Path(tempfile.gettempdir()) / f"cloakonnx-{run}"
