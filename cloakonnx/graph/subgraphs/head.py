"""The head: the graph after a tap, with the tap as its input; and whether it is linear in the tap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import TapError
from cloakonnx.graph.build import Builder
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.index import Index, node_inputs
from cloakonnx.graph.index.normal import normalised
from cloakonnx.graph.index.traits import Trait, has
from cloakonnx.graph.masks.taps import Tap

_MIN_IR = 8


@dataclass(frozen=True, eq=False)
class Head:
    """The graph after a tap.

    Attributes:
        proto: The model; its weights are as in the source, references or inline.
        tap: Its first input.
        sides: Its other inputs: computed tensors that it reads beside the tap, such as the other branch of a residual
            block, in graph order. With the tap they are all data of a sample that it reads.
        nonlinear: What keeps the class scores from being linear in the tap, described; None where they are. A Softmax
            or Sigmoid at the very end does not count.
    """

    proto: onnx.ModelProto
    tap: str
    sides: tuple[str, ...]
    nonlinear: str | None


def head(model: Model, tap: str, output_name: str | None = None) -> Head:
    """Cut the part of a model that leads from a tap to an output.

    Args:
        model: The model.
        tap: A computed tensor of the main graph.
        output_name: The class scores, where there are several outputs.

    Raises:
        TapError: the output does not depend on the tap.
        ModelError: the output is ambiguous.
    """
    graph, output = model.structure, model.output(output_name)
    nodes = _after(graph, tap) & _before(graph, output.name)
    if not nodes:
        raise TapError(f"{model.name}: output {output.name!r} does not depend on {tap!r}; choose another tap")
    made = {name for index in nodes for name in graph.graph.node[index].output if name}
    read = {name for index in nodes for name in node_inputs(graph.graph.node[index])}
    constant, weights = _constant_part(graph, (read | {output.name}) & graph.constants)
    sides = tuple(name for name in graph.producers if name in read - made - graph.constants - {tap})
    sides += tuple(i.name for i in graph.graph.input if i.name in read - graph.constants - {tap})
    proto = onnx.ModelProto(ir_version=max(model.proto.ir_version, _MIN_IR), opset_import=model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    part, source = proto.graph, model.proto.graph
    part.name = "head"
    part.node.extend(node for i, node in enumerate(source.node) if i in nodes | constant)
    part.initializer.extend(t for t in source.initializer if t.name in weights)
    part.sparse_initializer.extend(t for t in source.sparse_initializer if t.values.name in weights)
    part.input.extend(_value(graph, name) for name in (tap, *sides))
    part.output.append(output)
    ordered = [index for index in graph.order if index in nodes]
    return Head(normalised(proto), tap, sides, _nonlinear(graph, ordered, tap, output.name))


def _after(graph: Index, tap: str) -> set[int]:
    """Return the nodes that depend on a tensor, those that read its shape only included."""
    nodes: set[int] = set()
    waiting = [tap]
    while waiting:
        for index in graph.consumers.get(waiting.pop(), []):
            if index not in nodes:
                nodes.add(index)
                waiting += [name for name in graph.graph.node[index].output if name]
    return nodes


def _before(graph: Index, tensor: str) -> set[int]:
    """Return the nodes that a tensor depends on."""
    nodes: set[int] = set()
    waiting = [tensor]
    while waiting:
        found = graph.producers.get(waiting.pop())
        if found is not None and found[0] not in nodes:
            nodes.add(found[0])
            waiting += node_inputs(graph.graph.node[found[0]])
    return nodes


def _constant_part(graph: Index, names: set[str]) -> tuple[set[int], set[str]]:
    """Return the nodes that compute constants, and the names of the initializers behind them."""
    nodes: set[int] = set()
    weights: set[str] = set()
    for name in names:
        nodes |= _before(graph, name)
        if name not in graph.producers:
            weights.add(name)
    weights |= {name for index in nodes for name in node_inputs(graph.graph.node[index])} - set(graph.producers)
    return nodes, weights


def _value(graph: Index, name: str) -> onnx.ValueInfoProto:
    info = graph.infos.get(name)
    if info is None or not info.elem_type:
        raise TapError(f"the type of tensor {name!r}, which the graph after the tap reads, is not known")
    return onnx.helper.make_tensor_value_info(name, info.elem_type, info.shape)


def _nonlinear(graph: Index, nodes: list[int], tap: str, output: str) -> str | None:
    """Return what is not linear between a tap and the output; nodes that only read shapes do not count."""
    final = _final_activation(graph, output)
    values = {tap}  # what depends on the tap's values, not only on its shape
    for index in nodes:
        node = graph.graph.node[index]
        own = [name for name in node_inputs(node) if name in values]
        if index == final or not own or has(node.op_type, Trait.SIZES):
            continue
        if node.domain not in {"", "ai.onnx"} or not _is_linear(graph, node, own):
            return f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} that makes {node.output[0]!r}"
        values.update(name for name in node.output if name)
    return None


def _is_linear(graph: Index, node: onnx.NodeProto, own: list[str]) -> bool:
    if has(node.op_type, Trait.LINEAR):
        return own == [node.input[0]]
    others = [name for name in node_inputs(node) if name not in own]
    if has(node.op_type, Trait.PRODUCT):
        return len(own) == 1 and list(node.input).count(own[0]) == 1 and set(others) <= graph.constants
    if node.op_type == "Div":
        return own == [node.input[0]] and set(others) <= graph.constants
    return has(node.op_type, Trait.SUM)


def _final_activation(graph: Index, output: str) -> int | None:
    """Return the index of the Softmax or Sigmoid that the output comes from, None where there is none."""
    found = graph.producers.get(output)
    while found is not None and has(graph.graph.node[found[0]].op_type, Trait.MOVES):
        found = graph.producers.get(graph.graph.node[found[0]].input[0])
    return found[0] if found is not None and has(graph.graph.node[found[0]].op_type, Trait.FINAL) else None


@dataclass(frozen=True, eq=False)
class MaskedHead:
    """The graph after a tap, with a mask multiplied in at the tap.

    Attributes:
        proto: The model; its weights are as in the source, references or inline.
        unmasked: Its first input: the tap as the backbone gives it.
        mask: Its second input: weights of the tap's rank, float32 or double where the tap is double; 1 long on every
            axis but the feature axis, or on every one but that and the first, for a mask of each sample's own.
        sides: Its other inputs: computed tensors, or the model's inputs, that it reads beside the tap.
    """

    proto: onnx.ModelProto
    unmasked: str
    mask: str
    sides: tuple[str, ...]


def masked_head(model: Model, tap: Tap, output_name: str | None = None) -> MaskedHead:
    """Cut the part of a model that leads from a tap to an output, and multiply a mask in at its beginning.

    Args:
        model: The model.
        tap: The tap.
        output_name: The class scores, where there are several outputs.

    Raises:
        TapError: the output does not depend on the tap, or the graph after the tap reads a tensor of unknown type.
        ModelError: the output is ambiguous.
    """
    part = head(model, tap.name, output_name)
    graph = part.proto.graph
    build = Builder.beside(graph)
    is_plain = tap.elem_type in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
    shape: list[int | str | None] = [1] * len(tap.shape)
    shape[0], shape[tap.feature_axis] = None, tap.features
    unmasked = build.input(build.fresh(f"{tap.name}_unmasked"), tap.elem_type)
    mask = build.input(build.fresh(f"{tap.name}_mask"), tap.elem_type if is_plain else onnx.TensorProto.FLOAT, shape)
    build.op("Mul", unmasked, mask if is_plain else mask.cast(tap.elem_type), name=tap.name)
    build.insert_into(graph)
    graph.input[0].name = unmasked.name
    sides = list(graph.input)[1:]
    del graph.input[1:]
    graph.input.extend([build.graph.input[1], *sides])
    return MaskedHead(part.proto, unmasked.name, mask.name, part.sides)


def mask_input(tap: Tap, masks: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return masks, (F,) weights each, as the mask input of a :class:`MaskedHead` takes them: one a row.

    Args:
        tap: The head's tap.
        masks: The masks.
    """
    shape = [1] * len(tap.shape)
    shape[0], shape[tap.feature_axis] = len(masks), -1
    wide = np.float64 if tap.elem_type == onnx.TensorProto.DOUBLE else np.float32
    return np.stack(masks).astype(wide).reshape(shape)
