"""Where samples come from: npz, npy, folders of class folders of images, Python scripts; all read batch by batch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.images import ImageFolder
from cloakonnx.data.types import Batch
from cloakonnx.errors import CloakError, DataError, nearest


class Source(Protocol):
    """Samples that can be gone through again and again, always in the same order."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def layout(self) -> str | None:
        """``nhwc`` where that is sure, else None."""

    def count(self) -> int | None:
        """Return how many samples there are, None where only the end will tell."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the samples as stored, ``size`` at a time."""


@dataclass(frozen=True)
class ArraySource:
    """Samples in an array, in memory (npz) or mapped (npy)."""

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64] | None
    layout: str | None = None

    def count(self) -> int:
        """Return how many samples there are."""
        return len(self.x)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield slices of the array."""
        for start in range(0, len(self.x), size):
            y = None if self.y is None else self.y[start : start + size]
            yield Batch(self.x[start : start + size], y, start)


@dataclass(frozen=True)
class ScriptSource:
    """Samples that a user's function yields as ``x`` or ``(x, y)`` batches of any size."""

    name: str
    function: Callable[[], Any]
    layout: str | None = None

    def count(self) -> None:
        """Only the end of the function tells."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield what the function yields, cut and joined to ``size``."""
        held_x: list[NDArray[Any]] = []
        held_y: list[NDArray[np.int64]] = []
        start = 0
        for x, y in self._yielded():
            held_x.append(x)
            if y is not None:
                held_y.append(y)
            while sum(map(len, held_x)) >= size:
                x_all, y_all = _joined(self.name, held_x, held_y)
                yield Batch(x_all[:size], None if y_all is None else y_all[:size], start)
                start += size
                held_x, held_y = [x_all[size:]], [] if y_all is None else [y_all[size:]]
        if sum(map(len, held_x)):
            x_all, y_all = _joined(self.name, held_x, held_y)
            yield Batch(x_all, y_all, start)

    def _yielded(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64] | None]]:
        try:
            for item in self.function():
                x, y = item if isinstance(item, tuple) else (item, None)
                array = np.asarray(x)
                labels = None if y is None else as_labels(np.asarray(y), self.name)
                if labels is not None and len(labels) != len(array):
                    raise DataError(f"{self.name} yields {len(array)} samples with {len(labels)} labels")
                yield _checked(array, self.name), labels
        except CloakError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"{self.name} failed: {type(error).__name__}: {error}") from error


def _joined(
    name: str, x: list[NDArray[Any]], y: list[NDArray[np.int64]]
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    try:
        joined = np.concatenate(x) if len(x) > 1 else x[0]
    except ValueError:
        raise DataError(f"{name} yields samples of unequal shapes: {sorted({a.shape[1:] for a in x})}") from None
    labels = np.concatenate(y) if y else None
    if labels is not None and len(labels) != len(joined):
        raise DataError(f"{name} yields labels with some batches only")
    return joined, labels


def open_source(
    path: str | Path,
    *,
    labels: Path | None = None,
    classes: tuple[str, ...] = (),
    resize: int | None = None,
    crop: int | None = None,
) -> Source:
    """Open a file or folder of samples by what it is: ``.npz``, ``.npy`` or a folder of class folders of images.

    Args:
        path: Where it is.
        labels: An ``.npy`` file with the labels of an ``.npy`` file of samples.
        classes: Class names in the order of the model's outputs, for folders; sorted by name otherwise.
        resize: Scale images so that their shorter side has this many pixels.
        crop: Cut this many pixels square out of the middle.

    Raises:
        DataError: missing, empty, pickled, or not of these kinds.
    """
    path = Path(path)
    if path.is_dir():
        _refuse(labels, "labels", path, "a folder's labels are its class folders")
        return ImageFolder.open(path, classes=classes, resize=resize, crop=crop)
    _refuse(classes, "classes", path, "it is for folders of images")
    _refuse(resize or crop, "resize" if resize else "crop", path, "it is for folders of images")
    if path.suffix == ".npz":
        _refuse(labels, "labels", path, "an .npz file holds its labels as y")
        return _open_npz(path)
    if path.suffix == ".npy":
        x = _checked(load_array(path, mapped=True), path.name)
        y = None if labels is None else as_labels(load_array(labels), labels.name)
        if y is not None and len(y) != len(x):
            raise DataError(f"{labels} has {len(y)} labels for the {len(x)} samples of {path.name}")
        return ArraySource(path.name, x, y)
    if not path.exists() and path.suffix != ".py" and ".py:" not in path.name:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no file or folder {path}{nearest(path.name, beside)}")
    if ".py" in path.name:
        raise DataError(f"{path} is a script; scripts are run only where --data-script FILE.py:FUNCTION names them")
    raise DataError(f"{path} is none of .npz, .npy and a folder of class folders of images")


def _refuse(value: object, option: str, path: Path, why: str) -> None:
    if value:
        raise DataError(f"--{option} does not go with {path.name}: {why}")


def _open_npz(path: Path) -> ArraySource:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "x" not in archive.files:
                raise DataError(f"{path} has no array 'x' (it has {', '.join(archive.files) or 'none'})")
            x = archive["x"]
            y = archive["y"] if "y" in archive.files else None
    except CloakError:
        raise
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.npz")]
        raise DataError(f"no file {path}{nearest(path.name, beside)}") from None
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise DataError(f"cannot read {path}: {_pickle_or(error)}") from None
    labels = None if y is None else as_labels(y, path.name)
    if labels is not None and len(labels) != len(x):
        raise DataError(f"{path} has {len(labels)} labels for {len(x)} samples")
    return ArraySource(path.name, _checked(x, path.name), labels)


def load_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Read an ``.npy`` file; raises DataError where it is missing, pickled or damaged."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"no file {path}") from None
    except Exception as error:  # as above
        raise DataError(f"cannot read {path}: {_pickle_or(error)}") from None
    return array


def _pickle_or(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "allow_pickle" in text or "pickle" in text.lower():
        return "it holds pickled Python objects, which could run code; save plain arrays"
    return f"not a whole numpy file ({text or type(error).__name__})"


def _checked(x: NDArray[Any], name: str) -> NDArray[Any]:
    if x.ndim < 2:
        raise DataError(
            f"{name} has samples of shape {x.shape}; the first axis counts samples, and there must be another"
        )
    if x.dtype.kind not in "fu" or x.dtype in {np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64)}:
        raise DataError(f"{name} has samples of type {x.dtype}; uint8 (divided by 255) or floats are needed")
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


def open_script(spec: str) -> ScriptSource:
    """Load ``FILE.py:FUNCTION``; this runs the file, so only a spec that the user gave for that purpose may come here.

    Raises:
        DataError: no such file or function, or the file fails.
    """
    file, colon, function = spec.rpartition(":")
    path = Path(file)
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise DataError(f"{spec!r} is not of the form FILE.py:FUNCTION")
    if not path.is_file():
        raise DataError(f"no file {path}")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise DataError(f"cannot load {path}")
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.absolute().parent))
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise DataError(f"{path} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.absolute().parent))
    found = getattr(module, function, None)
    if not callable(found):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise DataError(f"{path} has no function {function!r}{nearest(function, public)}")
    return ScriptSource(spec, found)
