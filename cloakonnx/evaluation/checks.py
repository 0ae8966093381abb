"""What the checks of hardened models share: the check itself, and two models run on the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import Dataset
from cloakonnx.errors import InferenceError, ModelError
from cloakonnx.graph import Difference, Model
from cloakonnx.runtime import Activations, Provider, input_shape

Status = Literal["passed", "failed", "not checked"]

_SEEDED_SAMPLES = 4
_SEEDED_SIDE = 64
_BATCH = 64
_LISTED = 5


@dataclass(frozen=True)
class Check:
    """One thing that was checked, or could not be."""

    name: str
    status: Status
    detail: str


def listed(found: Sequence[Difference]) -> str:
    """The first few differences, in words."""
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(map(str, found[:_LISTED])) + more


@dataclass(frozen=True)
class Trial:
    """What the numbers are compared on and with."""

    provider: Provider
    samples: Dataset | None
    seed: int
    input_name: str | None

    def run(self, model: Model, *taps: str) -> Activations:
        """Return what computes some tensors of a model."""
        normalisation = None if self.samples is None else self.samples.normalisation
        return Activations(model, taps, provider=self.provider, normalisation=normalisation, input_name=self.input_name)

    def batches(self, model: Model) -> Iterator[NDArray[np.float32]]:
        """Yield the samples in pixel space."""
        if self.samples is not None:
            yield from (batch.x for batch in self.samples.batches(_BATCH))
            return
        shape: Sequence[int | None] = input_shape(model, self.input_name) or ()
        sides = [side or _SEEDED_SIDE for side in shape]
        yield np.random.default_rng(self.seed).random((_SEEDED_SAMPLES, *sides), np.float32)


class NotComparableError(Exception):
    """What the masked model is to be compared with does not run, so nothing can be said of the masked one."""


@contextmanager
def as_not_comparable() -> Iterator[None]:
    """Turn what keeps a model from running into NotComparableError."""
    try:
        yield
    except (InferenceError, ModelError) as error:
        raise NotComparableError(error) from None


def largest_difference(masked: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """NaN equals NaN here, and infinity itself: what the source has of them is not the mask's doing."""
    if masked.shape != wanted.shape:
        return float("nan")
    differ = (masked != wanted) & ~(np.isnan(masked) & np.isnan(wanted))
    return float(np.abs(masked[differ] - wanted[differ]).max(initial=0.0))
