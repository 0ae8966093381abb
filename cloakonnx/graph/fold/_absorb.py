"""Weights that absorb scales: finds what a node reads, says why it can't be changed, and multiplies it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.file.content import inlined
from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.index.node import attributes
from cloakonnx.graph.index.traits import Trait, has
from cloakonnx.graph.masks.taps import FLOAT_TYPES

_INITIALIZER_MIN_IR = 4
_BLOCK = 1 << 20
"""Elements that are multiplied in float64 at a time."""

_MOST_ZEROS = 1 << 16


@dataclass(frozen=True)
class View:
    """An op that moves a weight's values about: a Transpose by ``perm``, or a Reshape where that is None."""

    perm: tuple[int, ...] | None
    before: tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """A weight that may be changed.

    Attributes:
        name: The initializer, or the output of the Constant node that holds it.
        tensor: The tensor as it is in the model.
        node: Index of the Constant node, None for an initializer.
        views: What the graph makes of it before it is read, in order.
        shape: Its shape as it is read.
    """

    name: str
    tensor: onnx.TensorProto
    node: int | None
    views: tuple[View, ...]
    shape: tuple[int, ...]


class Weights:
    """The weights of a model's main graph."""

    def __init__(self, model: Model, constants: Constants) -> None:
        """Index the initializers."""
        self._model, self._constants = model, constants
        graph = model.proto.graph
        self._initializers = {t.name: t for t in graph.initializer}
        names = [t.name for t in graph.initializer]
        self._twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        fed = {i.name for i in graph.input} if model.proto.ir_version >= _INITIALIZER_MIN_IR else set()
        self._fed = fed & set(self._initializers)
        self._outputs = {o.name for o in graph.output}

    def find(self, readers: Sequence[int], name: str) -> Weight | str:
        """Return the weight that nodes read, or why it can't be changed, as a clause.

        Args:
            readers: The nodes that it may change for.
            name: Their input.
        """
        structure = self._model.structure
        reason = self._shared(readers, name)
        if reason is not None:
            return reason
        if name in self._initializers:
            return self._checked(name, self._initializers[name], None)
        node = structure.producer(name)
        if name not in structure.constants or node is None:
            return f"its weight {name!r} is computed or sparse"
        made = structure.producers[name][0]
        if node.op_type == "Constant":
            return self._checked(name, held(self._model.proto.graph.node[made]), made)
        return self._viewed(made, node)

    def is_zero(self, name: str) -> bool:
        """Whether a small constant has only zeros, so that every scale leaves it as it is."""
        value = self._constants.value(name)
        tensor = self._initializers.get(name)
        if value is None and tensor is not None and np.prod(tensor.dims, dtype=np.float64) <= _MOST_ZEROS:
            value = array_of(self._model, tensor)
        return value is not None and not value.astype(np.float64).any()

    def _shared(self, allowed: Sequence[int], name: str) -> str | None:
        structure = self._model.structure
        readers = structure.consumers.get(name, [])
        if readers != list(allowed) or any(list(structure.graph.node[i].input).count(name) != 1 for i in allowed):
            others = [structure.graph.node[i] for i in readers if i not in allowed]
            by = f"{others[0].op_type} node {others[0].name or others[0].output[0]!r}" if others else "the same node"
            return f"its weight {name!r} is used elsewhere, by {by}"
        if name in self._outputs:
            return f"its weight {name!r} is an output of the model"
        if name in self._fed:
            return f"its weight {name!r} is an input of the model that a caller may feed"
        return f"its weight {name!r} is there twice" if name in self._twice else None

    def _checked(self, name: str, tensor: onnx.TensorProto | None, node: int | None) -> Weight | str:
        if tensor is None:
            return f"its weight {name!r} is no plain tensor"
        if tensor.data_type not in FLOAT_TYPES:
            return f"its weight {name!r} is of type {onnx.TensorProto.DataType.Name(tensor.data_type).lower()}"
        if tensor.HasField("segment"):
            return f"its weight {name!r} is stored in segments"
        return Weight(name, tensor, node, (), tuple(tensor.dims))

    def _viewed(self, index: int, node: onnx.NodeProto) -> Weight | str:
        """Look through ops that only move a weight's values about."""
        if node.op_type == "DequantizeLinear":
            return f"its weight {node.output[0]!r} is quantised"
        what = f"its weight {node.output[0]!r} is computed by {node.op_type} node {node.name or node.output[0]!r}"
        if not has(node.op_type, Trait.VIEWS):
            return what
        found = self.find([index], node.input[0])
        if isinstance(found, str) or node.op_type == "Identity":
            return found
        if node.op_type == "Transpose":
            perm = tuple(attributes(node).get("perm", range(len(found.shape))[::-1]))
            view, shape = View(perm, found.shape), tuple(found.shape[axis] for axis in perm)
        else:
            known = self._model.structure.shape(node.output[0])
            if known is None or not all(isinstance(d, int) for d in known):
                return what
            view, shape = View(None, found.shape), tuple(int(d) for d in known if isinstance(d, int))
            if np.prod(shape) != np.prod(found.shape):
                return what
        return Weight(found.name, found.tensor, found.node, (*found.views, view), shape)


def held(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor that a Constant node holds as such, None for one that holds its value otherwise."""
    return next((each.t for each in node.attribute if each.name == "value"), None)


def array_of(model: Model, tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return a tensor's values; those of a large one in the model file are read from it."""
    span = model.own_data(tensor)
    try:
        if span is not None and sys.byteorder == "little":
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            return np.frombuffer(model.buf[slice(*span)], np.uint8).view(dtype).reshape(tensor.dims)
        found: NDArray[Any] = onnx.numpy_helper.to_array(inlined(model, tensor))
    except (TypeError, ValueError) as error:  # whatever numpy makes of dims, type and data that do not fit together
        raise ModelError(f"{model.name}: the weight {tensor.name!r} is no tensor: {error}".replace("\n", " ")) from None
    return found


def multiplied(model: Model, weight: Weight, factors: Sequence[NDArray[np.float64]]) -> onnx.TensorProto | None:
    """Return the weight times the factors, multiplied in float64 and rounded once; None where that changes nothing.

    Args:
        model: Where the weight is.
        weight: The weight.
        factors: Arrays that broadcast to its shape as it is read.

    Raises:
        MaskError: a product overflows the weight's dtype.
        ModelError: its data does not fit its shape and type.
    """
    factor = _product(weight, factors)
    if (factor == 1).all():
        return None
    shape = weight.shape
    for view in reversed(weight.views):
        if view.perm is not None:
            factor = np.transpose(factor, np.argsort(view.perm))
        else:
            factor = np.broadcast_to(factor, shape).reshape(view.before)
        shape = view.before
    old = array_of(model, weight.tensor)
    new = np.empty_like(old)
    flat_old, flat_new = np.atleast_1d(old), np.atleast_1d(new)
    wide = np.broadcast_to(np.atleast_1d(factor), flat_old.shape)
    rows = max(1, _BLOCK // max(1, flat_old[:1].size))
    with np.errstate(over="ignore"):  # checked and reported below
        for start in range(0, len(flat_old), rows):
            part = slice(start, start + rows)
            flat_new[part] = rounded(flat_old[part].astype(np.float64) * wide[part], old.dtype)
            lost = np.isfinite(flat_old[part].astype(np.float64)) & ~np.isfinite(flat_new[part].astype(np.float64))
            if lost.any():
                dtype = FLOAT_TYPES[weight.tensor.data_type]
                raise MaskError(
                    f"the weight {weight.name!r} would overflow {dtype}; apply the masks without {{fold}}",
                    parameter="fold",
                )
    tensor = onnx.TensorProto()
    tensor.CopyFrom(weight.tensor)
    for field in ("external_data", "data_location", "float_data", "double_data", "int32_data"):
        tensor.ClearField(field)
    tensor.raw_data = (new if sys.byteorder == "little" else new.byteswap()).tobytes()
    return tensor


@dataclass(frozen=True)
class Change:
    """What a weight is multiplied by.

    Attributes:
        weight: The weight.
        factors: Arrays that broadcast to its shape as it is read.
    """

    weight: Weight
    factors: tuple[NDArray[np.float64], ...]

    @property
    def is_none(self) -> bool:
        """Whether it leaves the weight as it is."""
        return bool((_product(self.weight, self.factors) == 1).all())


def reweighted(model: Model, changes: Sequence[Change]) -> Edit:
    """Return the edit that multiplies weights; several changes of one are multiplied and rounded together.

    Raises:
        MaskError: a product overflows the weight's dtype.
        ModelError: data of a weight does not fit its shape and type.
    """
    by_name: dict[str, list[Change]] = {}
    for each in changes:
        by_name.setdefault(each.weight.name, []).append(each)
    nodes: dict[int, onnx.NodeProto] = {}
    tensors: dict[str, onnx.TensorProto] = {}
    for name, same in by_name.items():
        weight = same[0].weight
        tensor = multiplied(model, weight, [factor for each in same for factor in each.factors])
        if tensor is None:
            continue
        if weight.node is None:
            tensors[name] = tensor
        else:
            node = onnx.NodeProto()
            node.CopyFrom(model.proto.graph.node[weight.node])
            next(a for a in node.attribute if a.name == "value").t.CopyFrom(tensor)
            nodes[weight.node] = node
    return Edit(replace_nodes=nodes, replace_initializers=tensors)


def _product(weight: Weight, factors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the product of factors; it broadcasts to the weight's shape as it is read."""
    factor = np.ones([1] * len(weight.shape))
    for each in factors:
        factor = factor * each
    return factor


def rounded(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round float64 to a dtype once, to nearest, ties to even.

    The path to bfloat16 leads through float32, which would round twice: there the value is rounded to odd first
    (Boldo and Melquiond 2008), so that the second rounding sees on which side of a tie it was.
    """
    if dtype.itemsize != 2 or dtype == np.float16:
        return values.astype(dtype)
    nearest = values.astype(np.float32)
    inexact = np.isfinite(values) & np.isfinite(nearest) & (nearest.astype(np.float64) != values)
    beyond = inexact & (np.abs(nearest.astype(np.float64)) > np.abs(values))
    bits = nearest.view(np.uint32) - beyond.astype(np.uint32)  # one step towards zero
    odd: NDArray[Any] = (bits | inexact.astype(np.uint32)).view(np.float32)
    return odd.astype(dtype)
