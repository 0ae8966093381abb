"""Emits nodes: unique names, shared constants, no expression twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from cloakonnx.gradient.info import Dim, TensorInfo

INT64_MAX = np.iinfo(np.int64).max


class Emitter:
    """Appends nodes and constants to a graph in topological order.

    Args:
        graph: Graph to append to.
        info: What is known of its tensors; constants that are emitted are added.
        opset: Version of the default operator set, at least 18.
        provider: Lower-case provider name that the lowering is chosen for: ``cpu``, ``cuda``, ...
    """

    def __init__(self, graph: onnx.GraphProto, info: TensorInfo, *, opset: int, provider: str = "cpu") -> None:
        self.graph = graph
        self.info = info
        self.opset = opset
        self.provider = provider
        self._names = {name for node in graph.node for name in (*node.input, *node.output, node.name)}
        self._names.update(value.name for value in (*graph.input, *graph.output))
        self._names.update(tensor.name for tensor in graph.initializer)
        self._count = 0
        self._known: dict[tuple[object, ...], tuple[str, ...]] = {}

    def fresh(self, hint: str) -> str:
        """Return a name nobody has, ``hint`` itself where it is free."""
        name = hint
        while name in self._names:
            self._count += 1
            name = f"{hint}_{self._count}"
        self._names.add(name)
        return name

    def op(self, op_type: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node of one output and return its name; the same expression again gives the same name."""
        return self.ops(op_type, *inputs, outputs=1, names=None if name is None else [name], **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, outputs: int, names: Sequence[str] | None = None, **attributes: Any
    ) -> tuple[str, ...]:
        """Append a node of several outputs and return their names."""
        key = (op_type, inputs, outputs, repr(sorted(attributes.items())))
        if names is None and key in self._known:
            return self._known[key]
        made = tuple(names) if names else tuple(self._numbered(op_type) for _ in range(outputs))
        self.graph.node.append(onnx.helper.make_node(op_type, inputs, made, name=made[0], **attributes))
        if names is None:
            self._known[key] = made
        return made

    def _numbered(self, op_type: str) -> str:
        self._count += 1
        return self.fresh(f"backward/{op_type}_{self._count}")

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """Return the name of an initializer that holds ``value``, shared by equal values."""
        array = np.asarray(value, dtype)
        key = ("constant", array.dtype.str, str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._count += 1
            name = self.fresh(f"backward/constant_{self._count}")
            tensor = numpy_helper.from_array(array, name)
            self.graph.initializer.append(tensor)
            self.info.add_constant(tensor)
            self._known[key] = (name,)
        return self._known[key][0]

    def ints(self, *values: int) -> str:
        """Return a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, like: str) -> str:
        """Return a constant scalar of the element type of ``like``."""
        return self.constant(np.array(value).astype(self.info.dtype(like)))

    def shape_of(self, name: str) -> str:
        """Return the shape of a tensor as an int64 vector, constant where it is known."""
        static = self.info.static(name)
        return self.op("Shape", name) if static is None else self.ints(*static)

    def dim_of(self, name: str, axis: int) -> str:
        """Return one dimension as an int64 vector of one entry; ``axis`` is not negative."""
        shape = self.info.shape(name)
        if shape is not None and isinstance(shape[axis], int):
            return self.ints(int(shape[axis] or 0))
        return self.op("Shape", name, start=axis, end=axis + 1)

    def cast(self, name: str, like: str) -> str:
        """Cast to the element type of ``like``."""
        return self.op("Cast", name, to=self.info.elem_type(like))

    def zeros(self, shape: str, like: str) -> str:
        """Return zeros of the element type of ``like``; ``shape`` is an int64 vector."""
        fill = numpy_helper.from_array(np.zeros(1, self.info.dtype(like)))
        return self.op("ConstantOfShape", shape, value=fill)

    def zeros_like(self, name: str) -> str:
        """Return zeros of the shape and type of a forward tensor."""
        return self.zeros(self.shape_of(name), name)

    def further_output(self, node: onnx.NodeProto, index: int, hint: str) -> str:
        """Return the output of a forward node at ``index``, asking for it where the node does not give it yet."""
        while len(node.output) <= index:
            node.output.append("")
        if not node.output[index]:
            node.output[index] = self.fresh(f"{node.output[0]}/{hint}")
        return str(node.output[index])

    def negate(self, name: str) -> str:
        """Return the negative."""
        return self.op("Neg", name)

    def scaled(self, name: str, factor: float, like: str) -> str:
        """Multiply by a number; 1 costs nothing."""
        return name if factor == 1 else self.op("Mul", name, self.number(factor, like))

    def reshape_like(self, grad: str, x: str) -> str:
        """Give a tensor the shape of the forward tensor ``x``, which has as many elements."""
        shape = self.info.shape(x)
        unknown = [] if shape is None else [d for d in shape if not isinstance(d, int)]
        if shape is not None and len(unknown) <= 1 and 0 not in shape:  # at most one -1: no Shape at run time
            return self.op("Reshape", grad, self.ints(*(d if isinstance(d, int) else -1 for d in shape)))
        return self.op("Reshape", grad, self.op("Shape", x))

    def expand_like(self, grad: str, x: str) -> str:
        """Broadcast a tensor to the shape of the forward tensor ``x``."""
        return self.op("Expand", grad, self.shape_of(x))

    def sum_over(self, name: str, axes: Sequence[int], *, keepdims: bool) -> str:
        """Sum over axes; none gives the tensor back."""
        if not axes:
            return name
        return self.op("ReduceSum", name, self.ints(*axes), keepdims=int(keepdims))

    def unbroadcast(self, grad: str, x: str, y: str, others: Sequence[str] = ()) -> str:
        """Sum a gradient of the shape of ``y`` down to the shape of ``x``, which was broadcast to it.

        Args:
            grad: Gradient, of the shape of the forward tensor ``y``.
            x: Forward tensor that was broadcast.
            y: Forward tensor that it was broadcast to.
            others: The other operands, where ``y`` is the result of a broadcasting op: an axis along which they are 1
                has its size from ``x``.
        """
        xs, ys = self.info.shape(x), self.info.shape(y)
        if xs is None or ys is None:
            return self.unbroadcast_to(grad, x)
        lead = len(ys) - len(xs)
        axes = [a for a in range(lead, len(ys)) if xs[a - lead] == 1 and ys[a] != 1]
        if any(self._ambiguous(xs, ys, a, others) for a in range(lead, len(ys))):
            return self.unbroadcast_to(grad, x)
        summed = self.sum_over(grad, axes, keepdims=True)
        return self.sum_over(summed, range(lead), keepdims=False)

    def _ambiguous(self, xs: tuple[Dim, ...], ys: tuple[Dim, ...], axis: int, others: Sequence[str]) -> bool:
        dim = xs[axis - (len(ys) - len(xs))]
        if isinstance(dim, int) or ys[axis] == 1 or (dim is not None and dim == ys[axis]):
            return False
        shapes = [self.info.shape(o) for o in others]
        if not shapes:
            return True
        return not all(s is not None and _dim_from_end(s, len(ys) - axis) == 1 for s in shapes)

    def unbroadcast_to(self, grad: str, x: str) -> str:
        """Sum a gradient down to the shape of ``x``, comparing shapes when the graph runs."""
        xs, gs = self.op("Shape", x), self.op("Shape", grad)
        missing = self.op("Sub", self.op("Shape", gs), self.op("Shape", xs))
        ones = numpy_helper.from_array(np.ones(1, np.int64))
        padded = self.op("Concat", self.op("ConstantOfShape", missing, value=ones), xs, axis=0)
        axes = self.op("Reshape", self.op("NonZero", self.op("Equal", padded, self.ints(1))), self.ints(-1))
        summed = self.op("ReduceSum", grad, axes, keepdims=1, noop_with_empty_axes=1)
        return self.op("Reshape", summed, xs)


def _dim_from_end(shape: tuple[Dim, ...], place: int) -> Dim:
    return shape[-place] if place <= len(shape) else 1
