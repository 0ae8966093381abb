"""Lists the weights that could carry a mask: the constant operands of linear layers and normalisations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import onnx

from cloakonnx.errors import TapError, nearest
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import attributes, describe
from cloakonnx.graph.index.traits import Trait, has
from cloakonnx.graph.masks.metadata import masks_of, nothing_left
from cloakonnx.graph.masks.taps import FLOAT_TYPES, activation_taps, default_tap, instead


@dataclass(frozen=True)
class WeightPlace:
    """A weight that can carry a mask.

    Attributes:
        name: The tensor that the layers read: an initializer, or what is computed from one.
        elem_type: ONNX element type: one of :data:`~cloakonnx.graph.masks.taps.FLOAT_TYPES`.
        shape: Its sizes.
        nodes: Indices of the nodes that read it, in order.
        op: Op type of the first of them.
        layer: Name of that node, or of its output.
        output_axis: The axis that counts output channels.
        input_axis: The axis that counts input channels; None for a vector.
        spatial: The axes that count the places of a kernel.
        stacked: The axes that count layers of one shape, each with channels of its own: an LSTM's directions.
    """

    name: str
    elem_type: int
    shape: tuple[int, ...]
    nodes: tuple[int, ...]
    op: str
    layer: str
    output_axis: int
    input_axis: int | None
    spatial: frozenset[int]
    stacked: frozenset[int] = frozenset()

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return FLOAT_TYPES[self.elem_type]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        count = 1
        for each in self.shape:
            count *= each
        return count


class WeightMask(NamedTuple):
    """Where a mask on a weight is, as gradient graphs know it.

    Attributes:
        weight: The tensor that layers read.
        shape: Of the mask: the weight's rank, with its size or 1 along each axis.
    """

    weight: str
    shape: tuple[int, ...]


_SCALED = {"BatchNormalization": 1, "LayerNormalization": 1}
"""Normalisations and which input scales."""

_RECURRENT = {"LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2)}
"""Recurrent layers: weights of inputs (directions, gates, inputs) and of states (directions, gates, states)."""

_BIASED = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2} | dict.fromkeys(_RECURRENT, 3)


def list_weights(model: Model, *, biases: bool = False) -> list[WeightPlace]:
    """Return every weight that can carry a mask, in the order of the layers that read it.

    Args:
        model: The model.
        biases: Whether to list biases too, each after its weight.
    """
    graph = model.structure
    masked = _masked(model)
    found: dict[str, WeightPlace] = {}
    for index, node in enumerate(graph.graph.node):
        for position in _positions(graph, node, biases=biases):
            name = node.input[position]
            if name not in found and name not in masked and _refusal(graph, name) is None:
                found[name] = _place(graph, name, index, position)
    return list(found.values())


def find_weight(model: Model, name: str) -> WeightPlace:
    """Return the named weight, or bias.

    Raises:
        TapError: no such tensor, or one that can't carry a mask on a weight; the message says why.
    """
    graph = model.structure
    refusal = _refusal(graph, name)
    if refusal is None and name in _masked(model):
        refusal = "is already masked; strip the model first"
    if refusal is not None:
        raise TapError(f"{model.name}: tensor {name!r} {refusal}")
    index = graph.consumers[name][0]
    return _place(graph, name, index, list(graph.graph.node[index].input).index(name))


def chosen_weights(model: Model, *, patterns: Sequence[str] = (), biases: bool = False) -> list[WeightPlace]:
    """Return the weights to learn masks on: all, or those whose name or layer a pattern finds.

    Args:
        model: The model.
        patterns: Globs (``*``, ``?``, ``[...]``) over the names of weights and of the layers that read them.
        biases: Whether to add biases.

    Raises:
        TapError: a pattern that finds nothing, or no weight at all.
    """
    found = list_weights(model, biases=biases)
    if not found and masks_of(model.proto):
        raise TapError(nothing_left(model.name, model.proto, "weight"))
    if not found:
        raise TapError(
            f"{model.name} has no Conv, ConvTranspose, Gemm, MatMul or recurrent layer with a constant weight that can "
            f"carry a mask{_reasons(model)}"
        )
    if not patterns:
        return found
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {each.name for each in found if _matches(each, pattern)}
        if not matching:
            names = [name for each in found for name in (each.name, each.layer)]
            raise TapError(
                f"{{layers}} {pattern} finds no weight of {model.name}{nearest(pattern, names)}", parameter="layers"
            )
        chosen |= matching
    return [each for each in found if each.name in chosen]


def _matches(place: WeightPlace, pattern: str) -> bool:
    return fnmatchcase(place.name, pattern) or fnmatchcase(place.layer, pattern)


def _reasons(model: Model) -> str:
    graph = model.structure
    for node in graph.graph.node:
        for position in _positions(graph, node, biases=False):
            refusal = _refusal(graph, node.input[position])
            if refusal is not None:
                return f" ({node.input[position]!r} {refusal})"
    if activation_taps(model):
        return " (--granularity feature puts masks at activations)"
    default = default_tap(graph)
    return (
        f" (--tap {default.name} puts masks at the features that it reads)"
        if default is not None
        else f"; {instead(model)}"
    )


def _positions(graph: Index, node: onnx.NodeProto, *, biases: bool) -> Iterable[int]:
    """Yield the inputs of a node that are its weights, and its bias where asked for."""
    if node.domain not in {"", "ai.onnx"}:
        return
    if has(node.op_type, Trait.WEIGHTED):
        constant = [i for i in (0, 1) if len(node.input) > i and node.input[i] in graph.constants]
        yield from constant if len(constant) == 1 else ()
        yield from _bias(graph, node) if biases and len(constant) == 1 else ()
    recurrent = _RECURRENT.get(node.op_type, ())
    yield from (i for i in recurrent if len(node.input) > i and node.input[i] in graph.constants)
    yield from _bias(graph, node) if biases and recurrent else ()
    scale = _SCALED.get(node.op_type)
    if scale is not None and len(node.input) > scale and node.input[scale] in graph.constants:
        yield scale


def _bias(graph: Index, node: onnx.NodeProto) -> list[int]:
    position = _BIASED.get(node.op_type, len(node.input))
    return [position] if len(node.input) > position and node.input[position] in graph.constants else []


def _refusal(graph: Index, name: str) -> str | None:
    """Return why a tensor can't carry a mask on a weight, or None where it can."""
    if name not in graph.constants:
        if name in graph.producers or name in {value.name for value in graph.graph.input}:
            return "is computed from the data: a mask there is one of features or elements"
        return f"does not exist{nearest(name, graph.constants)}"
    if not graph.consumers.get(name):
        return "is read by no layer of the main graph"
    return _refusal_of_kind(graph, name) or _refusal_of_readers(graph, name) or _refusal_of_shape(graph, name)


def _refusal_of_kind(graph: Index, name: str) -> str | None:
    if any(sparse.values.name == name for sparse in graph.graph.sparse_initializer):
        return "is a sparse initializer; store its numbers as a dense one"
    if _is_dequantised(graph, name):
        return (
            "is made by DequantizeLinear: a Mul behind it would keep the layer from running in integers; harden the "
            "model before it is quantised"
        )
    if graph.elem_type(name) not in {*FLOAT_TYPES, onnx.TensorProto.UNDEFINED}:
        return "is not of floating point; harden the model before it is quantised"
    return None


def _is_dequantised(graph: Index, name: str) -> bool:
    """Whether a weight comes from a node that quantises or back, directly or through ops that only move numbers."""
    maker = graph.producer(name)
    while maker is not None and (has(maker.op_type, Trait.VIEWS) or maker.op_type == "Cast") and maker.input:
        maker = graph.producer(maker.input[0])
    return maker is not None and has(maker.op_type, Trait.QUANTISES)


def _refusal_of_readers(graph: Index, name: str) -> str | None:
    readers = graph.consumers[name]
    for index in readers:
        node = graph.graph.node[index]
        places = [position for position, each in enumerate(node.input) if each == name]
        if not places:
            return f"is read inside the body of {describe(node)}; only layers of the main graph can have masked weights"
        if not set(_positions(graph, node, biases=True)).issuperset(places):
            too = " too" if len(readers) > 1 else ""
            return f"is read by {describe(node)}{too}, where it is no weight of a layer"
    return None


def _refusal_of_shape(graph: Index, name: str) -> str | None:
    shape = graph.static(name)
    if graph.elem_type(name) not in FLOAT_TYPES or shape is None:
        return "has an unknown type or shape: shape inference can't tell it"
    if not shape or 0 in shape:
        return "is a single number or empty"
    return None


def _place(graph: Index, name: str, index: int, position: int) -> WeightPlace:
    node = graph.graph.node[index]
    shape = graph.static(name) or ()
    output_axis, input_axis, spatial = _axes(node, position, len(shape))
    return WeightPlace(
        name=name,
        elem_type=graph.elem_type(name),
        shape=shape,
        nodes=tuple(graph.consumers[name]),
        op=node.op_type,
        layer=node.name or next(iter(node.output), ""),
        output_axis=output_axis,
        input_axis=input_axis,
        spatial=frozenset(spatial),
        stacked=frozenset([0] if node.op_type in _RECURRENT else []),
    )


def _axes(node: onnx.NodeProto, position: int, rank: int) -> tuple[int, int | None, Sequence[int]]:
    """Return the axes of output channels, of input channels, and of the kernel's places."""
    if rank < 2 or position == _BIASED.get(node.op_type):
        return rank - 1, None, ()
    if node.op_type == "Conv":
        return 0, 1, range(2, rank)
    if node.op_type == "ConvTranspose":
        return 1, 0, range(2, rank)
    if node.op_type in _RECURRENT:
        return 1, 2, ()
    turned = position == 0
    if node.op_type == "Gemm":
        turned = bool(attributes(node).get("transA" if position == 0 else "transB", 0)) != turned
    return (rank - 2, rank - 1, ()) if turned else (rank - 1, rank - 2, ())


def _masked(model: Model) -> set[str]:
    """Names before and after the masks that are in the model already."""
    return {name for entry in masks_of(model.proto) for name in (entry.source, entry.result)}
