"""What is known of a graph's tensors before it runs: element types, dimensions, constant values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

Dim = int | str | None
"""A dimension: its size, the name of an unknown one, or None where nothing is known."""

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


@dataclass
class TensorInfo:
    """Types, shapes and constants of a graph, by tensor name.

    Attributes:
        types: Element type of each tensor that inference reached.
        shapes: Dimensions of each tensor whose rank is known.
        constants: Initializers, decoded when they are asked for.
        fixed: Constants, and tensors computed from constants only.
    """

    types: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> TensorInfo:
        """Read what the graph's inputs, value infos, outputs and initializers say."""
        info = cls()
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.HasField("tensor_type"):
                info._read(value.name, value.type.tensor_type)
        for tensor in graph.initializer:
            info.add_constant(tensor)
        for node in graph.node:
            if all(name in info.fixed for name in dependencies(node)):
                info.fixed.update(node.output)
        return info

    def _read(self, name: str, tensor: onnx.TypeProto.Tensor) -> None:
        if tensor.elem_type:
            self.types[name] = tensor.elem_type
        if tensor.HasField("shape"):
            self.shapes[name] = tuple(_dim(d) for d in tensor.shape.dim)

    def add_constant(self, tensor: TensorProto) -> None:
        """Learn of an initializer."""
        self.constants[tensor.name] = tensor
        self.fixed.add(tensor.name)
        self.types[tensor.name] = tensor.data_type
        self.shapes[tensor.name] = tuple(tensor.dims)

    def copy(self, source: str, target: str) -> None:
        """Give ``target`` the type and shape of ``source``."""
        for table in (self.types, self.shapes):
            _copy_entry(table, source, target)

    def elem_type(self, name: str) -> int:
        """Element type, float32 where inference did not reach."""
        return self.types.get(name, TensorProto.FLOAT)

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """Element type as numpy has it."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type(name)))

    def is_float(self, name: str) -> bool:
        """Whether gradients can flow through the tensor; an unknown type counts as floating point."""
        return self.types.get(name, TensorProto.FLOAT) in FLOATS

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Dimensions, or None where not even the rank is known."""
        return self.shapes.get(name)

    def rank(self, name: str) -> int | None:
        """Rank, or None where it is unknown."""
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)

    def static(self, name: str) -> tuple[int, ...] | None:
        """Dimensions where all of them are known numbers, else None."""
        shape = self.shapes.get(name)
        if shape is None:
            return None
        known = tuple(d for d in shape if isinstance(d, int))
        return known if len(known) == len(shape) else None

    def value(self, name: str) -> npt.NDArray[np.generic] | None:
        """Value of a constant, else None."""
        tensor = self.constants.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))


def _copy_entry(table: dict[str, Any], source: str, target: str) -> None:
    if source in table:
        table[target] = table[source]


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies inside a node (If, Loop, Scan) take from the graph around it, with some false positives."""
    for attribute in node.attribute:
        graphs = [*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])]
        for graph in graphs:
            for inner in graph.node:
                yield from inner.input
                yield from captured(inner)
            yield from (output.name for output in graph.output)


def dependencies(node: onnx.NodeProto) -> list[str]:
    """Every tensor that a node reads, its bodies included."""
    return [name for name in (*node.input, *captured(node)) if name]


def producers(graph: onnx.GraphProto) -> Mapping[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}
