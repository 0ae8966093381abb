"""Reads numpy files without trusting them: no pickles, sizes checked against the file before memory is taken."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cloakonnx.errors import CloakError, DataError, nearest
from cloakonnx.kinds import irregular, kind_of

SETTINGS_KEY, LABELS_KEY, PREDICTED = "settings", "labels", "predicted"
"""An adversarial file's array of settings (JSON), what in it tells of the labels, and the word for predictions."""

_PICKLED = "it holds pickled Python objects, which could run code; save plain arrays"
_NPY, _NPZ, _PICKLE = b"\x93NUMPY", b"PK", b"\x80"


def load_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Read an ``.npy`` file; raises DataError where it is missing, pickled or damaged."""
    _check_kind(path, _NPY, ".npy")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises several types
        raise DataError(f"cannot read {path}: {_reason(error, '.npy')}") from None
    return array if mapped else np.array(array)


def load_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Read ``x`` and, where it is there, ``y`` of an ``.npz`` file; raises as :func:`load_arrays` does."""
    found = load_arrays(path, ["x"], optional=["y"])
    return found["x"], found.get("y")


def has_predicted_labels(path: Path) -> bool:
    """Whether an ``.npz`` file says that its labels are a model's own predictions, as that of an attack does."""
    try:
        settings = json.loads(str(load_arrays(path, [SETTINGS_KEY])[SETTINGS_KEY]))
        return bool(settings[LABELS_KEY] == PREDICTED)
    except (CloakError, ValueError, KeyError, TypeError, RecursionError):
        return False  # somebody else's file


def load_arrays(path: Path, names: Sequence[str], *, optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` file by name.

    Raises:
        DataError: missing, pickled, damaged, or without one of ``names``.
    """
    _check_kind(path, _NPZ, ".npz")
    try:
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy"): name for name in archive.namelist()}
            for name in names:
                if name not in there:
                    raise DataError(f"{path} has no array {name!r} (it has {', '.join(sorted(there)) or 'none'})")
            return {name: _member(archive, there[name], path) for name in (*names, *optional) if name in there}
    except CloakError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise DataError(f"cannot read {path}: {_reason(error, '.npz')}") from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    with archive.open(name) as stream:
        shape, dtype = _header(stream)
        if dtype.hasobject:
            raise DataError(f"cannot read {path}: {_PICKLED}")
        declared, there = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - stream.tell()
        if declared != there:
            raise DataError(f"cannot read {path}: its array {name!r} should have {declared} bytes and has {there}")
    with archive.open(name) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _check_kind(path: Path, wanted: bytes, suffix: str) -> None:
    """Look at the first bytes, so that the message names what the file is."""
    odd = irregular(path)
    if odd is not None:
        raise DataError(f"cannot read {path}: it is {odd}, not a file")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_NPY))
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    if start.startswith(wanted):
        return
    if not start:
        why = "the file has no content"
    elif start.startswith(_PICKLE):
        why = _PICKLED
    elif start.startswith((_NPY, _NPZ)):
        why = f"its content is an {'.npy' if start.startswith(_NPY) else '.npz'} file; give it that suffix"
    else:
        kind = kind_of(path)
        why = f"it is not an {suffix} file" + (f" but {kind}" if kind else "")
    raise DataError(f"cannot read {path}: {why}")


def missing(path: Path) -> DataError:
    """Return the error for a path that is not there; it names what is there and looks alike."""
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return DataError(f"no file or folder {path}{nearest(path.name, beside)}")


def _reason(error: Exception, suffix: str) -> str:
    text = " ".join(str(error).split())
    if "pickle" in text.lower() or "Python objects" in text:
        return _PICKLED
    return f"not a whole {suffix} file ({text or type(error).__name__})"


def check_samples(x: NDArray[Any], name: str) -> NDArray[Any]:
    """Return samples that have a usable type and shape.

    Raises:
        DataError: they have not.
    """
    if x.ndim < 2:
        raise DataError(f"{name} has shape {x.shape}; the first axis counts samples, and there must be another")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise DataError(f"{name} has samples of type {x.dtype}; uint8 (divided by 255) or floats are needed")
    if len(x) and not x.size:
        raise DataError(f"{name} has samples of shape {x.shape[1:]}, which hold no value")
    return x


def as_labels(y: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return labels as (N,) int64.

    Raises:
        DataError: not whole numbers, not a vector, or negative.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(f"{name} has labels of type {y.dtype} and shape {y.shape}; a vector of class numbers is needed")
    labels = y.astype(np.int64)
    if len(labels) and labels.min() < 0:
        raise DataError(f"{name} has a negative label ({labels.min()}) at sample {int(labels.argmin())}")
    return labels
