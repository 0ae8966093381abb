"""Reads numpy files without trusting them: no pickles, sizes checked against the file before memory is taken."""

from __future__ import annotations

import io
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
from cloakonnx.kinds import check_regular, kind_of_data
from cloakonnx.remote import fetched

SETTINGS_KEY, LABELS_KEY, PREDICTED = "settings", "labels", "predicted"
"""An adversarial file's array of settings (JSON), what in it tells of the labels, and the word for predictions."""

_PICKLED = "it holds pickled Python objects, which could run code; save plain arrays"
_MOST_HEADER = 1 << 16
"""Bytes of an array's header: a list of fields is as long as it gets."""

_MOST_SETTINGS = 1 << 20
"""Bytes of an array of settings."""

_MOST_PACKED = 100
"""How many times its packed bytes an array may have, from :data:`_ALWAYS_PACKED` bytes on."""

_ALWAYS_PACKED = 256_000_000

_NPY, _NPZ, _PICKLE = b"\x93NUMPY", b"PK", b"\x80"


def load_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Read an ``.npy`` file; raises DataError where it is missing, pickled or damaged."""
    _check_kind(path, _NPY, ".npy")
    try:
        with path.open("rb") as stream:
            _header(stream)
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
        found = load_arrays(path, [SETTINGS_KEY], most=_MOST_SETTINGS)
        settings = json.loads(str(found[SETTINGS_KEY]))
        return bool(settings[LABELS_KEY] == PREDICTED)
    except (CloakError, ValueError, KeyError, TypeError, RecursionError):
        return False  # somebody else's file


def load_arrays(
    path: Path, names: Sequence[str], *, optional: Sequence[str] = (), most: int | None = None
) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` file by name.

    Args:
        path: The file.
        names: Arrays that must be there.
        optional: Arrays that may be there.
        most: Bytes of the largest array that is read.

    Raises:
        DataError: missing, pickled, damaged, or without one of ``names``; an array is there twice, is too large, or
            unpacks to far more than the file holds.
    """
    _check_kind(path, _NPZ, ".npz")
    try:
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy"): name for name in archive.namelist()}
            for name in names:
                if name not in there:
                    wanted = "; save the samples as x and the labels as y: np.savez(FILE, x=..., y=...)"
                    raise DataError(
                        f"{path} has no array {name!r} (it has {', '.join(sorted(there)) or 'none'})"
                        f"{wanted if name == 'x' else ''}"
                    )
            _check_once(archive, path)
            return {name: _member(archive, there[name], path, most) for name in (*names, *optional) if name in there}
    except CloakError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise DataError(f"cannot read {path}: {_reason(error, '.npz')}") from None


def _check_once(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has two arrays {twice.removesuffix('.npy')!r}; write it again with each name once")


def _member(archive: zipfile.ZipFile, name: str, path: Path, most: int | None) -> NDArray[Any]:
    info = archive.getinfo(name)
    if most is not None and info.file_size > most:
        raise DataError(f"{path}: its array {name!r} has {info.file_size:,} bytes; the limit is {most:,}")
    if info.file_size > max(_ALWAYS_PACKED, _MOST_PACKED * info.compress_size):
        raise DataError(
            f"{path}: its array {name!r} unpacks to {info.file_size:,} bytes from {info.compress_size:,}, over "
            f"{_MOST_PACKED} times as much; if that is right, save it with numpy.savez or as .npy"
        )
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
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"its format version is {version[0]}.{version[1]}")
    size = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    if length > _MOST_HEADER:
        raise ValueError(f"its header is said to have {length:,} bytes; the limit is {_MOST_HEADER:,}")
    start = io.BytesIO(size + stream.read(length))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(start)
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize >= 2**63:
        raise ValueError(f"its shape is said to be {str(shape)[:100]}")
    return shape, dtype


def _check_kind(path: Path, wanted: bytes, suffix: str) -> None:
    """Look at the first bytes, so that the message names what the file is."""
    fetched(path)
    check_regular(path, DataError)
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
        kind = kind_of_data(path)
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
        raise DataError(
            f"{name} has samples of type {x.dtype}; uint8 (divided by 255) or floats are needed{_way_to_samples(x)}"
        )
    if len(x) and not x.size:
        raise DataError(f"{name} has samples of shape {x.shape[1:]}, which hold no value")
    return x


def _way_to_samples(x: NDArray[Any]) -> str:
    """Say what whole numbers may be, and what to do with each; nothing for other types."""
    if x.dtype.kind not in "iub":
        return ""
    is_level = x.dtype.kind != "b" and x.size and x.min() >= 0 and x.max() <= 255
    pixels = "x.astype('uint8') for pixels from 0 to 255, " if is_level else ""
    return (
        f": {pixels}x.astype('float32') for numbers of a table; tokens of a text model have no pixel space: split the "
        "model behind its embedding with onnx.utils.extract_model, and evaluate the rest on embeddings (floats) with "
        "--norm l2"
    )


def _way(y: NDArray[Any]) -> str:
    """Say how labels of another form become class numbers; nothing where no way is known."""
    if y.dtype.kind in "US":
        return ": number the names in the order of the model's outputs"
    if y.ndim == 2 and y.dtype.kind in "iufb":
        hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        return ": these are one-hot, y.argmax(1) makes it" if hot else "; several classes a sample are not supported"
    if y.ndim != 1 or y.dtype.kind not in "fb" or not np.isfinite(y).all():
        return ""
    if (y == np.rint(y)).all():
        return ": y.astype(int) makes it"
    return "; numbers with fractions are those of a regression, a task that is not built yet"


def as_labels(y: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return labels as (N,) int64.

    Raises:
        DataError: not whole numbers, not a vector, or negative.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(
            f"{name} has labels of type {y.dtype} and shape {y.shape}; a vector of class numbers is needed{_way(y)}"
        )
    labels = y.astype(np.int64)
    if len(labels) and labels.min() < 0:
        raise DataError(
            f"{name} has a negative label ({labels.min()}) at sample {int(labels.argmin())}; labels count from 0 "
            "(numpy.unique(y, return_inverse=True)[1] numbers them in rising order)"
        )
    return labels
