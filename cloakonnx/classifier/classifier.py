"""The model as its user sees it: images in pixel space in, logits out; and the tensors in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import ModelError
from cloakonnx.graph import FLOAT_TYPES, Model, Normalisation, scores_of, tapped
from cloakonnx.runtime.decision import Decision, class_scores
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Chunk, Session, Value, to_numpy


class Activations:
    """Runs a model up to some of its tensors.

    Args:
        model: The model.
        taps: Names of tensors in its main graph.
        provider: Where it runs.
        normalisation: From pixel space to the model's input.
        input_name: The data input; needed where there are several.

    Raises:
        ModelError: the input can't be told, or others are needed beside it.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: Model,
        taps: Sequence[str],
        *,
        provider: Provider,
        normalisation: Normalisation | None = None,
        input_name: str | None = None,
    ) -> None:
        entry = model.input(input_name)
        graph = tapped(model.proto, taps, input_name=entry.name, normalisation=normalisation)
        self._half: _HalfInput | None = None
        if entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            self._half = _HalfInput(normalisation or Normalisation(), len(entry.type.tensor_type.shape.dim))
            graph = tapped(model.proto, taps, input_name=entry.name)
        self._session = Session(graph, provider, folder=model.folder)

    def chunks(self, batch: NDArray[np.float32]) -> Iterator[Chunk]:
        """Yield the tensors for a batch in pixel space, left on the device, for as many samples as the graph takes."""
        return self._session.apply(batch if self._half is None else self._half(batch))

    def filled(self, batch: NDArray[np.float32]) -> Iterator[tuple[list[Value], int, int]]:
        """Yield the tensors as the graph gives them, with the number of real samples and of all in each.

        Where the graph fixes the batch, the last chunk is filled up with copies of its last sample. Nothing is cut off,
        so that tensors whose first axis is not the batch come whole.
        """
        given = batch if self._half is None else self._half(batch)
        for chunk, real in self._session.chunks(given):
            yield list(self._session.run({self._session.inputs[0]: chunk})), real, len(chunk)

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the tensors for a batch in pixel space in host memory, each with the samples along axis 0."""
        parts = [chunk.values for chunk in self.chunks(batch)]
        return [
            np.concatenate([np.atleast_1d(to_numpy(part[i])) for part in parts])
            for i in range(len(self._session.outputs))
        ]


@dataclass(frozen=True)
class _HalfInput:
    """Leads from pixel space to a float16 input in host memory, rounded to what float16 can hold.

    Left to the graph, ONNX Runtime's CPU provider computes in float32 and drops the Cast to float16 as free of loss,
    so that the model would see other values than it does in use.
    """

    normalisation: Normalisation
    rank: int

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model's input, as float32."""
        wide = batch * np.float32(self.normalisation.scale)
        if self.normalisation.mean:
            wide = wide - self._along_channels(self.normalisation.mean)
        if self.normalisation.std:
            wide = wide / self._along_channels(self.normalisation.std)
        return wide.astype(np.float16).astype(np.float32)

    def _along_channels(self, values: tuple[float, ...]) -> NDArray[np.float32]:
        after = self.rank - 1 - self.normalisation.channel_axis if len(values) > 1 else 0
        return np.array(values, np.float32).reshape(-1, *(1 for _ in range(after)))


class Classifier:
    """A classifier: one data input, one output of class scores (N, classes) or (N, 1).

    Args:
        model: The model.
        provider: Where it runs.
        normalisation: From pixel space to the model's input.
        input_name: The data input; needed where there are several.
        output_name: The class scores; needed where there are several outputs.

    Raises:
        ModelError: input or output can't be told.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: Model,
        *,
        provider: Provider,
        normalisation: Normalisation | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        self._output = model.output(output_name).name
        self._decision = Decision(model, self._output)
        self._run = Activations(
            model, [self._output], provider=provider, normalisation=normalisation, input_name=input_name
        )

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class scores, (N, classes) float32, of a batch in pixel space.

        Raises:
            InferenceError: the output is not one row of scores a sample.
        """
        return class_scores(self._run(batch)[0], len(batch), self._output)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the predicted classes, (N,) int64; one score a sample stands for two classes."""
        return self._decision(self.logits(batch))

    def predictions(self, batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.int64]]:
        """Yield the predicted classes batch by batch."""
        return (self.predict(batch) for batch in batches)


def class_count(model: Model, output_name: str | None = None) -> int | None:
    """Return how many classes the output tells, where its shape is known; one score means two classes."""
    try:
        name = model.output(output_name).name
    except ModelError:
        return None
    for value in (*model.inferred.graph.output, *model.proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name != name or not dims or value.type.tensor_type.elem_type not in FLOAT_TYPES:
            continue
        try:
            count = scores_of([d.dim_value or None for d in dims], name)
        except ModelError:  # whoever needs its classes says so
            return None
        if count:
            return max(count, 2)
    return None


def input_shape(model: Model, input_name: str | None = None) -> tuple[int | None, ...] | None:
    """Return the shape of the data input without the batch axis: an int, or None where the dimension is free."""
    tensor: onnx.TypeProto.Tensor = model.input(input_name).type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)[1:]
