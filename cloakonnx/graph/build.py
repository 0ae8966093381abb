# ruff: noqa: D105 - an operator does what it does for numbers
"""Builds graphs from formulas over tensors: unique names, shared constants, no expression twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from cloakonnx.graph.index.index import Dim, Index, names_in
from cloakonnx.graph.index.traits import Trait, has

_IR_VERSION = 8
"""Valid with opsets 15 to 18, and read by every supported ONNX Runtime."""

INT64_MAX = np.iinfo(np.int64).max

Operand: TypeAlias = "Tensor | float"
"""A tensor, or a number that becomes a constant of the other operand's element type."""


class Builder:
    """Appends nodes and constants to a graph in topological order.

    Args:
        graph: Graph to append to.
        index: What is known of its tensors; constants that are made are added.
        opset: Version of the default operator set, at least 13; before 18 the axes of ReduceMean and ReduceMax are
            attributes.
        provider: Lower-case provider name that the lowering is chosen for: ``cpu``, ``cuda``, ...
        prefix: Begins the names of new tensors.
    """

    def __init__(
        self, graph: onnx.GraphProto, index: Index, *, opset: int, provider: str = "cpu", prefix: str = ""
    ) -> None:
        self.graph = graph
        self.index = index
        self.opset = opset
        self.provider = provider
        self._prefix = prefix
        self._names = names_in(graph)
        self._count = 0
        # Names and types, not tensors: those refer to the builder, which has to go with the last of them.
        self._made: dict[tuple[object, ...], list[tuple[str, int]]] = {}

    @classmethod
    def alone(cls, *, opset: int) -> Builder:
        """Return the builder of a graph of its own."""
        graph = onnx.GraphProto(name="graph")
        return cls(graph, Index(graph), opset=opset)

    @classmethod
    def beside(cls, other: onnx.GraphProto, *, opset: int = 13) -> Builder:
        """Return the builder of nodes that :meth:`insert_into` puts among another graph's: no name is one of its."""
        build = cls.alone(opset=opset)
        build._names = names_in(other)
        return build

    def insert_into(self, other: onnx.GraphProto, position: int = 0) -> None:
        """Put all nodes and constants into another graph, the nodes at a position among its own."""
        nodes = list(other.node)
        del other.node[:]
        other.node.extend([*nodes[:position], *self.graph.node, *nodes[position:]])
        other.initializer.extend(self.graph.initializer)

    def input(self, name: str, elem_type: int = TensorProto.FLOAT, shape: Sequence[Dim] | None = None) -> Tensor:
        """Add an input to the graph."""
        self._names.add(name)
        self.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, shape))
        self.index.learn(name, elem_type, shape)
        return Tensor(self, name, elem_type)

    def model(self, *outputs: Tensor) -> onnx.ModelProto:
        """Return the graph as a model with these outputs."""
        given = [onnx.helper.make_tensor_value_info(each.name, each.elem_type, None) for each in outputs]
        self.graph.output.extend(given)
        return onnx.helper.make_model(
            self.graph, ir_version=_IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", self.opset)]
        )

    def fresh(self, hint: str) -> str:
        """Return an unused name, ``hint`` itself where it is free."""
        name = hint
        while name in self._names:
            self._count += 1
            name = f"{hint}_{self._count}"
        self._names.add(name)
        return name

    def own(self, hint: str) -> str:
        """Return a name with this builder's prefix."""
        return self.fresh(f"{self._prefix}{hint}")

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the graph."""
        return Tensor(self, name, self.index.elem_type(name))

    def op(
        self,
        op_type: str,
        *inputs: Tensor | None,
        elem_type: int | None = None,
        name: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Append a node of one output and return that; the same expression again gives the same tensor.

        Args:
            op_type: Op of the default domain.
            inputs: Its inputs, None for those left out.
            elem_type: Type of the output; by default int64 for counts and indices, boolean for comparisons, and the
                first input's type for the rest.
            name: Name of the output; the node is a new one then.
            attributes: Of the node.
        """
        names = None if name is None else [name]
        return self.ops(op_type, *inputs, elem_types=[elem_type], names=names, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: Tensor | None,
        elem_types: Sequence[int | None],
        names: Sequence[str] | None = None,
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Append a node of several outputs, an element type for each, and return them; see :meth:`op`."""
        read = tuple(["" if each is None else each.name for each in inputs])
        if names is None and any(isinstance(each, onnx.GraphProto) for each in attributes.values()):
            names = [self._numbered(op_type) for _ in elem_types]  # bodies are not compared
        key = (op_type, read, len(elem_types), repr(sorted(attributes.items())) if attributes and not names else "")
        made = self._made.get(key) if names is None else None
        if made is None:
            given = names or [self._numbered(op_type) for _ in elem_types]
            self.graph.node.append(onnx.helper.make_node(op_type, read, given, name=given[0], **attributes))
            usual = _result_type(op_type, inputs)
            made = [(name, elem_type or usual) for name, elem_type in zip(given, elem_types, strict=True)]
            if names is None:
                self._made[key] = made
        return tuple([Tensor(self, name, elem_type) for name, elem_type in made])

    def _numbered(self, op_type: str) -> str:
        self._count += 1
        return self.fresh(f"{self._prefix}{op_type}_{self._count}")

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Tensor:
        """Return an initializer that holds ``value``, shared by equal values."""
        array = np.asarray(value, dtype)
        key = ("constant", array.dtype.str, str(array.dtype), array.shape, array.tobytes())
        if key not in self._made:
            tensor = numpy_helper.from_array(array, self._numbered("constant"))
            self.graph.initializer.append(tensor)
            self.index.add_initializer(tensor)
            self._made[key] = [(tensor.name, tensor.data_type)]
        return Tensor(self, *self._made[key][0])

    def ints(self, *values: int) -> Tensor:
        """Return a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: int) -> Tensor:
        """Return a constant int64 of rank 0."""
        return self.constant(np.int64(value))

    def zeros(self, shape: Tensor, like: Tensor) -> Tensor:
        """Return zeros of the element type of ``like``; ``shape`` is an int64 vector."""
        fill = numpy_helper.from_array(np.zeros(1, like.dtype))
        return self.op("ConstantOfShape", shape, value=fill, elem_type=like.elem_type)

    def further_output(self, node: onnx.NodeProto, position: int, hint: str, *, elem_type: int) -> Tensor:
        """Return the output of a node of the graph at ``position``, asking for it where the node does not give it."""
        while len(node.output) <= position:
            node.output.append("")
        if not node.output[position]:
            node.output[position] = self.fresh(f"{node.output[0]}/{hint}")
        return Tensor(self, node.output[position], elem_type)


def _result_type(op_type: str, inputs: Sequence[Tensor | None]) -> int:
    if has(op_type, Trait.GIVES_INDICES):
        return TensorProto.INT64
    if has(op_type, Trait.GIVES_BOOLEANS):
        return TensorProto.BOOL
    return next((each.elem_type for each in inputs if each is not None), TensorProto.FLOAT)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of a graph that is being built; operators append nodes.

    A number is taken as a constant of this tensor's element type; to multiply by 1, or raise to the power 1, costs
    nothing. Axes may be one number or several. What needs a tensor's shape works on those whose shape the index knows.

    Attributes:
        builder: Where it is.
        name: Its name in the graph.
        elem_type: Its element type.
    """

    builder: Builder
    name: str
    elem_type: int

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Element type as numpy has it."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def dims(self) -> tuple[Dim, ...] | None:
        """Dimensions, None where not even the rank is known."""
        return self.builder.index.shape(self.name)

    @property
    def static(self) -> tuple[int, ...] | None:
        """Dimensions where all of them are known numbers, else None."""
        return self.builder.index.static(self.name)

    @property
    def is_fixed(self) -> bool:
        """Whether it does not depend on the data."""
        return self.name in self.builder.index.initializers or self.name in self.builder.index.fixed

    def op(self, op_type: str, *others: Operand | None, elem_type: int | None = None, **attributes: Any) -> Tensor:
        """Append a node whose first input is this tensor; see :meth:`Builder.op`."""
        inputs = [each if each is None else self._same(each) for each in others]
        return self.builder.op(op_type, self, *inputs, elem_type=elem_type, **attributes)

    def _same(self, value: Operand) -> Tensor:
        return value if isinstance(value, Tensor) else self.builder.constant(np.array(value).astype(self.dtype))

    def _after(self, op_type: str, value: Operand) -> Tensor:
        return self._same(value).op(op_type, self)

    def __add__(self, other: Operand) -> Tensor:
        return self.op("Add", other)

    def __radd__(self, other: Operand) -> Tensor:
        return self._after("Add", other)

    def __sub__(self, other: Operand) -> Tensor:
        return self.op("Sub", other)

    def __rsub__(self, other: Operand) -> Tensor:
        return self._after("Sub", other)

    def __mul__(self, other: Operand) -> Tensor:
        return self if _is_one(other) else self.op("Mul", other)

    def __rmul__(self, other: Operand) -> Tensor:
        return self if _is_one(other) else self._after("Mul", other)

    def __truediv__(self, other: Operand) -> Tensor:
        return self.op("Div", other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self._after("Div", other)

    def __pow__(self, other: Operand) -> Tensor:
        return self if _is_one(other) else self.op("Pow", other)

    def __neg__(self) -> Tensor:
        return self.op("Neg")

    def __abs__(self) -> Tensor:
        return self.op("Abs")

    def __gt__(self, other: Operand) -> Tensor:
        return self.op("Greater", other)

    def __ge__(self, other: Operand) -> Tensor:
        return self.op("GreaterOrEqual", other)

    def __lt__(self, other: Operand) -> Tensor:
        return self.op("Less", other)

    def __le__(self, other: Operand) -> Tensor:
        return self.op("LessOrEqual", other)

    def __and__(self, other: Tensor) -> Tensor:
        return self.op("And", other)

    def equals(self, other: Operand) -> Tensor:
        """Return where both are equal."""
        return self.op("Equal", other)

    def where(self, yes: Operand, no: Operand) -> Tensor:
        """Return ``yes`` where this condition holds, else ``no``; one of them at least is a tensor."""
        like = yes if isinstance(yes, Tensor) else no
        if not isinstance(like, Tensor):
            raise TypeError("where() needs a tensor to know the type of its numbers")
        return self.op("Where", like._same(yes), like._same(no), elem_type=like.elem_type)

    def sqrt(self) -> Tensor:
        """Return the square root."""
        return self.op("Sqrt")

    def exp(self) -> Tensor:
        """Return e to the power of this."""
        return self.op("Exp")

    def log(self) -> Tensor:
        """Return the natural logarithm."""
        return self.op("Log")

    def sign(self) -> Tensor:
        """Return -1, 0 or 1."""
        return self.op("Sign")

    def cast(self, to: Tensor | int) -> Tensor:
        """Cast to an element type, or to that of another tensor."""
        elem_type = to.elem_type if isinstance(to, Tensor) else to
        return self.op("Cast", to=elem_type, elem_type=elem_type)

    def sum(self, axes: int | Sequence[int], *, keepdims: bool = True) -> Tensor:
        """Sum over axes; none gives the tensor back."""
        return self._reduced("ReduceSum", axes, keepdims) if isinstance(axes, int) or axes else self

    def mean(self, axes: int | Sequence[int], *, keepdims: bool = True) -> Tensor:
        """Return the mean over axes."""
        return self._reduced("ReduceMean", axes, keepdims)

    def max(self, axes: int | Sequence[int], *, keepdims: bool = True) -> Tensor:
        """Return the maximum over axes."""
        return self._reduced("ReduceMax", axes, keepdims)

    def _reduced(self, op_type: str, axes: int | Sequence[int], keepdims: bool) -> Tensor:
        if self.builder.opset < 18 and op_type != "ReduceSum":
            return self.op(op_type, axes=[axes] if isinstance(axes, int) else list(axes), keepdims=int(keepdims))
        return self.op(op_type, self._axes(axes), keepdims=int(keepdims))

    def _axes(self, axes: int | Sequence[int]) -> Tensor:
        return self.builder.ints(*([axes] if isinstance(axes, int) else axes))

    @property
    def shape(self) -> Tensor:
        """The shape as an int64 vector, constant where it is known."""
        return self.op("Shape") if self.static is None else self.builder.ints(*self.static)

    def dim(self, axis: int) -> Tensor:
        """Return one dimension as an int64 vector of one entry; ``axis`` is not negative."""
        shape = self.dims
        size = None if shape is None else shape[axis]
        return self.builder.ints(size) if isinstance(size, int) else self.op("Shape", start=axis, end=axis + 1)

    def zeros(self) -> Tensor:
        """Return zeros of the same shape and type."""
        return self.builder.zeros(self.shape, self)

    def reshape(self, *shape: int | Tensor) -> Tensor:
        """Give it another shape: numbers, or one int64 vector."""
        given = next((size for size in shape if isinstance(size, Tensor)), None)
        return self.op("Reshape", given or self.builder.ints(*(size for size in shape if isinstance(size, int))))

    def shaped_as(self, like: Tensor) -> Tensor:
        """Give it the shape of ``like``, which has as many elements."""
        shape = like.dims
        if shape is not None and 0 not in shape:
            sizes = [d if isinstance(d, int) else -1 for d in shape]
            if sizes.count(-1) <= 1:  # then no Shape at run time
                return self.reshape(self.builder.ints(*sizes))
        return self.reshape(like.op("Shape"))

    def expanded_as(self, like: Tensor) -> Tensor:
        """Broadcast it to the shape of ``like``."""
        return self.op("Expand", like.shape)

    def unsqueeze(self, axes: int | Sequence[int]) -> Tensor:
        """Insert axes of size 1."""
        return self.op("Unsqueeze", self._axes(axes))

    def squeeze(self, axes: int | Sequence[int]) -> Tensor:
        """Drop axes of size 1."""
        return self.op("Squeeze", self._axes(axes))

    def transpose(self, perm: Sequence[int]) -> Tensor:
        """Order the axes anew."""
        return self.op("Transpose", perm=list(perm))

    def padded(self, before: Sequence[int], after: Sequence[int]) -> Tensor:
        """Add zeros before and after along each axis; no zeros cost nothing."""
        return self.op("Pad", self.builder.ints(*before, *after)) if any((*before, *after)) else self

    def split(self, sizes: Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
        """Cut it into parts of these sizes along an axis."""
        return self.builder.ops("Split", self, self.builder.ints(*sizes), elem_types=[None] * len(sizes), axis=axis)

    def gather(self, places: Tensor, axis: int) -> Tensor:
        """Take the entries at ``places`` along an axis."""
        return self.op("Gather", places, axis=axis)


def _is_one(value: Operand) -> bool:
    return not isinstance(value, Tensor) and value == 1
