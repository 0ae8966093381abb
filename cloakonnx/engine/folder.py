"""Unfinished work, in a folder beside the output that it will become; in the cache for an output elsewhere."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.engine.trees import flattened, unflattened
from cloakonnx.errors import CheckError, CloakError, DataError, InferenceError, OutputError
from cloakonnx.files import claimed, write_npz, write_text
from cloakonnx.urls import cache, place_of, url_of

T = TypeVar("T")

DAMAGED = (OSError, EOFError, KeyError, TypeError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file of the folder raises."""

_SETTINGS = "settings.json"
DIGEST = "digest"
"""Of a finished batch: the entry that tells its samples from others."""
_FORMAT = "format"
FORMAT = 2
"""Of the folder; 0.1.0 wrote none."""


class Folder:
    """The folder of one output.

    Args:
        output: The file that the work becomes.
        record: Everything that the work depends on beside the samples; JSON.
        run: What does it, for messages: an attack, an evaluation.
    """

    def __init__(self, output: Path, record: Mapping[str, Any], *, run: str) -> None:
        self.output = output
        self.record = dict(record)
        self.path = path_of(output)
        self._run = run
        self._saved = 0

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, or take the one that is there; it stays when the block ends, for :meth:`remove`.

        An interrupt, a failure of ONNX Runtime or a failed check leaves finished work to be resumed. Bad input leaves
        nothing behind, except what an earlier run had left.

        Raises:
            OutputError: the folder was made with other settings, or can't be made, or another run works in it.
        """
        if url_of(self.output) is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with claimed(self.path):
            resumed = resume and self._is_there()
            try:
                if not resumed:
                    self._make()
                yield
            except BaseException as error:
                if not resumed and (is_bad_input(error) or not self._saved):
                    self.remove()
                raise

    def check(self, *, resume: bool) -> None:
        """Check, before any work, that what is there can be resumed, where it is to be.

        Raises:
            OutputError: it was made with other settings, or by another version.
        """
        if resume:
            self._is_there()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write arrays as a file of the folder, in place of an earlier one; raises OutputError where that fails."""
        write_npz(self.path / name, arrays)
        self._saved += 1

    def read(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a file of the folder; raises one of :data:`DAMAGED` where it is missing or damaged."""
        with np.load(self.path / name, allow_pickle=False) as arrays:
            return {each: arrays[each] for each in arrays.files}

    def save(self, number: int, digest: str, result: object) -> None:
        """Keep the result of a batch, and what tells its samples from others; raises OutputError where that fails."""
        self.write(_batch(number), {**flattened(result), DIGEST: np.array(digest)})

    def holds(self, number: int, digest: str, *, name: str) -> bool:
        """Return whether the result of a batch is there, and whole.

        Args:
            number: Of the batch, from 0.
            digest: Of its samples.
            name: Of their source, for messages.

        Raises:
            DataError: it was made from other samples.
        """
        try:
            with zipfile.ZipFile(self.path / _batch(number)) as archive:
                if archive.testzip() is not None:
                    return False
            known = str(self.column(number, DIGEST))
        except DAMAGED:
            return False
        if known != digest:
            raise DataError(
                f"{name} has other samples than {self._run} that is resumed; start again without {{resume}}",
                parameter="resume",
            )
        return True

    def load(self, number: int, kind: type[T]) -> T:
        """Return the result of a finished batch."""
        return unflattened(kind, self.read(_batch(number)))

    def column(self, number: int, name: str) -> NDArray[Any]:
        """Return one array of a finished batch's result."""
        with np.load(self.path / _batch(number), allow_pickle=False) as arrays:
            found: NDArray[Any] = arrays[name]
            return found

    def _is_there(self) -> bool:
        found = None
        with suppress(OSError, ValueError):
            found = json.loads((self.path / _SETTINGS).read_bytes().decode())
        if not isinstance(found, dict):
            return False
        if found.get(_FORMAT) != FORMAT:
            raise OutputError(
                f"{self.path} was left by another version of cloakonnx, whose unfinished work this one can't go on "
                "with; start again without {resume}",
                parameter="resume",
            )
        wanted = json.loads(self._settings())
        differ = [key for key in sorted(wanted.keys() | found.keys()) if wanted.get(key) != found.get(key)]
        if differ:
            raise OutputError(
                f"{self.path} was left by {self._run} with other settings ({', '.join(differ)}); start again without "
                "{resume}, or with the settings it had",
                parameter="resume",
            )
        return True

    def _settings(self) -> str:
        return json.dumps({**self.record, _FORMAT: FORMAT}, sort_keys=True)

    def _make(self) -> None:
        self.remove()
        try:
            self.path.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write {self.output}: {error.strerror or error}") from None
        write_text(self.path / _SETTINGS, self._settings())


def path_of(output: Path) -> Path:
    """Return where the unfinished work of an output lies: beside it, or in the cache where the output is elsewhere."""
    place = place_of(output)
    beside = output.absolute() if place is None else cache() / "unfinished" / place
    return beside.with_name(f".{output.name}.parts")


def is_bad_input(error: BaseException) -> bool:
    """Return whether an error would come again in the next run; an interrupt, a failure or a failed check need not."""
    return isinstance(error, CloakError) and not isinstance(error, (InferenceError, CheckError))


def unfinished(folder: Path) -> Iterator[Path]:
    """Yield what is there of the unfinished work of a folder's files."""
    return path_of(folder / "any").parent.glob(".*.parts")


def forget(output: Path) -> None:
    """Remove the unfinished work of an output, once that is written."""
    shutil.rmtree(path_of(output), ignore_errors=True)


def numbers(folder: Path) -> list[tuple[int, Path]]:
    """Return the numbers of the finished batches of a folder, in order, and their files."""
    return [(int(each.stem), each) for each in sorted(folder.glob("*.npz")) if each.stem.isdecimal()]


def _batch(number: int) -> str:
    return f"{number:06d}.npz"
