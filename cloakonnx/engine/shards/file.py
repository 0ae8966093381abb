"""The file of a shard: a zip of finished batches, with a head that says of which run they are."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.engine.folder import DAMAGED, numbers
from cloakonnx.entries import OMITTED, Positive, Whole
from cloakonnx.errors import DataError
from cloakonnx.files import atomic
from cloakonnx.json_files import JsonFile, converted
from cloakonnx.kinds import irregular
from cloakonnx.remote import fetched

_FILE = JsonFile("shard", 1, "VERB --shard", DataError)
_HEAD = "shard.json"
_MOST = 64 << 20
"""Bytes of the longest head."""
OPTIONS = "options"
"""Of the command line: the options that results depend on, which all shards have in common."""
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Pass:
    """One pass over the samples: an attack at one eps, say.

    Attributes:
        record: Everything that its results depend on beside the samples.
        batches: How many there are, those of other shards included.
        samples: How many there are, those of other shards included.
    """

    record: Mapping[str, Any]
    batches: Whole
    samples: Whole


@dataclass(frozen=True)
class Head:
    """What a shard's file says of itself.

    Attributes:
        number: Of the shard, from 1.
        of: How many shards there are.
        verb: What was run: ``attack``, ``analyze``, ``evaluate`` or ``sweep``.
        versions: Of the packages that decide the numbers.
        threads: Intra-op threads of each session; None where the provider's were left as they are.
        passes: The passes over the samples, in order.
        call: The command line that ran it; None where Python did.
    """

    number: Positive
    of: Positive
    verb: str
    versions: Mapping[str, str]
    threads: Positive | None
    passes: tuple[Pass, ...]
    call: Annotated[Mapping[str, Any] | None, OMITTED] = None


@dataclass(frozen=True)
class ShardFile:
    """A shard's file, whose head is read.

    Attributes:
        path: Where it is.
        head: What it says of itself.
    """

    path: Path
    head: Head

    @classmethod
    def read(cls, path: str | PathLike[str]) -> ShardFile:
        """Read the head, and check that the file is whole; raises DataError where it is damaged, or no shard."""
        path = fetched(path)
        odd = irregular(path)
        if odd is not None:
            raise DataError(f"cannot read the shard {path}: it is {odd}, not a file")
        try:
            with zipfile.ZipFile(path) as archive:
                entry = archive.getinfo(_HEAD)
                if entry.file_size > _MOST or archive.testzip() is not None:
                    raise _damaged(path)
                text = archive.read(entry).decode()
        except OSError as error:
            if error.filename is None:  # a place in the file that is not there
                raise _damaged(path) from None
            raise DataError(f"cannot read the shard {path}: {error.strerror or error}") from None
        except (zipfile.BadZipFile, KeyError):
            raise DataError(
                f"{path} is no shard, or is damaged; a run with {{shard}} writes one", parameter="shard"
            ) from None
        except DAMAGED:
            raise _damaged(path) from None
        head = _FILE.read(text, lambda content: converted(content, Head), name=str(path))
        if head.number > head.of:
            raise _damaged(path)
        return cls(path, head)

    def batch(self, of_pass: int, number: int) -> dict[str, NDArray[Any]]:
        """Return the arrays of a finished batch; raises DataError where it is missing or damaged."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                content = archive.read(_member(of_pass, number))
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except DAMAGED:
            raise _damaged(self.path) from None


def write(path: Path, head: Head, folders: Sequence[Path]) -> None:
    """Write a shard's file, atomically: equal batches give the same bytes.

    Args:
        path: Where.
        head: What it says of itself.
        folders: Of each pass, with a file for each finished batch.

    Raises:
        OutputError: it can't be written.
    """
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_HEAD, _NO_DATE), _FILE.text(head))
        for of_pass, folder in enumerate(folders):
            for number, batch in numbers(folder):
                archive.writestr(zipfile.ZipInfo(_member(of_pass, number), _NO_DATE), batch.read_bytes())


def _member(of_pass: int, number: int) -> str:
    return f"{of_pass}/{number:06d}.npz"


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged; run that shard again")
