"""The one index of a graph: who makes and reads each tensor, its type, shape and value, which tensors are constant."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from cloakonnx.errors import ModelError
from cloakonnx.graph.index.blocked import NCHWC
from cloakonnx.graph.index.traits import Trait, has

Dim: TypeAlias = int | str | None
"""A dimension: its size, the name of an unknown one, or None where nothing is known."""

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor without running the model: its element type, 0 where unknown, and its shape.

    ``shape`` is None where the rank is unknown.
    """

    elem_type: int
    shape: tuple[Dim, ...] | None


class Index:
    """The main graph by the names of its tensors.

    Types and shapes are read at once, and more can be added; everything else is worked out when it is first asked for,
    from the graph as it is then.

    Attributes:
        graph: The graph.
        infos: Element type and shape of every tensor of which inference or the file gives any.
        kinds: The kind of each value that is no tensor: ``sequence``, ``optional``, ``map``, ...
        initializers: The initializers by name.

    Args:
        graph: A graph whose shapes have been inferred.
        model: The model around it, for names outside the graph.
    """

    def __init__(self, graph: onnx.GraphProto, model: onnx.ModelProto | None = None) -> None:
        self.graph = graph
        self.infos: dict[str, TensorInfo] = {}
        self.kinds: dict[str, str] = {}
        self.initializers: dict[str, TensorProto] = {}
        self._model = model
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.WhichOneof("value")
            if kind == "tensor_type":
                self._read(value.name, value.type.tensor_type)
            elif kind is not None:
                self.kinds[value.name] = kind.removesuffix("_type").replace("_", " ")
        for tensor in graph.initializer:
            self.add_initializer(tensor)

    def _read(self, name: str, tensor: onnx.TypeProto.Tensor) -> None:
        shape = tuple(_dimension(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
        known = self.infos.get(name)
        if known is not None:
            shape = known.shape if shape is None else shape
        self.infos[name] = TensorInfo(tensor.elem_type or (known.elem_type if known else 0), shape)

    def add_initializer(self, tensor: TensorProto) -> None:
        """Add an initializer."""
        self.initializers[tensor.name] = tensor
        self.infos[tensor.name] = TensorInfo(tensor.data_type, tuple(tensor.dims))

    def learn(self, name: str, elem_type: int, shape: Sequence[Dim] | None) -> None:
        """Set the type and shape of a tensor."""
        self.infos[name] = TensorInfo(elem_type, None if shape is None else tuple(shape))

    @cached_property
    def producers(self) -> dict[str, tuple[int, int]]:
        """Tensor name to (node index, output index)."""
        return {
            name: (index, position)
            for index, node in enumerate(self.graph.node)
            for position, name in enumerate(node.output)
            if name
        }

    @cached_property
    def consumers(self) -> dict[str, list[int]]:
        """Tensor name to the indices of the nodes that read it, captures by their subgraphs included."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.graph.node):
            for name in set(node_inputs(node)):
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def constants(self) -> set[str]:
        """Names of the tensors that have the same value in every run: initializers and what is computed from them."""
        return self._closed(random=False)

    @cached_property
    def fixed(self) -> set[str]:
        """Names of the tensors that depend on no input: constants, and what random ops make without the data."""
        return self._closed(random=True)

    @cached_property
    def blocked(self) -> set[str]:
        """Names of the tensors in ONNX Runtime's blocked layout, which elementwise ops and Concat leave as it is."""
        names: set[str] = set()
        for node in (self.graph.node[index] for index in self.order):
            is_back = node.domain == NCHWC and node.op_type == "ReorderOutput"
            if not is_back and (node.domain == NCHWC or any(name in names for name in node.input[:1])):
                names.update(node.output)
        return names

    def _closed(self, *, random: bool) -> set[str]:
        names = set(self.initializers) | {t.values.name for t in self.graph.sparse_initializer}
        for node in (self.graph.node[index] for index in self.order):
            if all(name in names for name in node_inputs(node)) and (random or not _is_random(node)):
                names.update(name for name in node.output if name)
        return names

    @cached_property
    def order(self) -> Sequence[int]:
        """Indices of the nodes, each behind those that make what it reads; a file may have them in any order."""
        return sorted_order(self.graph.node) or range(len(self.graph.node))

    @cached_property
    def inner(self) -> dict[str, int]:
        """Names that only exist inside the bodies of If, Loop and Scan, and the node that holds them."""
        found: dict[str, int] = {}
        for index, node in enumerate(self.graph.node):
            for name in _inner_names(node):
                found.setdefault(name, index)
        return found

    @cached_property
    def functions(self) -> dict[str, str]:
        """Names inside the local functions, which have a scope of their own, and the function's name."""
        functions = () if self._model is None else self._model.functions
        return {name: f.name for f in functions for node in f.node for name in node.output}

    @cached_property
    def others(self) -> frozenset[str]:
        """Names that are tied to tensors elsewhere: value infos, quantization annotations, training graphs."""
        return frozenset(_tied_names(self.graph, () if self._model is None else self._model.training_info))

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes the tensor, or None for an input or initializer."""
        found = self.producers.get(tensor)
        return None if found is None else self.graph.node[found[0]]

    def names(self) -> set[str]:
        """Every tensor name in use anywhere in the graph and its subgraphs, or tied to something there."""
        declared = {i.name for i in self.graph.input} | {o.name for o in self.graph.output}
        used = declared | set(self.producers) | set(self.consumers) | self.constants | set(self.inner)
        return used | self.others

    def elem_type(self, tensor: str) -> int:
        """Element type, float32 where inference did not reach."""
        info = self.infos.get(tensor)
        return info.elem_type or TensorProto.FLOAT if info else TensorProto.FLOAT

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor is of floating point; an unknown type counts as such."""
        return self.elem_type(tensor) in FLOATS

    def shape(self, tensor: str) -> tuple[Dim, ...] | None:
        """Return the shape that is known of a tensor, None where its rank is not known."""
        info = self.infos.get(tensor)
        return info.shape if info else None

    def rank(self, tensor: str) -> int | None:
        """Rank, or None where it is unknown."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def static(self, tensor: str) -> tuple[int, ...] | None:
        """Dimensions where all of them are known numbers, else None."""
        shape = self.shape(tensor)
        if shape is None:
            return None
        known = tuple(d for d in shape if isinstance(d, int))
        return known if len(known) == len(shape) else None

    def value(self, tensor: str) -> npt.NDArray[np.generic] | None:
        """Value of an initializer, None of others and of data in files; raises ModelError where it does not fit."""
        found = self.initializers.get(tensor)
        if found is None or found.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return np.asarray(numpy_helper.to_array(found))
        except Exception as error:  # whatever numpy makes of dims, type and data that do not fit together
            raise ModelError(
                f"the data of initializer {tensor!r} do not fit its shape and type ({error}): the file is damaged"
            ) from None


def structure(inferred: onnx.ModelProto) -> Index:
    """Index the main graph of a model whose shapes have been inferred."""
    return Index(inferred.graph, inferred)


def sorted_order(nodes: Sequence[onnx.NodeProto]) -> list[int] | None:
    """Return indices that put each node behind those that make what it reads, bodies included; None where all are.

    Nodes keep their order where they can. Those on a cycle, which no runtime takes, come last.
    """
    order = list(topological(nodes, [set(node_inputs(node)) for node in nodes]))
    order += sorted(set(range(len(nodes))).difference(order))
    return None if order == list(range(len(nodes))) else order


def topological(nodes: Sequence[onnx.NodeProto], reads: Sequence[Collection[str]]) -> Iterator[int]:
    """Yield the indices of nodes, each behind those that make what it reads; none that is on a cycle or behind one.

    Args:
        nodes: The nodes.
        reads: The names that each reads, captures of its bodies included.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    after: dict[int, list[int]] = {}
    waiting = []
    for index, names in enumerate(reads):
        needed = {makers[name] for name in names if name in makers}
        waiting.append(len(needed))
        for maker in needed:
            after.setdefault(maker, []).append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    while ready:
        index = heapq.heappop(ready)
        yield index
        for later in after.get(index, ()):
            waiting[later] -= 1
            if not waiting[later]:
                heapq.heappush(ready, later)


def _tied_names(graph: onnx.GraphProto, training: Sequence[onnx.TrainingInfoProto]) -> Iterator[str]:
    """Names of tensors that are mentioned outside the nodes; a new tensor must not have such a name."""
    yield from (value.name for value in graph.value_info)
    for annotation in graph.quantization_annotation:
        yield annotation.tensor_name
        yield from (entry.value for entry in annotation.quant_parameter_tensor_names)
    for info in training:
        for binding in (*info.initialization_binding, *info.update_binding):
            yield from (binding.key, binding.value)
        for part in (info.initialization, info.algorithm):
            yield from captures(part)
            yield from (t.name for t in part.initializer)
            yield from (name for node in part.node for name in node.output)


def node_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of the tensors that a node reads, what its subgraphs capture included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from captures(graph)


def names_in(graph: onnx.GraphProto) -> set[str]:
    """Return every name in a graph, those within bodies left out."""
    names = {name for node in graph.node for name in (*node.input, *node.output, node.name)}
    names.update(value.name for value in (*graph.input, *graph.output))
    names.update(tensor.name for tensor in graph.initializer)
    return names | {tensor.values.name for tensor in graph.sparse_initializer}


def reads(node: onnx.NodeProto) -> list[str]:
    """Return the inputs of a node by position, and behind them what its bodies capture, by name."""
    bodies = list(subgraphs(node))
    return [*node.input, *sorted(set().union(*map(captures, bodies)))] if bodies else list(node.input)


def rename_reads(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Have a node and its bodies read other tensors of the graph around it."""
    for position, name in enumerate(node.input):
        if name in names:
            node.input[position] = names[name]
    for body in subgraphs(node):
        read = captures(body)
        outside = {old: new for old, new in names.items() if old in read}
        for inner in body.node if outside else ():
            rename_reads(inner, outside)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, and after each those of the bodies that it holds."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from nodes_within(graph.node)


def captures(graph: onnx.GraphProto) -> set[str]:
    """Return the names that a body reads but does not define."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {t.values.name for t in graph.sparse_initializer}
    found: set[str] = set()
    for node in graph.node:
        found |= set(node_inputs(node)) - own
        own.update(node.output)
    return found | {o.name for o in graph.output} - own


def _inner_names(node: onnx.NodeProto) -> Iterator[str]:
    for graph in subgraphs(node):
        yield from (i.name for i in graph.input)
        yield from (t.name for t in graph.initializer)
        for inner in graph.node:
            yield from (name for name in inner.output if name)
            yield from _inner_names(inner)


def _is_random(node: onnx.NodeProto) -> bool:
    if has(node.op_type, Trait.RANDOM):
        return True
    return any(_is_random(inner) for graph in subgraphs(node) for inner in graph.node)


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param if dim.dim_param and isinstance(dim.dim_param, str) else None  # bytes: not UTF-8
