"""How stored samples lie for the model: the axes they take, and the way from stored values to pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.batch import Batch
from cloakonnx.errors import DataError
from cloakonnx.preprocessing import channel_axis, model_layout


@dataclass(frozen=True)
class Arrangement:
    """How a stored sample is laid out for the model: its axes permuted, or its values in another shape.

    Attributes:
        permutation: Order of the stored axes, batch axis included; None leaves them.
        shape: Shape of a sample after that; None leaves it.
        channel_axis: Axis of the model's input that counts channels.
        image: Shape of the image that a flat sample becomes before that; None leaves it.
        note: What a reader should know of it.
    """

    permutation: tuple[int, ...] | None
    shape: tuple[int, ...] | None
    channel_axis: int
    image: tuple[int, ...] | None = None
    note: str | None = field(default=None, compare=False)

    def apply(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return a batch in the model's layout."""
        if self.image is not None:
            x = x.reshape(len(x), *self.image)
        if self.permutation is not None:
            x = x.transpose(self.permutation)
        return x if self.shape is None else x.reshape(len(x), *self.shape)

    def sample_shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a sample in the model's layout, of the shape of a stored one."""
        return tuple(self.apply(np.empty((1, *stored), np.bool_)).shape[1:])

    def undo(self, x: NDArray[Any], sample: tuple[int, ...]) -> NDArray[Any]:
        """Return a batch in the stored layout again; ``sample`` is the shape of a stored sample."""
        if self.shape is not None:
            turned = sample if self.permutation is None else tuple(sample[axis - 1] for axis in self.permutation[1:])
            x = x.reshape(len(x), *turned)
        if self.permutation is not None:
            x = x.transpose(np.argsort(self.permutation))
        return x if self.image is None else x.reshape(len(x), *sample)


def arrange(
    sample: tuple[int, ...],
    wanted: tuple[int | None, ...] | None,
    *,
    layout: str | None,
    name: str,
    stored: str | None = None,
) -> Arrangement:
    """Settle how stored samples of a shape are laid out for a model's input.

    Args:
        sample: Shape of a stored sample.
        wanted: Shape of the model's input without the batch axis; None for free dimensions, or as a whole.
        layout: The stored layout as the user says, and for a flat input the order that the model takes.
        name: Of the source, for messages.
        stored: The stored layout where the source knows it.

    Raises:
        DataError: it does not fit, or fits both ways, or the layout contradicts the source or has no effect.
    """
    if layout is not None and stored is not None and layout.split(":")[0] != stored:
        raise DataError(
            f"{name}: its samples are stored as {stored}; {{layout}} {layout} contradicts that", parameter="layout"
        )
    axis = channel_axis(wanted)
    if wanted is not None and _is_flattened(sample, wanted):
        return _flattened(sample, axis, layout, stored, name)
    if wanted is not None and len(sample) == 1 and len(wanted) == 3:
        image = _image_of(sample[0], wanted)
        if image is not None and image[axis - 1] > 1:
            return _unflattened(sample, image, axis, layout, name)
    if layout is not None and ":" in layout:
        raise DataError(
            f"{name}: {{layout}} {layout} is for flat inputs; leave out the colon and what follows", parameter="layout"
        )
    if layout is not None and not (len(sample) == 3 and wanted is not None and len(wanted) == 3):
        raise DataError(
            f"{name}: {{layout}} {layout} has no effect on samples of shape {sample} here; leave it out",
            parameter="layout",
        )
    if wanted is None:
        return Arrangement(None, None, axis)
    if len(sample) == 3 and len(wanted) == 3:
        return _arrange_image(sample, wanted, layout or stored, name, are_pictures=stored is not None)
    shape = _reshaped(sample, wanted)
    if _fits(shape, wanted):
        return Arrangement(None, None if shape == sample else shape, axis)
    other = _in_the_same_order(sample, wanted)
    if other is None:
        raise DataError(_misfit(name, sample, wanted))
    note = f"{name}: samples of shape {sample} are reshaped to the model's {other}, their values in the same order"
    return Arrangement(None, other, axis, note=note)


def _reshaped(sample: tuple[int, ...], wanted: tuple[int | None, ...]) -> tuple[int, ...]:
    """Return the shape that a sample takes where it is an image of one channel, or where the input is flat."""
    if len(sample) == 2 and len(wanted) == 3:  # images without a channel axis
        comes_first = wanted[0] in {1, None} and (wanted[0] == 1 or wanted[2] != 1)
        return (1, *sample) if comes_first else (*sample, 1)
    if len(sample) == 3 and len(wanted) == 2 and 1 in {sample[0], sample[2]}:  # a model without a channel axis
        return sample[:2] if sample[2] == 1 else sample[1:]
    size = int(np.prod(sample))
    return (size,) if wanted == (size,) else sample


def _image_of(size: int, wanted: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """Return the shape of the model's images of a number of values; None where there is none, or more than one."""
    known = int(np.prod([each for each in wanted if each is not None]))
    if wanted.count(None) > 1 or size % known or (None not in wanted and size != known):
        return None
    return tuple(size // known if each is None else each for each in wanted)


def _in_the_same_order(sample: tuple[int, ...], wanted: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """Return the model's shape where the values of samples have only one order in it; None elsewhere.

    That is where the shapes differ in axes of one value only, or one of them is flat and the other a picture of one
    channel: rows one after the other.
    """
    found = _image_of(int(np.prod(sample)), wanted)
    if found is None:
        return None
    stored, taken = (tuple(size for size in shape if size != 1) for shape in (sample, found))
    if stored == taken:
        return found
    flat, other = (stored, taken) if len(stored) == 1 else (taken, stored)
    shape = found if other == taken else sample
    is_grey = len(shape) == 3 and shape[channel_axis(shape) - 1] == 1
    is_picture = len(other) == 2 and (is_grey or (len(shape) == 2 and shape[0] == shape[1]))
    return found if len(flat) == 1 and is_picture else None


def _unflattened(
    sample: tuple[int, ...], image: tuple[int, ...], axis: int, layout: str | None, name: str
) -> Arrangement:
    """Settle in which order flat samples hold the values of images of several channels."""
    if layout is None or ":" in layout:
        raise DataError(
            f"{name}: samples of shape {sample} fit the model's images {image} in two orders; say how their values are "
            "stored: {layout} nchw (channel by channel, as PyTorch and the files of CIFAR have them) or {layout} nhwc "
            "(pixel by pixel, as Keras and Pillow have them)",
            parameter="layout",
        )
    first = image if axis == 1 else (image[2], *image[:2])
    turns = {("nhwc", 1): (0, 3, 1, 2), ("nchw", 3): (0, 2, 3, 1)}
    own = first if layout == "nchw" else (*first[1:], first[0])
    note = f"{name}: samples of shape {sample} are reshaped to images {own}, {layout.upper()}"
    return Arrangement(turns.get((layout, axis)), None, axis, image=own, note=note)


def _is_flattened(sample: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Return whether images of several channels become rows of values, which may have two orders."""
    fits = len(sample) == 3 and len(wanted) == 1 and wanted[0] == int(np.prod(sample))
    return fits and 1 not in {sample[0], sample[2]}


def _flattened(sample: tuple[int, ...], axis: int, layout: str | None, stored: str | None, name: str) -> Arrangement:
    """Settle in which order the values of images are given to a flat input."""
    own, _, order = (layout or "").partition(":")
    if not order:
        own = own or stored or ("nchw" if sample[0] < sample[2] else "nhwc")
        raise DataError(
            f"{name}: samples of shape {sample} fit the model's flat input in two orders; say how they are stored and "
            f"which order the model takes: {{layout}} {own}:nchw (channel by channel, as PyTorch flattens) or "
            f"{{layout}} {own}:nhwc (pixel by pixel, as Keras flattens)",
            parameter="layout",
        )
    turns = {("nhwc", "nchw"): (0, 3, 1, 2), ("nchw", "nhwc"): (0, 2, 3, 1)}
    return Arrangement(turns.get((own, order)), (int(np.prod(sample)),), axis)


def _arrange_image(
    sample: tuple[int, ...], wanted: tuple[int | None, ...], layout: str | None, name: str, *, are_pictures: bool
) -> Arrangement:
    own, axis = model_layout(wanted), channel_axis(wanted)
    as_is = Arrangement(None, None, axis)
    turned = Arrangement((0, 3, 1, 2) if axis == 1 else (0, 2, 3, 1), None, axis)
    fits_turned = _fits((sample[2], *sample[:2]) if axis == 1 else (*sample[1:], sample[0]), wanted)
    options: dict[str, tuple[Arrangement, bool]] = {own: (as_is, _fits(sample, wanted))}
    options["nhwc" if own == "nchw" else "nchw"] = (turned, fits_turned)
    if layout is not None:
        arrangement, fits = options[layout]
        if not fits:
            way = _scaled(sample, wanted, axis) if are_pictures else ""
            raise DataError(_misfit(name, sample, wanted) + f" as {layout.upper()}{way}", parameter=("resize", "crop"))
        return arrangement
    found = [key for key, (_, fits) in options.items() if fits]
    if not found:
        raise DataError(_misfit(name, sample, wanted))
    if len(found) == 2:
        raise DataError(
            f"{name}: samples of shape {sample} fit the model as NCHW and as NHWC; say which with {{layout}}",
            parameter="layout",
        )
    return options[found[0]][0]


def _scaled(picture: tuple[int, ...], wanted: tuple[int | None, ...], axis: int) -> str:
    """Return the options that bring pictures (H, W, C) to a square input; nothing where they would not."""
    channels, sides = wanted[axis - 1], [size for place, size in enumerate(wanted, 1) if place != axis]
    side = sides[0]
    if side is None or sides[1] != side or channels not in {None, picture[2]}:
        return ""
    return f"; {{resize}} {side} {{crop}} {side} makes them fit (as in training, if it did so)"


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or w == s for s, w in zip(shape, wanted, strict=True))


def _misfit(name: str, sample: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    if not wanted:
        return (
            f"{name}: samples have the shape {sample}, and the model's input has one axis, which counts samples: "
            "export the model with a batch axis in front"
        )
    said = ", ".join("any" if w is None else str(w) for w in wanted)
    as_many = (
        len(sample) != len(wanted) and None not in wanted and np.prod(sample) == np.prod([each or 1 for each in wanted])
    )
    way = f"; they have as many values: x.reshape(-1, {said}), if they were flattened in that order" if as_many else ""
    return f"{name}: samples of shape {sample} do not fit the model's input ({said}){way}"


def to_pixels(
    batch: Batch,
    arrangement: Arrangement,
    bounds: tuple[float, float],
    name: str,
    *,
    number: Callable[[int], int] = lambda sample: sample,
) -> NDArray[np.float32]:
    """Return a stored batch as float32 in pixel space and in the model's layout.

    uint8 is divided by 255, floats are taken as they are.

    Args:
        batch: The samples as stored.
        arrangement: How they are laid out for the model.
        bounds: Smallest and largest value of pixel space.
        name: Of the source, for messages.
        number: Gives the number of a sample in its source, for messages.

    Raises:
        DataError: a value that is NaN or outside the bounds, or bounds that uint8 does not have.
    """
    x = arrangement.apply(batch.x)
    if x.dtype == np.uint8:
        if bounds != (0.0, 1.0):
            raise DataError(
                f"{name} holds uint8, which is divided by 255, so pixel space is [0, 1]; leave out {{bounds}} "
                f"{bounds[0]:g},{bounds[1]:g} and give eps as 8/255, say (a model that takes 0 to 255: {{scale}} 255)",
                parameter=("bounds", "scale"),
            )
        pixels = np.divide(x, np.float32(255), dtype=np.float32, order="C")
    else:
        pixels = np.ascontiguousarray(x, dtype=np.float32)
    low, high = bounds
    if not (pixels.min() >= low and pixels.max() <= high):  # false for NaN too
        flat = pixels.reshape(len(pixels), -1)
        bad = ~((flat >= low) & (flat <= high))
        sample = int(bad.any(axis=1).argmax())
        value = float(flat[sample][bad[sample]][0])
        start = f"{name}: sample {number(batch.start + sample)} has the value {value:g}"
        raise DataError(f"{start}, {_outside(pixels, value, bounds)}", parameter=("bounds", "mean", "std"))
    return np.asarray(pixels)


_FARTHEST = 20.0
"""Standard deviations from the mean beyond which nothing looks normalised."""


def _outside(pixels: NDArray[np.float32], value: float, bounds: tuple[float, float]) -> str:
    """Return what is wrong with values outside pixel space, and what to do."""
    where = f"outside pixel space [{bounds[0]:g}, {bounds[1]:g}]"
    if not np.isfinite(value):
        return "which is no finite number; repair the sample, or leave it out"
    finite = pixels[np.isfinite(pixels)]
    low, high = float(finite.min()), float(finite.max())
    if bounds != (0.0, 1.0) or low >= 0 or max(-low, high) > _FARTHEST or (pixels == np.rint(pixels)).all():
        return f"{where}; set {{bounds}}, or store the samples as uint8 or scaled to it"
    normalised = f"{where}; the samples look normalised, (x - mean) / std: give pixels (uint8, or floats from 0 to 1)"
    if low >= -1 and high <= 1:
        return (
            f"{normalised} and {{mean}} 0.5 {{std}} 0.5; {{bounds}}=-1,1 takes them as they are, with eps in their "
            "units: 8/255 in pixels is 16/255 there"
        )
    return f"{normalised} and what they were normalised by as {{mean}} and {{std}}; eps is then in pixels, too"
