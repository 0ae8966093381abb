"""Rows of an array that lies in a file as it is in memory: all of an .npy, or a member of an unpacked .npz."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cloakonnx.errors import DataError

_HEADER, _LENGTHS = 30, slice(26, 30)
"""Bytes of a member's header in a zip file before its name, and where it has the lengths of what follows."""


@dataclass(frozen=True)
class ArrayFile:
    """Where an array lies.

    Attributes:
        path: Of the file, absolute.
        size: Bytes of the file.
        offset: Of the first value.
        shape: Of the array.
        dtype: As numpy writes it.
        is_fortran: Whether the first axis is the one that varies first.
    """

    path: Path
    size: int
    offset: int
    shape: tuple[int, ...]
    dtype: str
    is_fortran: bool

    @classmethod
    def mapped(cls, x: NDArray[Any]) -> ArrayFile | None:
        """Return where an array of a mapped file lies; None for any other."""
        if not isinstance(x, np.memmap) or x.filename is None or not (x.flags.c_contiguous or x.flags.f_contiguous):
            return None
        path = Path(x.filename)
        return cls(path, path.stat().st_size, x.offset, x.shape, x.dtype.str, not x.flags.c_contiguous)

    @classmethod
    def in_npz(cls, path: Path, name: str) -> ArrayFile | None:
        """Return where an array of an .npz file lies that was read once; None where it is packed."""
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                return None
            stream.seek(member.header_offset)
            lengths = np.frombuffer(stream.read(_HEADER)[_LENGTHS], "<u2")
            stream.seek(int(lengths.sum()), os.SEEK_CUR)
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read(stream)
            return cls(path.absolute(), path.stat().st_size, stream.tell(), shape, dtype.str, is_fortran)

    def read(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows.

        Raises:
            DataError: the file has another size.
            OSError: it can't be read.
        """
        if self.path.stat().st_size != self.size:
            raise DataError(f"{self.path} has another size than it had")
        array: NDArray[Any] = np.memmap(
            self.path,
            dtype=np.dtype(self.dtype),
            mode="r",
            offset=self.offset,
            shape=self.shape,
            order="F" if self.is_fortran else "C",
        )
        return np.array(array[rows])
