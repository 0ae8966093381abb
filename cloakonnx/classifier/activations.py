"""Runs a model up to some of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.graph.file.model import Model
from cloakonnx.graph.subgraphs.cut import Normalisation, tapped
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
