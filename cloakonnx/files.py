"""Writes outputs: whole or not at all, never over the input, never over another file unless told to."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cloakonnx.errors import OutputError
from cloakonnx.graph import _wire
from cloakonnx.graph.load import Model, Piece

_BLOCK = 1 << 22


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
        stream.write(text.encode())


def write_pieces(path: Path, buf: _wire.Buffer, pieces: Sequence[Piece]) -> None:
    """Write an edited model atomically; ranges of the source go from its mapping to the file without a copy."""
    with atomic(path) as stream, memoryview(buf) as source:
        for piece in pieces:
            stream.write(piece if isinstance(piece, bytes) else source[piece[0] : piece[1]])


def copy_external(model: Model, folder: Path, *, force: bool = False) -> None:
    """Put the model's external data files into another folder, where the references will find them.

    Files that are there already with the same content are left alone. In the model's own folder nothing is to do.

    Raises:
        OutputError: another file has the name and ``force`` was not given, or a write fails.
    """
    if model.folder is None or folder.resolve() == model.folder.resolve():
        return
    plans = [(model.folder / location, folder / location) for location in model.external_files]
    copies = [(source, target) for source, target in plans if not _same_content(source, target)]
    for _, target in copies:
        if target.exists() and not force:
            raise OutputError(f"{target} exists already with other content; choose another folder, or use --force")
    for source, target in copies:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
        with source.open("rb") as reader, atomic(target) as writer:
            shutil.copyfileobj(reader, writer, _BLOCK)


def _same_content(first: Path, second: Path) -> bool:
    if not second.is_file() or first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as a, second.open("rb") as b:
        while block := a.read(_BLOCK):
            if block != b.read(_BLOCK):
                return False
    return True
