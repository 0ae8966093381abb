"""Shape arithmetic of which a part is known: the batch is open, what is computed from the other sizes is constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import NodeView

Entries: TypeAlias = npt.NDArray[Any]
"""An array of objects: numbers, names of open dimensions, and None where nothing is known."""

_SMALL = 64
"""Entries of the largest tensor that is followed."""

_MOVES = {"Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_MADE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Ceil": np.ceil,
    "Floor": np.floor,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sub": np.subtract,
}
_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}
"""What leaves the first operand as it is, where it is the second."""

_FOLLOWED = _MOVES | _MADE.keys() | {"Div", "Mod", "Shape", "Where"}

_GIVES_SHAPE = {"Resize": 3, "Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
"""The input that says the shape of the output."""

Evaluate: TypeAlias = "Callable[[onnx.NodeProto, dict[str, npt.NDArray[Any]]], list[npt.NDArray[Any]] | None]"


class Late:
    """Follows tensors of which some entries are known.

    Args:
        index: The graph's index.
        evaluate: Runs a node on values of its inputs.
    """

    def __init__(self, index: Index, evaluate: Evaluate) -> None:
        self._index, self._evaluate = index, evaluate
        self._found: dict[str, Entries] = {}

    def follow(self, node: onnx.NodeProto) -> npt.NDArray[Any] | None:
        """Note what is known of a node's output; return it where that is all of it."""
        if node.domain or len(node.output) != 1 or node.op_type not in _FOLLOWED:
            return None
        made = self._made(NodeView(node, self._index))
        if made is None or made.size > _SMALL:
            return None
        if all(_is_number(each) for each in made.ravel()):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(self._index.elem_type(node.output[0]))
            return np.array(made.tolist(), dtype).reshape(made.shape)
        self._found[node.output[0]] = made
        return None

    def shape_of_output(self, node: onnx.NodeProto) -> tuple[Any, ...] | None:
        """Return the output shape that one of a node's inputs gives, as far as that is known."""
        position = _GIVES_SHAPE.get(node.op_type)
        if node.domain or position is None or len(node.input) <= position:
            return None
        made = self._found.get(node.input[position])
        if made is None or made.ndim != 1 or any(_is_number(each) and each <= 0 for each in made):
            return None
        if node.op_type == "Expand" and len(self._index.shape(node.input[0]) or made) > len(made):
            return None
        if node.op_type == "Expand":  # an axis may be of the data's size, where the shape says 1
            return None if any(each == 1 for each in made) else tuple(made)
        return tuple(made)

    def _entries(self, name: str) -> Entries | None:
        if name in self._found:
            return self._found[name]
        tensor = self._index.initializers.get(name)
        if tensor is None or int(np.prod(tensor.dims)) > _SMALL or tensor.data_type == TensorProto.STRING:
            return None
        value = self._index.value(name)
        return None if value is None else value.astype(object)

    def _made(self, view: NodeView) -> Entries | None:
        node = view.node
        if node.op_type == "Shape":
            shape = self._index.shape(node.input[0])
            return None if shape is None else _objects(shape[view.attr("start", 0) : view.attr("end", len(shape))])
        given = [self._entries(name) if name else None for name in node.input]
        if any(each is None and name for each, name in zip(given, node.input, strict=True)):
            return None
        known = [each for each in given if each is not None]
        if node.op_type in _MOVES:
            return self._moved(node, known)
        if node.op_type == "Where":
            condition, yes, no = np.broadcast_arrays(*known)
            taken = [_chosen(*each) for each in zip(condition.flat, yes.flat, no.flat, strict=True)]
            return _objects(taken).reshape(condition.shape)
        return self._computed(node, known)

    def _moved(self, node: onnx.NodeProto, known: Sequence[Entries]) -> Entries | None:
        """Move numbers that stand for the entries, and take the entries back from where they went."""
        data = known if node.op_type == "Concat" else known[:1]
        rest = known[1:] if node.op_type != "Concat" else []
        if any(not _is_number(each) for part in rest for each in part.ravel()):
            return None
        table = [each for part in data for each in part.ravel()]
        feeds, count = {}, 0
        for name, part in zip(node.input, data, strict=False):
            feeds[name] = np.arange(count, count + part.size, dtype=np.int64).reshape(part.shape)
            count += part.size
        if len(feeds) < len(data):  # the same tensor twice
            return None
        for name, part in zip(node.input[len(data) :], rest, strict=False):
            feeds[name] = np.array(part.tolist(), np.int64).reshape(part.shape)
        if node.op_type == "Cast":
            return _cast(data[0], self._index.elem_type(node.output[0]))
        found = self._evaluate(node, feeds)
        if found is None:
            return None
        return _objects([table[int(place)] for place in found[0].ravel()]).reshape(found[0].shape)

    def _computed(self, node: onnx.NodeProto, known: Sequence[Entries]) -> Entries | None:
        parts = np.broadcast_arrays(*known)
        is_integer = not self._index.is_float(node.output[0])
        made = [_number(node.op_type, each, is_integer) for each in zip(*(part.flat for part in parts), strict=True)]
        return _objects(made).reshape(parts[0].shape)


def _objects(values: Sequence[Any]) -> Entries:
    made = np.empty(len(values), object)
    made[:] = list(values)
    return made


def _is_number(entry: Any) -> bool:
    return entry is not None and not isinstance(entry, str)


def _chosen(condition: Any, yes: Any, no: Any) -> Any:
    if not _is_number(condition):
        return yes if yes == no else None
    return yes if condition else no


def _cast(entries: Entries, elem_type: int) -> Entries | None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    if dtype.kind not in "iuf":
        return None
    made = _objects([dtype.type(each).item() if _is_number(each) else each for each in entries.ravel()])
    return made.reshape(entries.shape)


def _divided(op: str, left: Any, right: Any, *, is_integer: bool) -> Any:
    if right == 0:
        return None
    if op == "Mod":
        return left % right  # without fmod, which only floats have
    return int(left / right) if is_integer else left / right


def _number(op: str, operands: tuple[Any, ...], is_integer: bool) -> Any:
    """Return the result for one entry; of an open dimension only what leaves it as it is."""
    if all(_is_number(each) for each in operands):
        return _divided(op, *operands, is_integer=is_integer) if op in {"Div", "Mod"} else _MADE[op](*operands)
    first, *rest = operands
    if len(rest) == 1 and op in _NEUTRAL and _is_number(rest[0]) and rest[0] == _NEUTRAL[op]:
        return first
    if len(rest) == 1 and op in {"Add", "Mul"} and _is_number(first) and first == _NEUTRAL[op]:
        return rest[0]
    return None
