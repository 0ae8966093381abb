"""Activations: runs a model up to some of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.classifier._fed import FedModel
from cloakonnx.graph.subgraphs.cut import tapped
from cloakonnx.runtime.session import Chunk, Session, Value, to_numpy


class Activations:
    """Runs a model up to some of its tensors; :meth:`Classifier.activations` makes it.

    Args:
        fed: The model as it is fed.
        taps: Names of tensors in its main graph.

    Raises:
        ModelError: other inputs are needed beside the data input.
        TapError: a tensor that is not there.
        DataError: mean and std do not fit the channels of the input.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(self, fed: FedModel, taps: Sequence[str]) -> None:
        self._fed = fed
        fed.check_channels()
        # Left to the graph, ONNX Runtime's CPU provider computes in float32 and drops the Cast to float16 as free of
        # loss, so that the model would see other values than it does in use.
        self._is_half = fed.tensor.elem_type == onnx.TensorProto.FLOAT16
        # An input of no declared rank does not tell where its channels are; the samples do.
        self._is_fed_apart = self._is_half or fed.input_shape is None
        steps = () if self._is_fed_apart else fed.steps
        graph = tapped(fed.model.proto, taps, input_name=fed.input_name, steps=steps, batch_axis=fed.batch_axis)
        self._session = Session(graph, fed.provider, folder=fed.model.folder, batch=fed.at_a_time)

    def chunks(self, batch: NDArray[np.float32]) -> Iterator[Chunk]:
        """Yield the tensors for a batch in pixel space, left on the device, for as many samples as the graph takes."""
        return self._session.apply(self._given(batch))

    def filled(self, batch: NDArray[np.float32]) -> Iterator[tuple[list[Value], int, int]]:
        """Yield the tensors as the graph gives them, with the number of real samples and of all in each.

        Where the graph fixes the batch, the last chunk is filled up with copies of its last sample. The copies are not
        removed, so that tensors whose first axis is not the batch are whole.
        """
        for chunk, real in self._session.chunks(self._given(batch)):
            yield list(self._session.run({self._session.inputs[0]: chunk})), real, len(chunk)

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Return the tensors for a batch in pixel space in host memory, each with the samples along axis 0."""
        parts = [chunk.values for chunk in self.chunks(batch)]
        return [
            np.concatenate([np.atleast_1d(to_numpy(part[i])) for part in parts])
            for i in range(len(self._session.outputs))
        ]

    def _given(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self._fed.check_channels(batch.shape[1:])
        if not self._is_fed_apart:
            return batch
        given = self._fed.preprocessing.apply(batch, self._fed.channel_axis)
        return given.astype(np.float16).astype(np.float32) if self._is_half else given
