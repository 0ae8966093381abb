"""Finished batches of an attack, in a folder beside the output, until they are joined to one file."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import Parts, write_npz
from cloakonnx.errors import OutputError
from cloakonnx.graph import write_text

_SETTINGS = "settings.json"
_DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Attacked:
    """What an attack on a set of samples came to.

    Attributes:
        count: Samples.
        correct: Classified as labelled before (targeted: not as the target).
        robust: Still so under the attack.
        queries: Forward passes asked for, in samples.
        gradients: Gradients asked for, in samples.
    """

    count: int
    correct: int
    robust: int
    queries: int
    gradients: int


class Checkpoints:
    """The finished batches of one output.

    Args:
        output: The file that they become.
        record: Everything that the results depend on beside the samples.
    """

    def __init__(self, output: Path, record: dict[str, Any]) -> None:
        self._output = output
        self._folder = output.absolute().parent / f".{output.name}.parts"
        self._record = json.dumps(record, sort_keys=True)

    def open(self, *, resume: bool) -> bool:
        """Make the folder, or take the one that is there; return whether it was there.

        Raises:
            OutputError: it was made with other settings, or can't be made.
        """
        settings = self._folder / _SETTINGS
        if resume and settings.is_file():
            if settings.read_bytes() != self._record.encode():
                raise OutputError(
                    f"{self._folder} was left by an attack with other settings (or another model); start again without "
                    "--resume"
                )
            return True
        self.remove()
        try:
            self._folder.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write {self._output}: {error.strerror or error}") from None
        write_text(settings, self._record)
        return False

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def digest(self, number: int) -> str | None:
        """Return the digest of the samples that a batch was made from; None where it is not there, or damaged."""
        try:
            return str(self._read(number, "digest"))
        except _DAMAGED:
            return None

    def save(self, number: int, digest: str, batch: dict[str, NDArray[Any]]) -> None:
        """Keep a finished batch."""
        is_level = np.array(batch["x"].dtype == np.uint8)
        write_npz(self._path(number), {**batch, "digest": np.array(digest), "is_level": is_level})

    def join(self, count: int) -> Attacked:
        """Write the first so many batches as one file, holding one of them at a time, and count."""
        y, success, correct = (self._column(count, key) for key in ("y", "success", "correct"))
        is_level = all(self._read(number, "is_level") for number in range(count))
        shape = (len(y), *self._read(0, "x").shape[1:])
        images = Parts(shape, np.dtype(np.uint8 if is_level else np.float32), self._images(count, is_level=is_level))
        write_npz(self._output, {"x": images, "y": y, "success": success, "settings": np.array(self._record)})
        queries, gradients = (int(total) for total in self._column(count, "counts").reshape(-1, 2).sum(axis=0))
        return Attacked(len(y), int(correct.sum()), int((correct & ~success).sum()), queries, gradients)

    def _images(self, count: int, *, is_level: bool) -> Iterator[NDArray[Any]]:
        """Yield the images of each batch: all as uint8, or all as float32."""
        for number in range(count):
            x = self._read(number, "x")
            yield x if is_level or x.dtype != np.uint8 else np.divide(x, np.float32(255), dtype=np.float32)

    def _column(self, count: int, key: str) -> NDArray[Any]:
        return np.concatenate([self._read(number, key) for number in range(count)])

    def _read(self, number: int, key: str) -> NDArray[Any]:
        with np.load(self._path(number), allow_pickle=False) as batch:
            found: NDArray[Any] = batch[key]
            return found

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"
