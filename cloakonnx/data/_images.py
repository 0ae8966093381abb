"""A folder of class folders of images, each decoded when its batch is due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.batch import Batch
from cloakonnx.errors import DataError, MissingDependencyError, nearest
from cloakonnx.kinds import irregular

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_GREY = {"1", "L", "LA", "La"}


@dataclass(frozen=True)
class ImageFolder:
    """Images as (N, H, W, C) uint8; files in order of their class, then of their names.

    Files are kept as strings below the folder: a Path takes four times the memory.
    """

    folder: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    resize: int | None
    crop: int | None
    layout: str | None = "nhwc"
    has_predicted_labels: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @classmethod
    def open(cls, folder: Path, *, classes: tuple[str, ...], resize: int | None, crop: int | None) -> ImageFolder:
        """List the images; none is decoded yet.

        Raises:
            DataError: no class folder, one that ``classes`` lacks, or no image.
            MissingDependencyError: Pillow is not installed.
        """
        _pillow()
        try:
            found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        except OSError as error:
            raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
        if not found:
            raise DataError(f"{folder} has no class folders; put the images of each class into a folder of its own")
        names = classes or tuple(found)
        if len(set(names)) < len(names):
            raise DataError(f"--classes names a class twice: {','.join(names)}")
        unknown = next((name for name in found if name not in names), None)
        if unknown is not None:
            raise DataError(f"{folder} has a folder {unknown!r} that --classes lacks{nearest(unknown, names)}")
        files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            inside = sorted(p.name for p in (folder / name).iterdir()) if name in found else []
            images = [f"{name}/{file}" for file in inside if Path(file).suffix.lower() in _SUFFIXES]
            files += images
            labels += [label] * len(images)
        if not files:
            raise DataError(f"{folder} has no images in its class folders (known: {', '.join(sorted(_SUFFIXES))})")
        return cls(folder, tuple(files), np.array(labels, np.int64), names, resize, crop)

    def count(self) -> int:
        """Return how many images there are."""
        return len(self.files)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the images, decoded now.

        Raises:
            DataError: a file that is not an image, or images of unequal size, or coloured ones after a grey one.
        """
        first: tuple[int, ...] | None = None
        for start in range(0, len(self.files), size):
            images = []
            for file in self.files[start : start + size]:
                image = self._decode(self.folder / file)
                first = first or image.shape
                if image.shape != first and image.shape[2] == 1:  # grey among coloured ones: nothing is lost
                    image = np.repeat(image, first[2], axis=2)
                if image.shape != first:
                    raise _unequal(file, image.shape, self.files[0], first)
                images.append(image)
            yield Batch(np.stack(images), self.labels[start : start + size], start)

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        image_module = _pillow()
        odd = irregular(path)
        if odd is not None:
            raise DataError(f"cannot read {path}: it is {odd}, not a file")
        try:
            with image_module.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    raise DataError(f"{path} has more than 8 bits a channel; convert it, or store it as floats in .npy")
                picture = image.convert("L" if image.mode in _GREY else "RGB")
                if self.resize is not None:
                    factor = self.resize / min(picture.size)
                    size = [max(self.resize, round(side * factor)) for side in picture.size]
                    picture = picture.resize(size, image_module.Resampling.BILINEAR)
                if self.crop is not None:
                    picture = picture.crop(_middle(picture.size, self.crop, path))
                pixels = np.asarray(picture)
        except DataError:
            raise
        except Exception as error:  # Pillow raises many types on damaged files
            raise DataError(f"cannot read the image {path}: {' '.join(str(error).split())}") from None
        return pixels[..., None] if pixels.ndim == 2 else pixels


def _middle(size: tuple[int, int], crop: int, path: Path) -> tuple[int, int, int, int]:
    width, height = size
    if crop > min(size):
        raise DataError(f"{path} is {width} x {height}, too small for --crop {crop}; add --resize {crop}")
    left, top = (width - crop) // 2, (height - crop) // 2
    return left, top, left + crop, top + crop


def _unequal(path: str, shape: tuple[int, ...], first: str, first_shape: tuple[int, ...]) -> DataError:
    if shape[2] != first_shape[2]:
        return DataError(f"{path} is coloured, but {first} is greyscale: store all of them as RGB, or all as greyscale")
    return DataError(
        f"{path} is {_size(shape)}, but {first} is {_size(first_shape)}: make them equal with --resize N --crop N"
    )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def _pillow() -> ModuleType:
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingDependencyError(
            "folders of images need Pillow; install it with: pip install 'cloakonnx[images]'"
        ) from None
    return Image
