"""Class scores of fixed inputs under changing 0/1 masks at one tap: the backbone runs once, then only the head.

A linear head needs no more runs at all: taking feature i away takes h_i W_i from the logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.head import Tail, linear_weights
from cloakonnx.errors import DataError, TapError
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.graph.subgraphs.head import mask_input
from cloakonnx.runtime.session import Value, to_numpy

_BLOCK = 1 << 23
"""Numbers in the largest array that candidates are compared in: 64 MiB."""

Block = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Some features (B,), and the logits (B, N, classes) without each of them."""


class Ablation(Protocol):
    """Inputs whose features can be taken away."""

    def logits(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (N, classes) with the features that are False in the mask (F,) set to 0."""

    def without_each(self, mask: NDArray[np.bool_]) -> Iterator[Block]:
        """Yield the logits without what the mask removes and without one feature more, for each one that it keeps."""


class LinearAblation:
    """Behind a linear head, in closed form.

    Args:
        whole: (N, classes) the logits without a mask.
        features: (N, F, P) activations, P positions of each feature.
        weights: (F, P, classes) of the head.
    """

    def __init__(
        self, whole: NDArray[np.float64], features: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> None:
        self._whole, self._weights = whole, weights
        self._features = np.ascontiguousarray(features.transpose(1, 0, 2))

    def logits(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (N, classes) under a mask."""
        found = self._whole.copy()
        for start in range(0, len(mask), self._size):
            gone = np.flatnonzero(~mask[start : start + self._size]) + start
            found -= self._contributions(gone).sum(axis=0)
        return found

    def without_each(self, mask: NDArray[np.bool_]) -> Iterator[Block]:
        """Yield blocks of candidates."""
        now = self.logits(mask)
        kept = np.flatnonzero(mask)
        for start in range(0, len(kept), self._size):
            block = kept[start : start + self._size]
            yield block, now - self._contributions(block)

    @property
    def _size(self) -> int:
        return max(1, _BLOCK // max(self._whole.size, int(self._features[0].size)))

    def _contributions(self, features: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.matmul(self._features[features].astype(np.float64), self._weights[features]))


class HeadAblation:
    """Behind any head, with the mask as an input of its graph.

    Args:
        tail: The head with a mask.
        tap: The tap.
        parts: For each batch the tap and the sides, on the device.
    """

    def __init__(self, tail: Tail, tap: Tap, parts: list[list[Value]]) -> None:
        self._tail, self._tap, self._parts = tail, tap, parts

    def logits(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (N, classes) under a mask."""
        assert self._tail.mask is not None  # it was asked for
        extra = {self._tail.mask: mask_input(self._tap, [mask])}
        runs = [to_numpy(self._tail.run(values, self._tail.graph.logits, extra)) for values in self._parts]
        return np.concatenate(runs).astype(np.float64)

    def without_each(self, mask: NDArray[np.bool_]) -> Iterator[Block]:
        """Yield candidates one by one."""
        for feature in np.flatnonzero(mask):
            tried = mask.copy()
            tried[feature] = False
            yield np.array([feature]), self.logits(tried)[None]


class Ablations:
    """Makes ablations at one tap.

    Args:
        classifier: The classifier.
        tap: The tap.

    Raises:
        TapError: the output does not depend on the tap, or its type has no numpy counterpart.
        DifferentiationError: an output that is no class scores.
    """

    def __init__(self, classifier: Classifier, tap: Tap) -> None:
        if tap.elem_type == onnx.TensorProto.BFLOAT16:
            raise TapError(f"tap {tap.name!r} is bfloat16, which greedy selection can't mask; choose another tap")
        self._classifier, self._tap = classifier, tap
        self._tail = Tail(classifier, tap, loss=None, masked=True)
        self._activations = classifier.activations([tap.name, *self._tail.sides])
        self._weights: NDArray[np.float64] | None = None

    @property
    def is_linear(self) -> bool:
        """Whether logits are had in closed form."""
        return self._tail.nonlinear is None

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self._tail.graph.classes

    def of(self, batches: Iterable[NDArray[np.float32]]) -> Ablation:
        """Return the ablation of some inputs, given in batches of pixels in the model's layout.

        Raises:
            DataError: there are none.
        """
        parts = [chunk.values for batch in batches for chunk in self._activations.chunks(batch)]
        if not parts:
            raise DataError("there are no samples to select features on")
        whole = HeadAblation(self._tail, self._tap, parts)
        if not self.is_linear:
            return whole
        features = np.concatenate([self._by_feature(to_numpy(values[0])) for values in parts])
        ones = np.ones(features.shape[1], np.bool_)
        if self._weights is None:
            found = linear_weights(self._classifier, self._tap, parts[0])
            self._weights = np.ascontiguousarray(self._by_feature(found).transpose(1, 2, 0))
        return LinearAblation(whole.logits(ones), features, self._weights)

    def features(self, batch: NDArray[np.float32]) -> int:
        """Return how many features the tap has on this input."""
        chunk = next(iter(self._activations.chunks(batch)))
        shape: tuple[int, ...] = to_numpy(chunk.values[0]).shape
        return shape[self._tap.feature_axis]

    def _by_feature(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return (N, F, positions)."""
        moved = np.moveaxis(values, self._tap.feature_axis, 1)
        return np.asarray(moved.reshape(*moved.shape[:2], -1))
