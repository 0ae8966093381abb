"""From stored samples to pixel space in the model's layout, and what leads on from there to the model's input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cloakonnx.errors import DataError

Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Preprocessing:
    """How stored samples become the model's input: ``(x * scale - mean) / std`` with x in pixel space.

    Attributes:
        scale: Factor on pixel space; 255 for models that take 0 to 255.
        mean: One number or one a channel, in the scaled space.
        std: Likewise.
        layout: The layout of the stored samples; None settles it against the model's input.
        bounds: Smallest and largest value of pixel space.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: a scale or std of 0, bounds the wrong way round, or a number that float32 can't hold.
        """
        if self.scale == 0 or any(s <= 0 for s in self.std):
            raise DataError("--scale must not be 0 and every --std must be above 0")
        for name, values in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std), ("bounds", self.bounds)):
            with np.errstate(over="ignore"):
                kept = np.asarray(values, np.float64).astype(np.float32)
            if not np.isfinite(kept).all() or (name in {"scale", "std"} and not kept.all()):
                raise DataError(f"--{name} {','.join(f'{v:g}' for v in values)} is too large or too small for float32")
        if not self.bounds[0] < self.bounds[1]:
            raise DataError(f"--bounds {self.bounds[0]:g},{self.bounds[1]:g}: the first must be below the second")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a JSON file, tuples as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
