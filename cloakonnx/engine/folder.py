"""Finished batches of a long run, in a folder beside the output, until they become one file."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.batch import Batch
from cloakonnx.errors import CloakError, DataError, InferenceError, OutputError
from cloakonnx.files import write_npz, write_text

_SETTINGS, _DIGEST = "settings.json", "digest"
_DAMAGED = (OSError, EOFError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """The finished batches of one output.

    Args:
        output: The file that they become.
        record: Everything that the results depend on beside the samples; JSON.
        run: What makes them, for messages: an attack, an evaluation.
    """

    def __init__(self, output: Path, record: Mapping[str, Any], *, run: str) -> None:
        self.output = output
        self.record = json.dumps(record, sort_keys=True)
        self._folder = output.absolute().parent / f".{output.name}.parts"
        self._run = run
        self._saved = 0

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, or take the one that is there; it stays when the block ends, for :meth:`remove`.

        An interrupt leaves the finished batches to be resumed. Bad input leaves nothing behind, but for what an
        earlier run had left.

        Raises:
            OutputError: the folder was made with other settings, or can't be made.
        """
        resumed = resume and self._is_there()
        try:
            if not resumed:
                self._make()
            yield
        except BaseException as error:
            is_bad_input = isinstance(error, CloakError) and not isinstance(error, InferenceError)
            if not resumed and (is_bad_input or not self._saved):
                self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def holds(self, number: int, batch: Batch, *, name: str) -> bool:
        """Return whether a finished batch is there, and whole.

        Args:
            number: Of the batch, from 0.
            batch: Its samples.
            name: Of their source, for messages.

        Raises:
            DataError: it was made from other samples.
        """
        try:
            with zipfile.ZipFile(self._path(number)) as archive:
                if archive.testzip() is not None:
                    return False
            known = str(self.read(number, _DIGEST))
        except _DAMAGED:
            return False
        if known != _digest(batch):
            raise DataError(f"{name} has other samples than {self._run} that is resumed; start again without --resume")
        return True

    def save(self, number: int, batch: Batch, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep what a batch came to; raises OutputError where it can't be written."""
        write_npz(self._path(number), {**arrays, _DIGEST: np.array(_digest(batch))})
        self._saved += 1

    def read(self, number: int, key: str) -> NDArray[Any]:
        """Return an array of a finished batch."""
        with np.load(self._path(number), allow_pickle=False) as arrays:
            found: NDArray[Any] = arrays[key]
            return found

    def _is_there(self) -> bool:
        try:
            text = (self._folder / _SETTINGS).read_bytes().decode()
            found = json.loads(text)
        except (OSError, ValueError):
            return False
        if text == self.record:
            return True
        wanted = json.loads(self.record)
        keys = sorted(wanted.keys() | found.keys()) if isinstance(found, dict) else []
        differ = [key for key in keys if key not in wanted or key not in found or wanted[key] != found[key]]
        raise OutputError(
            f"{self._folder} was left by {self._run} with other settings ({', '.join(differ)}); start again without "
            "--resume, or with the settings it had"
        )

    def _make(self) -> None:
        self.remove()
        try:
            self._folder.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write {self.output}: {error.strerror or error}") from None
        write_text(self._folder / _SETTINGS, self.record)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"


def _digest(batch: Batch) -> str:
    """Return the sha256 of pixels and labels."""
    return hashlib.sha256(batch.x.tobytes() + (b"" if batch.y is None else batch.y.tobytes())).hexdigest()
