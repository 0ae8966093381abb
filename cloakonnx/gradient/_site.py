"""A node at which the flow of gradients arrives, as the rules see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cloakonnx.errors import DifferentiationError
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import Dim, reads
from cloakonnx.graph.index.node import NodeView, describe


@dataclass(frozen=True)
class GradientSite(NodeView):
    """A node of the forward graph and the gradients of its outputs.

    Rules read the node, and may only name further outputs of it.

    Attributes:
        build: Where to emit.
        grads: Gradient of each output, None where none arrived; each has the shape and type of its output.
        wanted: Positions in :attr:`reads` whose gradient is needed, in order.
    """

    build: Builder
    grads: tuple[Tensor | None, ...]
    wanted: tuple[int, ...]

    @property
    def dy(self) -> Tensor:
        """Gradient of the first output."""
        grad = self.grads[0]
        if grad is None:
            raise self.error("only its first output is differentiated")
        return grad

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> Tensor:
        """The first output."""
        return self.output(0)

    def input(self, position: int) -> Tensor:
        """Return an input."""
        return self.build.tensor(self.reads[position])

    @cached_property
    def reads(self) -> list[str]:
        """The names of what the node reads: its inputs, and behind them what its bodies capture."""
        return reads(self.node)

    def output(self, position: int) -> Tensor:
        """Return an output."""
        return self.build.tensor(self.node.output[position])

    def wants(self, position: int) -> bool:
        """Whether the gradient of the input at ``position`` is needed."""
        return position in self.wanted

    def only(self, *positions: int) -> None:
        """Raise unless the wanted inputs are among ``positions``."""
        others = set(self.wanted).difference(positions)
        if others:
            name = self.reads[min(others)]
            raise self.error(f"its input {min(others)} ({name!r}) depends on the data, which has no rule")

    def constant(self, position: int, what: str) -> npt.NDArray[np.generic]:
        """Value of the input at ``position``; an error that says ``what`` must be constant where it is not."""
        value = self.value(position)
        if value is None:
            raise self.error(f"its {what} must be constant")
        return value

    def shape(self, tensor: Tensor, what: str) -> tuple[Dim, ...]:
        """Shape of a tensor of known rank; an error that says ``what`` is needed where the rank is unknown."""
        shape = tensor.dims
        if shape is None:
            raise self.error(f"the rank of its {what} is unknown; give the model an input of fixed shape")
        return shape

    @property
    def rank(self) -> int:
        """Rank of the data input; an error where it is unknown."""
        return len(self.shape(self.x, "data input"))

    @property
    def channels(self) -> int:
        """Size of axis 1 of the data input; an error where it is unknown."""
        channels = self.shape(self.x, "data input")[1]
        if not isinstance(channels, int):
            raise self.error("the number of its channels is unknown")
        return channels

    def error(self, reason: str) -> DifferentiationError:
        """Build the error that names the node."""
        return DifferentiationError(
            f"cannot differentiate {describe(self.node)}: {reason}; black-box attacks need no gradient: "
            "{attack} square",
            parameter="attack",
        )
