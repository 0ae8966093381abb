"""One node of a graph: its attributes as Python values, its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cloakonnx.graph.index.index import Index


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, strings decoded, bodies and tensors as protos."""
    found = ((each.name, onnx.helper.get_attribute_value(each)) for each in node.attribute)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found}


def describe(node: onnx.NodeProto) -> str:
    """Name a node for a message: op type, domain, name or first output."""
    domain = f"{node.domain}." if node.domain not in {"", "ai.onnx"} else ""
    name = f"node {node.name!r}" if node.name else f"the node that makes {next(iter(node.output), '')!r}"
    return f"{domain}{node.op_type} ({name})"


@dataclass(frozen=True)
class NodeView:
    """A node and what is known of its tensors.

    Attributes:
        node: The node.
        index: The graph's index.
    """

    node: onnx.NodeProto
    index: Index

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes as Python values."""
        return attributes(self.node)

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        return self.attributes.get(name, default)

    def number(self, name: str, default: float) -> float:
        """Value of an attribute that is a number."""
        found: float = self.attributes.get(name, default)
        return found

    def has(self, position: int) -> bool:
        """Whether the optional input at ``position`` is given."""
        return len(self.node.input) > position and bool(self.node.input[position])

    def value(self, position: int) -> npt.NDArray[np.generic] | None:
        """Value of the input at ``position`` where it is given and constant, else None."""
        return self.index.value(self.node.input[position]) if self.has(position) else None
