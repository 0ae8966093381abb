"""A file's bytes, read on demand, so that a file that is truncated meanwhile raises an error of ours.

A mapping of such a file would end the process with SIGBUS.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias, overload

from cloakonnx.errors import ModelError

_SMALL = 1 << 22
"""Files of this many bytes and fewer are read at once."""

_WINDOW = 1 << 14
"""Bytes that are read ahead: records are scanned byte by byte."""

_BLOCK = 1 << 22
_MOST_AT_ONCE = 1 << 30


class Stamp(NamedTuple):
    """Size, times and identity of a file: they show whether it was replaced or changed, without reading it again."""

    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, file: Path | int) -> Stamp:
        """Return a file's stamp, of its path or its descriptor; raises OSError."""
        about = os.fstat(file) if isinstance(file, int) else file.stat()
        return cls(about.st_ino, about.st_size, about.st_mtime_ns)

    def fits(self, path: Path) -> bool:
        """Whether a file still has this stamp."""
        try:
            return Stamp.of(path) == self
        except OSError:
            return False


class FileBytes:
    """The bytes of an open file, from its start to the end that it had when it was opened.

    Args:
        path: The file.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self.stamp = Stamp.of(self._descriptor)
        self._window = (0, b"")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return self.stamp.size

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...
    def __getitem__(self, at: int | slice) -> int | bytes:
        """Return one byte, or a range of them; raises ModelError where the file has been truncated."""
        if isinstance(at, slice):
            start, end, _ = at.indices(len(self))
            return self._read(start, max(end - start, 0))
        start, window = self._window
        if not start <= at < start + len(window):
            if not 0 <= at < len(self):
                raise IndexError(at)
            start, window = at, self._read(at, min(_WINDOW, len(self) - at))
            self._window = start, window
        return window[at - start]

    def _read(self, start: int, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            try:
                part = self._read_once(start, min(count, _MOST_AT_ONCE))
            except OSError as error:
                raise ModelError(f"cannot read {self._path}: {error.strerror or error}") from None
            if not part:
                raise ModelError(f"{self._path} was cut while it was read; run the same again")
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_once(self, start: int, count: int) -> bytes:
        if sys.platform == "win32":  # it has no pread
            with self._lock:
                os.lseek(self._descriptor, start, os.SEEK_SET)
                return os.read(self._descriptor, count)
        return os.pread(self._descriptor, count, start)


Buffer: TypeAlias = bytes | FileBytes
"""What is scanned and edited: bytes in memory, or a file."""


def opened(path: Path) -> tuple[Buffer, Stamp]:
    """Return a file's bytes, those of a small file in memory, and the stamp that shows later whether it has changed.

    Raises:
        OSError: it can't be read.
        ModelError: it is truncated meanwhile.
    """
    file = FileBytes(path)
    return file[:] if len(file) <= _SMALL else file, file.stamp


def blocks(buf: Buffer, start: int, end: int) -> Iterator[bytes]:
    """Yield a range in parts that fit into memory."""
    for at in range(start, end, _BLOCK):
        yield buf[at : min(at + _BLOCK, end)]
