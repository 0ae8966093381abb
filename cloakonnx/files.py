"""Writes outputs: whole or not at all, never over the input, never over another file unless forced."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import secrets
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cloakonnx import remote
from cloakonnx.errors import OutputError
from cloakonnx.kinds import irregular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def check_output(path: Path, *, inputs: Sequence[Path] = (), force: bool = False) -> None:
    """Check, before any work is done, that an output may be written.

    Raises:
        OutputError: the folder is not there or not writable, the output is no regular file, or it exists or is one of
            the inputs and ``force`` was not given; for the copy of a file elsewhere: of that.
        RemoteError, MissingDependencyError: as :func:`cloakonnx.remote.prepare`.
    """
    remote.prepare(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}")
    if path.is_dir() and not path.is_symlink():
        raise OutputError(f"cannot write {path}: it is a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is not writable")
    check_replaceable(path)
    if force or not remote.exists(path):
        return
    if any(source.absolute() == path.absolute() or _is_same(source, path) for source in inputs):
        raise OutputError(
            f"the output {path} is the input; name another with {{output}}, or overwrite it with {{force}}",
            parameter=("output", "force"),
        )
    raise OutputError(
        f"{path} exists already; name another output with {{output}}, or overwrite it with {{force}}",
        parameter=("output", "force"),
    )


def check_folder(path: Path) -> None:
    """Check, before any work is done, that a folder for outputs is there and can be written to, or can be made.

    Raises:
        OutputError: something else than a folder has the name, or the folder that it would be in is not writable.
        RemoteError, MissingDependencyError: as :func:`cloakonnx.remote.prepare`.
    """
    remote.prepare(path, is_folder=True)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OutputError(f"cannot write {path}: it is not a folder; name another with {{output}}", parameter="output")
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: {there} is not a folder that can be written to")


def _is_same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def check_replaceable(path: Path) -> None:
    """Check that what is at a path, if anything, is a regular file: nothing else is written over, forced or not.

    Raises:
        OutputError: it is a symbolic link, a pipe, a socket or a device.
    """
    odd = irregular(path, follow=False)
    if odd is not None:
        raise OutputError(
            f"cannot write {path}: it is {odd}, and only files are written over; name another with {{output}}",
            parameter="output",
        )


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold an output for this run alone, by a locked file beside it, which goes when the block ends.

    The lock of a run that was killed has ended with it. Where the file system has no locks nobody is kept out.

    Raises:
        OutputError: another run holds it, or the folder can't be written to.
    """
    lock = _lock_of(path)
    try:
        descriptor = _claim(lock)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    if descriptor is None:
        raise _claimed_already(path)
    try:
        yield
    finally:
        if fcntl is None:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            lock.unlink()
        if fcntl is not None:  # only now: who waits for this file to be free must find it gone
            os.close(descriptor)


def check_unclaimed(path: Path) -> None:
    """Check that no other run holds an output; raises OutputError where one does."""
    try:
        with _lock_of(path).open("rb") as stream:
            is_free = hold(stream, shared=True)
    except OSError:  # there is none
        return
    if not is_free:
        raise _claimed_already(path)


def _claimed_already(path: Path) -> OutputError:
    return OutputError(f"cannot write {path}: another run is writing it; wait until that has ended, or name another")


def _lock_of(path: Path) -> Path:
    return path.absolute().with_name(f".{path.name}.lock")


def _claim(lock: Path) -> int | None:
    """Return the descriptor of a locked file, None where another run holds it; raises OSError."""
    if fcntl is None:  # Windows removes no file that is open
        with contextlib.suppress(PermissionError):
            lock.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        return None
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        if not hold(descriptor):
            os.close(descriptor)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(lock.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # the run that held it has just removed it


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it takes that name when the block ends well and vanishes when not.

    The copy of a file elsewhere is uploaded then. Temporary files that killed runs of the same output left are removed.

    Raises:
        OutputError: the file system refuses the write, or something else than a file has the name.
    """
    target = path.absolute()
    remote.make_room(target)
    check_replaceable(path)
    _remove_left_behind(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(_DIGITS // 2)}.part")
    try:  # an interrupt may come at any point, so the file is made inside
        with temporary.open("xb") as stream:
            hold(stream)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        check_replaceable(path)  # it may have been made meanwhile
        temporary.replace(target)
        remote.upload(target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_DIGITS = 16
"""Random digits in the name of a temporary file."""


def hold(stream: IO[bytes] | int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed or its process ends; return False where another holds it.

    Systems without such locks (Windows) refuse to remove a file that is open.

    Args:
        stream: The file, or its descriptor.
        shared: Whether others that ask for a shared lock may have it as well.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _remove_left_behind(target: Path) -> None:
    """Remove temporary files of an output whose runs were killed: those that no process holds."""
    ours = re.compile(rf"{re.escape(f'.{target.name}.')}[0-9a-f]{{{_DIGITS}}}\.part")
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_unless_held(Path(entry.path))


def _remove_unless_held(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        is_fresh = time.time() - os.fstat(stream.fileno()).st_mtime < _FRESH and not os.fstat(stream.fileno()).st_size
        if is_fresh or not hold(stream):  # made this moment by another run, which has yet to lock it
            return
        if fcntl is not None:
            path.unlink(missing_ok=True)
    if fcntl is None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


_FRESH = 2.0
"""Seconds in which an empty temporary file may be that of a run that has just begun."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8; raises as :func:`atomic` does."""
    with atomic(path) as stream:
        stream.write(encoded(text))


def encoded(text: str) -> bytes:
    """Return text as UTF-8; a name may hold half of a pair of UTF-16."""
    return text.encode(errors="backslashreplace")


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
    with atomic(path) as stream:
        pack_npz(stream, arrays)


def pack_npz(stream: IO[bytes], arrays: Mapping[str, NDArray[Any] | Parts], *, compressed: bool = True) -> None:
    """Write arrays as an ``.npz`` into an open file: the same arrays always give the same bytes."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in arrays.items():
            whole = array if isinstance(array, Parts) else Parts(array.shape, array.dtype, [array])
            header = io.BytesIO()
            form = {"descr": np.lib.format.dtype_to_descr(whole.dtype), "fortran_order": False, "shape": whole.shape}
            np.lib.format.write_array_header_1_0(header, form)
            info = zipfile.ZipInfo(f"{name}.npy", _NO_DATE)
            info.compress_type = method
            info.file_size = len(header.getvalue()) + math.prod(whole.shape) * whole.dtype.itemsize
            with archive.open(info, "w") as entry:
                entry.write(header.getvalue())
                for part in whole.parts:
                    entry.write(np.ascontiguousarray(part, whole.dtype).reshape(-1).view(np.uint8).data)
