"""Random changes of images while masks are learned: mirrored and shifted, a function of sample and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.random import Stream
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import DataError
from cloakonnx.selection.learn.recipe import Recipe


@dataclass(frozen=True)
class Augmentation:
    """Mirrors about half of the images, and moves each by some pixels; what comes in at the edges is black.

    Attributes:
        width_axis: Axis of a batch that runs from left to right; the one before it runs from top to bottom.
        flip: Whether to mirror.
        shift: Pixels that an image moves at most, in each direction.
        black: What comes in at the edges, in pixel space.
        seed: Of the random numbers.
    """

    width_axis: int
    flip: bool
    shift: int
    black: float
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset) -> Augmentation | None:
        """Return what changes the samples of a dataset; None where a settled recipe asks for nothing.

        Raises:
            DataError: the samples are no images, or smaller than the shift.
        """
        flip, shift = bool(recipe.flip), recipe.shift or 0
        if not flip and not shift:
            return None
        shape = dataset.sample_shape
        option = "flip" if flip else "shift"
        if len(shape) != 3:
            raise DataError(
                f"{dataset.source.name}: samples of shape {shape} are no images with channels, so there is nothing to "
                f"{'mirror' if flip else 'shift'}; leave out {{{option}}}",
                parameter=option,
            )
        width = 3 if dataset.arrangement.channel_axis == 1 else 2
        smallest = min(shape[width - 2], shape[width - 1])
        if shift >= smallest:
            raise DataError(
                f"{{shift}} {shift} moves images of {smallest} pixels out of sight; take {smallest // 8}, say",
                parameter="shift",
            )
        low = dataset.preprocessing.bounds[0]
        return cls(width, flip, shift, low if np.isfinite(low) else 0.0, recipe.seed)

    def __call__(self, x: NDArray[np.float32], rows: NDArray[np.int64], *, epoch: int) -> NDArray[np.float32]:
        """Return a changed copy of a batch (N, ...); ``rows`` (N,) are the samples' places in the whole set."""
        found = x.copy()
        if self.flip:
            turned = Stream.of(self.seed, "learn-flip", epoch, rows).integers(2) == 1
            found[turned] = np.flip(x[turned], self.width_axis)
        return self._shifted(found, Stream.of(self.seed, "learn-shift", epoch, rows)) if self.shift else found

    def _shifted(self, x: NDArray[np.float32], stream: Stream) -> NDArray[np.float32]:
        room = 2 * self.shift + 1
        down, right = (stream.integers(room, draw=draw) for draw in (0, 1))
        top, left = self.width_axis - 1, self.width_axis
        padding = [(self.shift, self.shift) if axis in {top, left} else (0, 0) for axis in range(x.ndim)]
        padded = np.pad(x, padding, constant_values=np.float32(self.black))
        found = np.empty_like(x)
        for i, image in enumerate(padded):
            cut = [slice(None)] * image.ndim
            cut[top - 1] = slice(down[i], down[i] + x.shape[top])
            cut[left - 1] = slice(right[i], right[i] + x.shape[left])
            found[i] = image[tuple(cut)]
        return found
