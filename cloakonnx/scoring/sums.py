"""Sums over clean/adversarial pairs that grow with the features, not with the samples, and that merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.errors import InferenceError
from cloakonnx.graph.build import Builder
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session, Value, to_numpy, value_shape


@dataclass(frozen=True, eq=False)
class Moments:
    """What criteria need of a tap's activations, per feature, in float64.

    Attributes:
        count: Values behind each feature's sums: samples times the size of every other axis.
        abs_delta: (F,) sum of |adversarial - clean|.
        abs_clean: (F,) sum of |clean|.
        mean: (F,) mean of clean.
        m2: (F,) sum of squared deviations of clean from its mean.
    """

    count: int
    abs_delta: NDArray[np.float64]
    abs_clean: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def zero(cls, features: int) -> Moments:
        """Return the moments of no pairs."""
        return cls(0, *(np.zeros(features) for _ in range(4)))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of pairs together.

        Source: Chan, Golub and LeVeque (1979), Updating Formulae and a Pairwise Algorithm, eq. 2.1, for mean and m2.
        """
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.abs_delta + other.abs_delta,
            self.abs_clean + other.abs_clean,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta * delta * (self.count * other.count / count),
        )


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums of the clean activations class by class.

    Attributes:
        labels: (C,) int64, ascending: the classes that came up.
        counts: (C,) int64: values behind each class's sums, for one feature.
        totals: (C, F) float64.
    """

    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.float64]

    def merge(self, other: ClassSums) -> ClassSums:
        """Return the sums of both together."""
        labels, places = np.unique(np.concatenate([self.labels, other.labels]), return_inverse=True)
        counts = np.zeros(len(labels), np.int64)
        totals = np.zeros((len(labels), self.totals.shape[1]))
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        np.add.at(totals, places, np.concatenate([self.totals, other.totals]))
        return ClassSums(labels, counts, totals)

    def between(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (F,) the sum of squared deviations of the classes' means from the mean, each as often as it counts."""
        counts = self.counts[:, None]
        return np.asarray((counts * (self.totals / counts - mean) ** 2).sum(axis=0))


@dataclass(frozen=True, eq=False)
class Attribution:
    """Value times gradient, summed.

    Attributes:
        samples: How many samples went in.
        total: (F,) float64 over samples and every axis but the feature axis.
    """

    samples: int
    total: NDArray[np.float64]

    def merge(self, other: Attribution) -> Attribution:
        """Return the sums of both together."""
        return Attribution(self.samples + other.samples, self.total + other.total)


@dataclass(frozen=True, eq=False)
class Sums:
    """All that a criterion asked for; None for what it did not."""

    moments: Moments
    classes: ClassSums | None = None
    attribution: Attribution | None = None

    def merge(self, other: Sums) -> Sums:
        """Return the sums of both sets of pairs together."""
        classes = self.classes.merge(other.classes) if self.classes and other.classes else None
        attribution = self.attribution.merge(other.attribution) if self.attribution and other.attribution else None
        return Sums(self.moments.merge(other.moments), classes, attribution)


class Attributed(Enum):
    """What is multiplied with the gradient of z_a - z_t by the tap, before it is summed over the samples."""

    MOVEMENT = "d = h_adv - h_clean"
    ACTIVATION = "h_adv"


_OUTPUTS = ("abs_delta", "abs_clean", "mean", "m2")
_OPSET = 13
_DOUBLE = TensorProto.DOUBLE


def reduction_graph(tap: Tap, rank: int, *, full: bool) -> onnx.ModelProto:
    """Return the graph that reduces a clean and an adversarial activation of a tap to (F,) float64 sums.

    Differences are taken in float32, or in double where the tap is double, and cast to double before they are summed:
    half the memory traffic of casting both activations first. ``full`` adds what criteria other than DeepCloak's need.
    """
    others = [axis for axis in range(rank) if axis != tap.feature_axis]
    build = Builder.alone(opset=_OPSET)
    clean, adversarial = (build.input(name, tap.elem_type, [None] * rank) for name in ("clean", "adversarial"))
    wide = _DOUBLE if tap.elem_type == _DOUBLE else TensorProto.FLOAT
    moved = abs(adversarial.cast(wide) - clean.cast(wide)).cast(_DOUBLE)
    sums = [moved.sum(others, keepdims=False)]
    if full:
        c = clean.cast(_DOUBLE)
        deviation = c - c.mean(others)
        sums += [
            abs(c).sum(others, keepdims=False),
            c.mean(others, keepdims=False),
            (deviation * deviation).sum(others, keepdims=False),
        ]
    return build.model(*sums)


def class_graph(tap: Tap, rank: int) -> onnx.ModelProto:
    """Return the graph from a clean activation and (C, N) double memberships, 0 or 1, to (C, F) double sums."""
    inside = [axis for axis in range(1, rank) if axis != tap.feature_axis]
    build = Builder.alone(opset=_OPSET)
    samples = build.input("clean", tap.elem_type, [None] * rank).cast(_DOUBLE).sum(inside, keepdims=False)
    return build.model(build.input("membership", _DOUBLE, [None, None]).op("MatMul", samples))


def attribution_graph(tap: Tap, rank: int, attributed: Attributed, gradient_type: int) -> onnx.ModelProto:
    """Return the graph from the adversarial and clean activations and a gradient of their shape to (F,) double sums.

    Values are cast to double before they are subtracted, multiplied and summed.
    """
    others = [axis for axis in range(rank) if axis != tap.feature_axis]
    build = Builder.alone(opset=_OPSET)
    value = build.input("adversarial", tap.elem_type, [None] * rank).cast(_DOUBLE)
    gradient = build.input("gradient", gradient_type, [None] * rank).cast(_DOUBLE)
    if attributed is Attributed.MOVEMENT:
        value = value - build.input("clean", tap.elem_type, [None] * rank).cast(_DOUBLE)
    return build.model((value * gradient).sum(others, keepdims=False))


class Reducer:
    """Turns pairs of activations into moments on the device where they are."""

    def __init__(self, tap: Tap, provider: Provider, *, full: bool) -> None:
        self._tap = tap
        self._session = Session(reduction_graph(tap, len(tap.shape), full=full), provider)

    def __call__(self, clean: Value, adversarial: Value, *, start: int) -> Moments:
        """Return the moments of one batch of pairs.

        Args:
            clean: The tap's activation on clean inputs.
            adversarial: On their adversarial versions, of the same shape.
            start: Index of the first sample, for messages.

        Raises:
            InferenceError: an activation that is NaN or infinite; the message names tap, feature and sample.
        """
        shape = value_shape(clean)
        if shape != value_shape(adversarial) or len(shape) != len(self._tap.shape):
            raise InferenceError(
                f"tap {self._tap.name!r} has shape {shape} on clean inputs, {value_shape(adversarial)} on others"
            )
        sums = [to_numpy(v) for v in self._session.run({"clean": clean, "adversarial": adversarial})]
        if not all(np.isfinite(s).all() for s in sums):
            for kind, value in (("clean", clean), ("adversarial", adversarial)):
                _raise_where_not_finite(to_numpy(value), kind, self._tap, start)
            raise InferenceError(f"the sums of tap {self._tap.name!r} overflow float64 in the batch at sample {start}")
        features = shape[self._tap.feature_axis]
        empty: Sequence[NDArray[np.float64]] = [np.zeros(features)] * (len(_OUTPUTS) - len(sums))
        return Moments(int(np.prod(shape)) // features, *sums, *empty)


class ClassReducer:
    """Turns clean activations into sums class by class, on the device where they are."""

    def __init__(self, tap: Tap, provider: Provider) -> None:
        self._session = Session(class_graph(tap, len(tap.shape)), provider)

    def __call__(self, clean: Value, y: NDArray[np.int64], *, count: int) -> ClassSums:
        """Return the sums of one batch of samples with labels (N,); ``count``: values of each sample for a feature."""
        labels, counts = np.unique(y, return_counts=True)
        membership = (labels[:, None] == y).astype(np.float64)
        (totals,) = self._session.run({"clean": clean, "membership": membership})
        return ClassSums(labels, counts * count, to_numpy(totals))


class AttributionReducer:
    """Turns activations and gradients into sums of their products, on the device where they are."""

    def __init__(self, tap: Tap, provider: Provider, attributed: Attributed, *, gradient_type: int) -> None:
        self._tap = tap
        self._session = Session(attribution_graph(tap, len(tap.shape), attributed, gradient_type), provider)

    def __call__(self, clean: Value, adversarial: Value, gradient: Value, *, start: int) -> Attribution:
        """Return the sums of one batch.

        Raises:
            InferenceError: a gradient that is NaN or infinite.
        """
        given = {"clean": clean, "adversarial": adversarial, "gradient": gradient}
        (total,) = self._session.run({name: given[name] for name in self._session.inputs})
        found = to_numpy(total)
        if not np.isfinite(found).all():
            feature = int(np.argwhere(~np.isfinite(found))[0][0])
            raise InferenceError(
                f"the gradient by tap {self._tap.name!r} is not finite at feature {feature} in the batch at sample "
                f"{start}"
            )
        return Attribution(value_shape(adversarial)[0], found)


def _raise_where_not_finite(activation: NDArray[Any], kind: str, tap: Tap, start: int) -> None:
    bad = np.argwhere(~np.isfinite(activation))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise InferenceError(
            f"tap {tap.name!r} is {activation[at]} at feature {at[tap.feature_axis]} of {kind} sample {start + at[0]}: "
            "the model overflows on this input, or the preprocessing ({scale}, {mean}, {std}) is not the model's",
            parameter=("scale", "mean", "std"),
        )
