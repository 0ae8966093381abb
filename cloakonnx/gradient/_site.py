"""A node at which the flow of gradients arrives, as the rules see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient.info import Dim, TensorInfo


@dataclass(frozen=True)
class Site:
    """A node of the forward graph and the gradients of its outputs.

    Attributes:
        node: The node. Rules read it, and may only name further outputs of it.
        grads: Gradient of each output, None where none arrived; each has the shape and type of its output.
        wanted: Indices of the inputs whose gradient is needed, in order.
        info: Types, shapes and constants of the forward graph.
        opset: Version of the default operator set.
    """

    node: onnx.NodeProto
    grads: tuple[str | None, ...]
    wanted: tuple[int, ...]
    info: TensorInfo
    opset: int

    @property
    def dy(self) -> str:
        """Gradient of the first output."""
        grad = self.grads[0]
        if grad is None:
            raise self.error("only its first output is differentiated")
        return grad

    def x(self, index: int = 0) -> str:
        """Name of an input."""
        return self.node.input[index]

    def y(self, index: int = 0) -> str:
        """Name of an output."""
        return self.node.output[index]

    def has(self, index: int) -> bool:
        """Whether the optional input at ``index`` is given."""
        return len(self.node.input) > index and bool(self.node.input[index])

    def wants(self, index: int) -> bool:
        """Whether the gradient of the input at ``index`` is needed."""
        return index in self.wanted

    def only(self, *indices: int) -> None:
        """Raise unless the wanted inputs are among ``indices``."""
        others = set(self.wanted).difference(indices)
        if others:
            raise self.error(
                f"its input {min(others)} ({self.x(min(others))!r}) depends on the data, which has no rule"
            )

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute; strings come decoded."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def value(self, index: int) -> npt.NDArray[np.generic] | None:
        """Value of the input at ``index`` where it is given and constant, else None."""
        return self.info.value(self.x(index)) if self.has(index) else None

    def constant(self, index: int, what: str) -> npt.NDArray[np.generic]:
        """Value of the input at ``index``; an error that says ``what`` must be constant where it is not."""
        value = self.value(index)
        if value is None:
            raise self.error(f"its {what} must be constant")
        return value

    def shape(self, name: str, what: str) -> tuple[Dim, ...]:
        """Shape of a tensor of known rank; an error that says ``what`` is needed where the rank is unknown."""
        shape = self.info.shape(name)
        if shape is None:
            raise self.error(f"the rank of its {what} is unknown; give the model an input of fixed shape")
        return shape

    def error(self, reason: str) -> DifferentiationError:
        """Build the error that names the node."""
        return DifferentiationError(
            f"cannot differentiate {describe(self.node)}: {reason}; black-box attacks need no gradient: --attack square"
        )


def describe(node: onnx.NodeProto) -> str:
    """Name a node for a message: op type, domain, name or first output."""
    domain = f"{node.domain}." if node.domain not in {"", "ai.onnx"} else ""
    name = f"node {node.name!r}" if node.name else f"the node that makes {next(iter(node.output), '')!r}"
    return f"{domain}{node.op_type} ({name})"
