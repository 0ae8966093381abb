"""A folder of class folders of images, each decoded when its batch is due."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data._classes import matched
from cloakonnx.data._labelled import listed_in
from cloakonnx.data._listing import listed
from cloakonnx.data.batch import Batch
from cloakonnx.errors import DataError, MissingDependencyError
from cloakonnx.kinds import check_regular
from cloakonnx.preprocessing import channel_axis
from cloakonnx.urls import url_of

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What Pillow may take a file for, whatever its name is: some of its other readers start programs."""

_MOST_PIXELS = 100_000_000
_GREY = {"1", "L", "LA", "La"}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageFolder:
    """Images as (N, H, W, C) uint8; files in order of their class, then of their names, or as a CSV has them.

    Files are kept as strings below the folder: a Path takes four times the memory.

    Attributes:
        folder: Where they are.
        files: Below the folder.
        labels: (N,) int64.
        classes: Names of the classes; none where a CSV has numbers.
        resize: Pixels of the shorter side.
        crop: Pixels of a square out of the middle.
        are_named: Whether the classes were given, not found.
        labels_in: The CSV that has the labels; None where they are the class folders.
        channels: 1 or 3, which all images are brought to; None where the first one decides.
        notes: What a reader should know of how the folder was read.
        grey: Grey images that were repeated in three channels, as far as they were read.
    """

    folder: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    resize: int | None
    crop: int | None
    are_named: bool = False
    labels_in: str | None = None
    channels: int | None = None
    notes: tuple[str, ...] = ()
    grey: set[str] = field(default_factory=set, compare=False, repr=False)
    layout: str | None = "nhwc"
    has_predicted_labels: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return url_of(self.folder) or self.folder.resolve().name

    @property
    def classes_from(self) -> str:
        """What the names of the classes are taken from, for messages."""
        return "class folders" if self.labels_in is None else f"classes of {self.labels_in}"

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        classes: tuple[str, ...],
        resize: int | None,
        crop: int | None,
        labels: Path | None = None,
        label_column: str | None = None,
    ) -> ImageFolder:
        """List the images: of class folders, or those that a CSV has labels for; none is decoded yet.

        Raises:
            DataError: no class folder, one that ``classes`` lacks, no image, or labels that do not fit.
            MissingDependencyError: Pillow is not installed.
        """
        _pillow()
        if labels is None:
            found = listed(folder, classes=classes)
        else:
            found = listed_in(labels, folder, label_column=label_column, classes=classes)
        return cls(
            folder,
            found.files,
            found.labels,
            found.classes,
            resize,
            crop,
            are_named=bool(classes),
            labels_in=None if labels is None else labels.name,
            notes=found.notes,
        )

    def take(self, rows: NDArray[np.int64]) -> ImageFolder:
        """Return some of the images."""
        return replace(self, files=tuple(self.files[row] for row in rows), labels=self.labels[rows])

    def for_classes(self, names: Sequence[str] | None) -> ImageFolder:
        """Return the images with the labels that a model's names of its classes give them, where folders have these.

        Where they have other names, or ``--classes`` gives another order, a note shows both.

        Args:
            names: Of the classes in the order of the model's scores; None where its file has none.
        """
        found = matched(self, names)
        if found is None:
            return self
        order = np.argsort(found.labels, kind="stable") if self.labels_in is None else np.arange(len(self.files))
        files = tuple(self.files[place] for place in order)
        return replace(
            self, files=files, labels=found.labels[order], classes=found.classes, notes=(*self.notes, *found.notes)
        )

    def for_input(self, wanted: Sequence[int | None] | None) -> ImageFolder:
        """Return the images in as many channels as a model takes, where that is known.

        Args:
            wanted: The model's input without the batch axis; None for free dimensions, or as a whole.

        Raises:
            DataError: the first image cannot be read.
        """
        channels = None
        if wanted is not None and len(wanted) == 3:
            channels = wanted[channel_axis(wanted) - 1]
        elif wanted is not None and len(wanted) == 2:
            channels = 1
        elif wanted is not None and len(wanted) == 1 and wanted[0] is not None:
            height, width = self._decode(self.files[0]).shape[:2]
            channels = wanted[0] // (height * width)
        return replace(self, channels=channels) if channels in {1, 3} else self

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
            batch = self._like(first, start, start + size)
            first = first or batch.x.shape[1:]
            yield batch

    def between(self, start: int, stop: int) -> Batch:
        """Return the images from one to before another; beside them the first one is decoded, once.

        Raises:
            DataError: as :meth:`batches` does.
        """
        return self._like(self._first_shape, start, stop)

    @cached_property
    def _first_shape(self) -> tuple[int, ...]:
        return self._decode(self.files[0]).shape

    def _like(self, first: tuple[int, ...] | None, start: int, stop: int) -> Batch:
        """Return images of the first one's shape, which is among them where no shape is known yet."""
        images = []
        for file in self.files[start:stop]:
            image = self._decode(file)
            first = first or image.shape
            if image.shape != first and image.shape[2] == 1:  # grey among coloured ones: nothing is lost
                image = self._coloured(image, file)
            if image.shape != first:
                raise _unequal(file, image.shape, self.files[0], first)
            images.append(image)
        return Batch(np.stack(images), self.labels[start:stop], start)

    def _coloured(self, image: NDArray[np.uint8], file: str) -> NDArray[np.uint8]:
        self.grey.add(file)
        return np.repeat(image, 3, axis=2)

    def _decode(self, file: str) -> NDArray[np.uint8]:
        """Return an image as (H, W, C), in the channels that are wanted."""
        path = self.folder / file
        image_module = _pillow()
        check_regular(path, DataError)
        try:
            with _opened(image_module, path) as image:
                if image.mode.startswith(("I", "F")):
                    raise DataError(f"{path} has more than 8 bits a channel; convert it, or store it as floats in .npy")
                image.load()
                _check_opaque(image, path)
                picture = _upright(image.convert("L" if image.mode in _GREY else "RGB"), image, image_module)
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
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if self.channels == 3 and pixels.shape[2] == 1:
            return self._coloured(pixels, file)
        return _grey(pixels, path) if self.channels == 1 and pixels.shape[2] == 3 else pixels


def _grey(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Return the one channel of an image whose three are equal, as palettes, GIF and RGB keep greyscale."""
    if not (pixels == pixels[..., :1]).all():
        raise DataError(
            f"{path} is coloured, but the model takes one channel; convert the images to greyscale as in training "
            "(Pillow: image.convert('L'))"
        )
    return pixels[..., :1]


def _check_opaque(image: Any, path: Path) -> None:
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise DataError(
            f"{path} is transparent in places, and nothing says what lies behind it; put the images on a background "
            "first, as in training (Pillow: Image.alpha_composite)"
        )


def _upright(picture: Any, image: Any, image_module: ModuleType) -> Any:
    """Return a picture turned as its EXIF orientation says."""
    ways = image_module.Transpose
    turns = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(_ORIENTATION))
    return picture if turn is None else picture.transpose(turn)


def _opened(image_module: ModuleType, path: Path) -> Any:
    """Open an image of the known formats and a bounded size; nothing is decoded yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", image_module.DecompressionBombWarning)
        try:
            image = image_module.open(path, formats=_FORMATS)
        except image_module.UnidentifiedImageError:
            raise DataError(
                f"cannot read the image {path}: it is none of {', '.join(_FORMATS)}; convert it, or take it out"
            ) from None
    width, height = image.size
    if width * height > _MOST_PIXELS:
        image.close()
        raise DataError(f"{path} has {width} x {height} pixels; the limit is {_MOST_PIXELS:,}")
    return image


def _middle(size: tuple[int, int], crop: int, path: Path) -> tuple[int, int, int, int]:
    width, height = size
    if crop > min(size):
        raise DataError(
            f"{path} is {width} x {height}, too small for {{crop}} {crop}; add {{resize}} {crop}",
            parameter=("crop", "resize"),
        )
    left, top = (width - crop) // 2, (height - crop) // 2
    return left, top, left + crop, top + crop


def _unequal(path: str, shape: tuple[int, ...], first: str, first_shape: tuple[int, ...]) -> DataError:
    if shape[2] != first_shape[2]:
        return DataError(f"{path} is coloured, but {first} is greyscale: store all of them as RGB, or all as greyscale")
    return DataError(
        f"{path} is {_size(shape)}, but {first} is {_size(first_shape)}: make them equal with {{resize}} N {{crop}} N",
        parameter=("resize", "crop"),
    )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def _pillow() -> ModuleType:
    try:
        from PIL import Image  # noqa: PLC0415 - slow to import
    except ImportError:
        raise MissingDependencyError("folders of images need Pillow: pip install pillow") from None
    return Image
