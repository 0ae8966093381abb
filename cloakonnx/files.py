"""Writes outputs: whole or not at all, never over the input, never over another file unless told to."""

from __future__ import annotations

import contextlib
import io
import math
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import OutputError


def check_output(path: Path, *, inputs: Sequence[Path] = (), force: bool = False) -> None:
    """Check, before any work is done, that an output may be written.

    Raises:
        OutputError: the folder is not there or not writable, the file exists, or it is one of the inputs, and ``force``
            was not given.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is not writable")
    if force or not path.exists():
        return
    if any(source.exists() and path.samefile(source) for source in inputs):
        raise OutputError(f"the output {path} is the input; name another with -o, or overwrite it with --force")
    raise OutputError(f"{path} exists already; name another output with -o, or overwrite it with --force")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it takes that name when the block ends well and vanishes when not.

    Raises:
        OutputError: the file system refuses the write.
    """
    target = path.absolute()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:  # an interrupt may come at any point, so the file is made inside
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8; raises as :func:`atomic` does."""
    with atomic(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))  # a name may hold half of a pair of UTF-16


_NO_DATE = (1980, 1, 1, 0, 0, 0)
"""The zip format's first day: numpy's own writer puts the time of writing into the file."""


@dataclass(frozen=True)
class Parts:
    """An array that comes in parts along its first axis, so that it need not be in memory as a whole.

    Attributes:
        shape: Of the whole array.
        dtype: Of the whole array, and of every part.
        parts: The parts, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Iterable[NDArray[Any]]


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | Parts]) -> None:
    """Write arrays as a compressed ``.npz``, atomically.

    Raises:
        OutputError: it can't be written.
    """
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            whole = array if isinstance(array, Parts) else Parts(array.shape, array.dtype, [array])
            header = io.BytesIO()
            form = {"descr": np.lib.format.dtype_to_descr(whole.dtype), "fortran_order": False, "shape": whole.shape}
            np.lib.format.write_array_header_1_0(header, form)
            info = zipfile.ZipInfo(f"{name}.npy", _NO_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.file_size = len(header.getvalue()) + math.prod(whole.shape) * whole.dtype.itemsize
            with archive.open(info, "w") as entry:
                entry.write(header.getvalue())
                for part in whole.parts:
                    entry.write(np.ascontiguousarray(part, whole.dtype).reshape(-1).view(np.uint8).data)
