"""A model as it is fed: what every graph that is derived from it needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx

from cloakonnx.classifier.declared import shape_of
from cloakonnx.graph.file.model import Model
from cloakonnx.preprocessing import Preprocessing, Step, channel_axis
from cloakonnx.runtime.provider import Provider


@dataclass(frozen=True)
class FedModel:
    """A model, its data input, the way from pixel space to it, and where it runs.

    Attributes:
        model: The model.
        input_name: The data input.
        preprocessing: From pixel space to the input.
        provider: Where it runs.
        at_a_time: How many samples go into a run; None for as many as there are.
        batch_axis: Axis of the input that counts samples; batches have them along the first.
    """

    model: Model
    input_name: str
    preprocessing: Preprocessing
    provider: Provider
    at_a_time: int | None = None
    batch_axis: int = 0

    @cached_property
    def tensor(self) -> onnx.TypeProto.Tensor:
        """Type of the data input."""
        return self.model.input(self.input_name).type.tensor_type

    @cached_property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the data input without the batch axis; None for free dimensions, or as a whole."""
        return shape_of(self.tensor, self.batch_axis)

    @property
    def channel_axis(self) -> int:
        """Axis of a batch that counts channels."""
        return channel_axis(self.input_shape)

    def check_channels(self, sample: tuple[int | None, ...] | None = None) -> None:
        """Check mean and std against samples of a shape, or against what the input declares where None.

        Raises:
            DataError: mean or std has neither one number nor one a channel.
        """
        shape = self.input_shape if sample is None else sample
        if shape is not None:
            self.preprocessing.check_channels(shape, self.channel_axis)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The ops from pixel space to the input."""
        return self.preprocessing.steps(len(self.tensor.shape.dim), self.channel_axis)
