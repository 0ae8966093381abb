"""What gradient graphs give for one batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.runtime.session import Value


@dataclass(frozen=True)
class Answer:
    """Logits, losses and gradients of one batch.

    Attributes:
        logits: (N, classes) float32.
        loss: (N,) float32; larger is better for the attacker.
        gradient: Of the loss by the pixels, left on the device.
    """

    logits: NDArray[np.float32]
    loss: NDArray[np.float32]
    gradient: Value


@dataclass(frozen=True)
class MaskAnswer:
    """Logits, losses and mask gradients of one batch.

    Attributes:
        logits: (N, classes) float32.
        loss: (N,) float32.
        gradients: For each mask, of its shape, float64: the gradient of the sum of the losses.
        gradient: Of each sample's loss by its pixels, left on the device; None where it was not asked for.
    """

    logits: NDArray[np.float32]
    loss: NDArray[np.float32]
    gradients: dict[str, NDArray[np.float64]]
    gradient: Value | None = None
