"""The gradient of class scores by a tap, from the backward graph of the head alone: the backbone runs forward only."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.errors import TapError
from cloakonnx.gradient.differentiate import GradientGraph, differentiate
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.masks.taps import Tap
from cloakonnx.graph.subgraphs.head import head, masked_head
from cloakonnx.graph.subgraphs.inline import held
from cloakonnx.runtime.session import Session, Value, filled_up, to_numpy

_NUMPY_TYPES: dict[int, type[np.floating]] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}


class Tail:
    """A head that runs: forward, and with a loss backward to the tap.

    Args:
        classifier: The classifier.
        tap: The tap.
        loss: What the gradient is of; None for the class scores alone.
        masked: Whether a mask is an input.

    Attributes:
        sides: Tensors that are needed beside the tap.
        nonlinear: What keeps the class scores from being linear in the tap; None where they are.
        mask: Input of :attr:`graph` for the mask, float32, double where the tap is double; None without.
        graph: What runs.

    Raises:
        TapError: the output does not depend on the tap.
        DifferentiationError: an op without a rule, or an output that is no class scores.
    """

    def __init__(
        self,
        classifier: Classifier,
        tap: Tap,
        *,
        loss: Loss | None,
        masked: bool = False,
    ) -> None:
        model, provider, output_name = classifier.model, classifier.provider, classifier.output_name
        part = head(model, tap.name, output_name)
        self.sides, self.nonlinear = part.sides, part.nonlinear
        proto, entry = part.proto, tap.name
        self.mask: str | None = None
        if masked:
            cut = masked_head(model, tap, output_name)
            proto, entry, self.mask, self.sides = cut.proto, cut.unmasked, cut.mask, cut.sides
        whole, folder = held(dataclasses.replace(model, proto=proto))
        self.graph: GradientGraph = differentiate(
            whole,
            loss=loss,
            provider=provider.device,
            input_name=entry,
            output_name=output_name,
            probabilities=classifier.probabilities,
        )
        self._session = Session(self.graph.proto, provider, folder=folder)
        self._types = {v.name: v.type.tensor_type.elem_type for v in self.graph.proto.graph.input}
        self._casts = tap.elem_type not in _NUMPY_TYPES

    @property
    def elem_type(self) -> int:
        """ONNX element type in which the tap goes in, and gradients come out."""
        return self._types[self.graph.image]

    def run(self, values: list[Value], output: str, extra: dict[str, NDArray[np.generic]]) -> Value:
        """Return one output for a batch.

        Args:
            values: The tap and the sides.
            output: An output of :attr:`graph`.
            extra: The graph's other inputs; those of as many samples as the batch are filled up with it where the
                graph fixes the batch.
        """
        tap, *sides = values
        image: Value = to_numpy(tap).astype(_NUMPY_TYPES[self.elem_type]) if self._casts else tap
        count = int(image.shape[0] if isinstance(image, np.ndarray) else image.shape()[0])
        size = self._session.fixed_batch or count
        feed: dict[str, Value] = {self.graph.image: image, **dict(zip(self.sides, sides, strict=True)), **extra}
        if count < size:
            shared = {self.mask}
            feed = {name: value if name in shared else filled_up(to_numpy(value), size) for name, value in feed.items()}
        (found,) = self._session.run({n: v for n, v in feed.items() if n in self._session.inputs}, [output])
        return found if count == size else to_numpy(found)[:count]


class MarginGradient:
    """Gradients of z_a - z_t by a tap: t is the label, a the class of the largest logit but the label's.

    Where the head is linear it is the difference of two columns of its weights, W_a - W_t.

    Args:
        classifier: The classifier.
        tap: The tap.
        linear: The criterion that asks the class scores to be linear in the tap, for the message; None where none does.

    Raises:
        TapError: the output does not depend on the tap, or not linearly although it must.
        DifferentiationError: an op without a rule, or an output that is no class scores.
    """

    def __init__(self, classifier: Classifier, tap: Tap, *, linear: str | None = None) -> None:
        self._tail = Tail(classifier, tap, loss=Loss.MARGIN)
        self._task = classifier.task
        found = self._tail.nonlinear
        if linear is not None and found is not None:
            raise TapError(
                f"{{criterion}} {linear} needs a linear head after the tap, but {found} comes after {tap.name!r}; take "
                "{criterion} gradient-x-activation, which works at any tap, or a later tap",
                parameter="criterion",
            )

    @property
    def sides(self) -> tuple[str, ...]:
        """Tensors that are needed beside the tap."""
        return self._tail.sides

    @property
    def elem_type(self) -> int:
        """ONNX element type of the gradients."""
        return self._tail.elem_type

    def __call__(self, values: list[Value], y: NDArray[np.int64]) -> Value:
        """Return the gradient of each sample's own margin, of the tap's shape.

        Args:
            values: The tap and the sides for a batch.
            y: (N,) labels.

        Raises:
            DataError: a label that is no class of the model.
        """
        graph = self._tail.graph
        self._task.check(y, graph.classes)
        assert graph.labels is not None  # the margin asks for them
        return self._tail.run(values, graph.gradient, {graph.labels: y})


def linear_weights(classifier: Classifier, tap: Tap, values: list[Value]) -> NDArray[np.float64]:
    """Return (classes, ...) the weights of a linear head: the gradient of each class score by the tap.

    Args:
        classifier: The classifier.
        tap: A tap with a linear head.
        values: The tap and the sides for any samples.
    """
    tail = Tail(classifier, tap, loss=Loss.COTANGENT)
    assert tail.nonlinear is None
    assert tail.graph.cotangent is not None  # the loss asks for it
    count, classes = len(to_numpy(values[0])), tail.graph.classes
    rows = []
    for one in np.eye(classes, dtype=_NUMPY_TYPES[tail.elem_type]):
        extra = {tail.graph.cotangent: np.broadcast_to(one, (count, classes))}
        rows.append(to_numpy(tail.run(values, tail.graph.gradient, extra))[0])
    return np.stack(rows).astype(np.float64)
