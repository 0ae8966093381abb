"""Values of small constants: shapes, axes and pads, through the few ops that exporters compute them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import attributes

Array: TypeAlias = NDArray[Any]

_MOST = 4096
"""Elements of the largest constant that is worked out."""

_MOST_STEPS = 64


class Constants:
    """Small constants by name, worked out when they are asked for."""

    def __init__(self, structure: Index) -> None:
        """Index the initializers that are inside the proto and small."""
        self._structure = structure
        self._known: dict[str, Array | None] = {}
        for tensor in structure.graph.initializer:
            self._known[tensor.name] = _small(tensor)

    def value(self, name: str, steps: int = _MOST_STEPS) -> Array | None:
        """Return the value of a constant, or None where it is large, not constant, or computed in another way."""
        if name in self._known:
            return self._known[name]
        node = self._structure.producer(name)
        if node is None or name not in self._structure.constants or steps == 0 or len(node.output) != 1:
            return None
        inputs = [self.value(each, steps - 1) if each else None for each in node.input]
        missing = any(each and value is None for each, value in zip(node.input, inputs, strict=True))
        found = None if missing else computed(node, inputs)
        self._known[name] = found if found is not None and found.size <= _MOST else None
        return self._known[name]


def _small(tensor: onnx.TensorProto) -> Array | None:
    if (
        tensor.data_location == onnx.TensorProto.EXTERNAL
        or np.prod(tensor.dims, dtype=np.float64) > _MOST
        or tensor.HasField("segment")
    ):
        return None
    try:
        found: Array = onnx.numpy_helper.to_array(tensor)
        return found
    except Exception:  # data that do not fit dims and type; whatever reads the weight says so
        return None


def computed(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> Array | None:
    """Return what one node makes of known inputs; None for an op that shapes and pads are not made with."""
    if node.domain not in {"", "ai.onnx"}:
        return None
    try:
        return _VALUES[node.op_type](attributes(node), *inputs)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None  # another op, or one used in another way


def _constant(found: dict[str, Any]) -> Array | None:
    if "value" in found:
        return _small(found["value"])
    for key, dtype in (("value_int", "i8"), ("value_ints", "i8"), ("value_float", "f4"), ("value_floats", "f4")):
        if key in found:
            return np.array(found[key], dtype)
    return None


def _constant_of_shape(found: dict[str, Any], shape: Array) -> Array | None:
    if np.prod(shape, dtype=np.float64) > _MOST:
        return None
    fill = onnx.numpy_helper.to_array(found["value"]) if "value" in found else np.zeros(1, np.float32)
    return np.full(tuple(shape.tolist()), fill.reshape(-1)[0])


def _slice(found: dict[str, Any], data: Array, *rest: Array | None) -> Array:
    named = [np.asarray(found[key]) if key in found else None for key in ("starts", "ends", "axes")]
    given: list[Array | None] = list(rest) or named
    return data[sliced(data.ndim, *given)]


def sliced(
    rank: int,
    starts: Array | None,
    ends: Array | None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> tuple[slice, ...]:
    """Return a Slice node's parameters as an index; raises TypeError where they are not known."""
    if starts is None or ends is None:
        raise TypeError("unknown bounds")
    chosen = range(len(starts)) if axes is None else axes.tolist()
    by = [1] * len(starts) if steps is None else steps.tolist()
    index = [slice(None)] * rank
    for axis, start, end, step in zip(chosen, starts.tolist(), ends.tolist(), by, strict=True):
        # An end before the first element is how ONNX says "to the beginning" when it steps backwards.
        index[axis] = slice(start, None if step < 0 and end < -(2**30) else end, step)
    return tuple(index)


def _cast(found: dict[str, Any], data: Array) -> Array:
    return data.astype(onnx.helper.tensor_dtype_to_np_dtype(found["to"]))


def _reshape(found: dict[str, Any], data: Array, shape: Array) -> Array:
    copies = not found.get("allowzero", 0)
    return data.reshape([data.shape[i] if d == 0 and copies else d for i, d in enumerate(shape.tolist())])


def _unsqueeze(found: dict[str, Any], data: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(data, tuple(found["axes"] if axes is None else axes.tolist()))


_VALUES: dict[str, Callable[..., Array | None]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Concat": lambda found, *parts: np.concatenate(parts, axis=found["axis"]),
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": lambda found, data: np.transpose(data, found.get("perm")),
    "Cast": _cast,
    "Identity": lambda found, data: data,
    "Unsqueeze": _unsqueeze,
}
