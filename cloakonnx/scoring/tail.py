"""The gradient of z_a - z_t by a tap: t is the label, a the class of the largest logit but the label's.

It comes from the backward graph of the head alone, so the backbone runs forward only. Where the head is linear it is
the difference of two columns of its weights, W_a - W_t.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import DataError, TapError
from cloakonnx.gradient import Loss, differentiate
from cloakonnx.graph import Model, Tap, head, inline
from cloakonnx.runtime import Provider, Session, Value, to_numpy

_NUMPY_TYPES: dict[int, type[np.floating]] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}


class TailGradient:
    """Gradients of the margin between the strongest other class and the label, by a tap.

    Args:
        model: The model.
        tap: The tap.
        provider: Where it runs.
        linear: Whether the class scores must be linear in the tap, and for what, for the message.
        output_name: The class scores, where there are several outputs.

    Raises:
        TapError: the output does not depend on the tap, or not linearly although it must.
        DifferentiationError: an op without a rule, or an output that is no class scores.
    """

    def __init__(
        self, model: Model, tap: Tap, provider: Provider, *, linear: str | None = None, output_name: str | None = None
    ) -> None:
        part = head(model, tap.name, output_name)
        if linear is not None and part.nonlinear is not None:
            raise TapError(
                f"--criterion {linear} needs a linear head after the tap, but {part.nonlinear} comes after "
                f"{tap.name!r}; take --criterion gradient-x-activation, which works at any tap, or a later tap"
            )
        self.sides = part.sides
        """Tensors that are needed beside the tap."""
        self._name, self._model_name = tap.name, model.name
        self._graph = differentiate(
            inline(dataclasses.replace(model, proto=part.proto)),
            loss=Loss.MARGIN,
            provider=provider.device,
            input_name=tap.name,
        )
        self._session = Session(self._graph.proto, provider)
        self._types = {v.name: v.type.tensor_type.elem_type for v in self._graph.proto.graph.input}
        self._casts = tap.elem_type not in _NUMPY_TYPES

    @property
    def elem_type(self) -> int:
        """ONNX element type of the gradients."""
        return self._types[self._graph.image]

    def __call__(self, values: list[Value], y: NDArray[np.int64]) -> Value:
        """Return the gradient of each sample's own margin, of the tap's shape.

        Args:
            values: The tap and the sides for a batch.
            y: (N,) labels.

        Raises:
            DataError: a label that is no class of the model.
        """
        wrong = y[(y < 0) | (y >= self._graph.classes)]
        if len(wrong):
            raise DataError(
                f"label {int(wrong[0])} does not fit {self._model_name}, which has {self._graph.classes} classes"
            )
        assert self._graph.labels is not None  # the margin asks for them
        tap, *sides = values
        image: Value = to_numpy(tap).astype(_NUMPY_TYPES[self.elem_type]) if self._casts else tap
        count, size = len(y), self._session.fixed_batch or len(y)
        feed = {self._graph.image: image, **dict(zip(self.sides, sides, strict=True)), self._graph.labels: y}
        if count < size:
            feed = {name: _filled(to_numpy(value), size) for name, value in feed.items()}
        feed = {name: value for name, value in feed.items() if name in self._session.inputs}
        (gradient,) = self._session.run(feed, [self._graph.gradient])
        return gradient if count == size else to_numpy(gradient)[:count]


def _filled(part: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
