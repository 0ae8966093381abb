"""Names a file that is not what was asked for by how it starts, and says what to do about it."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

from cloakonnx.errors import CloakError

_HEAD = 512
"""Bytes at the start of a file that tell its kind."""

_POINTER = "a Git LFS pointer, not the file itself: get that with 'git lfs pull'"
_CHECKPOINT = "a PyTorch checkpoint: load it in PyTorch, and export the model with torch.onnx.export"
_PICKLE = (
    "a Python pickle, as old PyTorch checkpoints are, which is not opened: it could run code; export the model to ONNX"
)
_ORT = "a model in ONNX Runtime's own format (.ort): take the .onnx file that it was converted from"
_LITE = "a TensorFlow Lite model: convert the model that it was made from with tf2onnx"
_HDF5 = "an HDF5 file, as Keras writes them: convert the model with tf2onnx"
_KERAS = "a Keras file: convert the model with tf2onnx"
_GZIP = "packed with gzip: unpack it first, with 'gunzip'"
_PAGE = "an HTML page, as servers send them for a file that is not there or needs a login: download it again"
_SAFE = "a safetensors file, which has weights and no graph: load it in its framework, and export the model to ONNX"

_MAGIC = (
    (0, b"version https://git-lfs.github.com/spec/", _POINTER),
    (0, b"\x89HDF\r\n\x1a\n", _HDF5),
    (0, b"\x1f\x8b", _GZIP),
    (0, b"BZh", "packed with bzip2: unpack it first"),
    (0, b"\xfd7zXZ\x00", "packed with xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (4, b"ORTM", _ORT),
    (4, b"TFL3", _LITE),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x7fELF", "a program"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")


def irregular(path: Path, *, follow: bool = True) -> str | None:
    """Return what a path is that is neither a file nor a folder, None for these and for what is not there.

    Reading a pipe waits for who writes into it, and a device may never end.

    Args:
        path: The path.
        follow: Whether a symbolic link is what it leads to, as it is for inputs; else it is irregular itself.
    """
    try:
        mode = path.stat(follow_symlinks=follow).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def check_regular(path: Path, error: type[CloakError]) -> None:
    """Raise an error of a type for a path that is neither a file nor a folder, as :func:`irregular` says."""
    odd = irregular(path)
    if odd is not None:
        raise error(f"cannot read {path}: it is {odd}, not a file")


def kind_of(path: Path) -> str | None:
    """Return what a file is, in words that say what to do, None where its first bytes tell nothing."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    return kind_of_bytes(head)


def kind_of_bytes(head: bytes) -> str | None:
    """Return what a file with these first bytes is, as :func:`kind_of` does; it does not look into archives."""
    for at, magic, kind in _MAGIC:
        if head[at:].startswith(magic):
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return _PAGE
    if _is_pickle(head):
        return _PICKLE
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return _SAFE
    if text[:1] in {b"{", b"["} and text[1:].lstrip()[:1] in {b'"', b"{", b"[", b"}", b"]"}:
        return "JSON text"
    return None


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return "a damaged zip archive"
    if _any_ends(names, ("data.pkl", "constants.pkl")):
        return _CHECKPOINT
    if "config.json" in names and _any_ends(names, (".h5",)):
        return _KERAS
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)"
    return "a zip archive: unpack it first"


def _any_ends(names: Iterable[str], ends: tuple[str, ...]) -> bool:
    return any(name.endswith(ends) for name in names)
