"""What leads from pixel space to a model's input: a scale, a mean and a standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import DataError, nearest

ImageLayout = Literal["nchw", "nhwc"]
Layout = Literal["nchw", "nhwc", "nchw:nchw", "nchw:nhwc", "nhwc:nchw", "nhwc:nhwc"]
"""How samples are stored; for a flat input also, after a colon, in which order the model takes their values."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Step: TypeAlias = "tuple[str, NDArray[np.float64]]"
"""An ONNX op with two inputs, and its second input."""


class Normalisation(NamedTuple):
    """A mean and a standard deviation that models of a data set are trained with, on pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


NORMALISATIONS = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "mnist": Normalisation((0.1307,), (0.3081,)),
}
"""Words that stand for the numbers of ``mean`` and ``std``: RGB, or one channel."""

_IMAGE_CHANNELS = {1, 3, 4}
_NUMPY_OPS = {"Mul": np.multiply, "Sub": np.subtract, "Div": np.divide}


@dataclass(frozen=True)
class Preprocessing:
    """How stored samples become the model's input: ``(x * scale - mean) / std`` with x in pixel space.

    Attributes:
        scale: Factor on pixel space; 255 for models that take 0 to 255.
        mean: One number or one a channel, in the scaled space; or a word of :data:`NORMALISATIONS`.
        std: Likewise.
        layout: The layout of the stored samples; None settles it against the model's input.
        bounds: Smallest and largest value of pixel space.

    Examples:
        >>> Preprocessing(mean="mnist", std="mnist").mean
        (0.1307,)
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    def __init__(
        self,
        scale: float = 1.0,
        mean: Sequence[float] | str = (),
        std: Sequence[float] | str = (),
        layout: Layout | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        fields = {
            "scale": scale,
            "mean": named("mean", mean) if isinstance(mean, str) else tuple(mean),
            "std": named("std", std) if isinstance(std, str) else tuple(std),
            "layout": layout,
            "bounds": bounds,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        """Check the numbers.

        Raises:
            DataError: a scale or std of 0, bounds the wrong way round, or a number that float32 can't hold.
        """
        if self.scale == 0 or any(s <= 0 for s in self.std):
            raise DataError("{scale} must not be 0 and every {std} must be above 0", parameter=("scale", "std"))
        for name, values in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std), ("bounds", self.bounds)):
            with np.errstate(over="ignore"):
                kept = np.asarray(values, np.float64).astype(np.float32)
            if not np.isfinite(kept).all() or (name in {"scale", "std"} and not kept.all()):
                raise DataError(
                    f"{{{name}}} {','.join(f'{v:g}' for v in values)} is too large or too small for float32",
                    parameter=name,
                )
        if not self.bounds[0] < self.bounds[1]:
            raise DataError(
                f"{{bounds}} {self.bounds[0]:g},{self.bounds[1]:g}: the first must be below the second",
                parameter="bounds",
            )

    def steps(self, rank: int, channel_axis: int) -> tuple[Step, ...]:
        """Return what leads from pixel space to the model's input: ONNX ops with their constants, in order.

        Steps that change nothing are left out.

        Args:
            rank: Rank of a batch, the batch axis included.
            channel_axis: Axis of a batch that mean and std run along where they have one number a channel.
        """
        found: list[Step] = []
        if self.scale != 1:
            found.append(("Mul", np.asarray(self.scale, np.float64)))
        for op, values, neutral in (("Sub", self.mean, 0.0), ("Div", self.std, 1.0)):
            if any(value != neutral for value in values):
                shape = (-1, *(1 for _ in range(rank - 1 - channel_axis))) if len(values) > 1 else ()
                found.append((op, np.asarray(values, np.float64).reshape(shape)))
        return tuple(found)

    def apply(self, pixels: NDArray[np.float32], channel_axis: int) -> NDArray[np.float32]:
        """Return a batch of pixels as the model takes it, computed in float32."""
        found = pixels
        for op, values in self.steps(pixels.ndim, channel_axis):
            found = _NUMPY_OPS[op](found, values.astype(np.float32))
        return found

    def check_channels(self, sample: tuple[int | None, ...], channel_axis: int) -> None:
        """Check mean and std against the channels of samples.

        Args:
            sample: Shape of a sample in the model's layout; None for free dimensions.
            channel_axis: Axis of a batch that counts channels.

        Raises:
            DataError: mean or std has neither one number nor one a channel.
        """
        channels = sample[channel_axis - 1 : channel_axis]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) > 1 and channels not in {(len(values),), (None,)}:
                raise DataError(
                    f"{{{name}}} has {len(values)} numbers for {', '.join(map(str, channels)) or 'no'} channel"
                    f"{'' if channels == (1,) else 's'} of the samples; give one number, or one a channel",
                    parameter=name,
                )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a JSON file, tuples as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def named(field: Literal["mean", "std"], word: str) -> tuple[float, ...]:
    """Return the mean or std that a word stands for; raises DataError for an unknown word."""
    found = NORMALISATIONS.get(word.strip().lower())
    if found is None:
        known = ", ".join(NORMALISATIONS)
        raise DataError(
            f"{{{field}}} knows no word {word!r} (it knows {known}){nearest(word, NORMALISATIONS)}", parameter=field
        )
    return found.mean if field == "mean" else found.std


def model_layout(shape: Sequence[int | None]) -> ImageLayout:
    """Return the layout of a model's images, by the shape of its input without the batch axis."""
    return "nhwc" if shape[2] in _IMAGE_CHANNELS and shape[0] not in _IMAGE_CHANNELS else "nchw"


def channel_axis(shape: Sequence[int | None] | None) -> int:
    """Return the axis of a batch that counts channels: of images by the model's layout, of others the last.

    Args:
        shape: The model's input without the batch axis; None for free dimensions, or as a whole.
    """
    if shape is None:
        return 1
    if len(shape) == 3:
        return 3 if model_layout(shape) == "nhwc" else 1
    return len(shape)
