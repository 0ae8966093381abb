"""Who makes and who reads each tensor of the main graph; which tensors are constant; what shapes are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

RANDOM_OPS = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without running the model: its element type and its shape.

    ``shape`` is None where the rank is unknown; a dimension is an int, a symbol's name, or None where it is unknown.
    """

    elem_type: int
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Structure:
    """The main graph as a web of names.

    Attributes:
        producers: Tensor name to (node index, output index).
        consumers: Tensor name to the indices of the nodes that read it, captures by their subgraphs included.
        constants: Names of the tensors that depend on no input: initializers and what is computed from them only.
        infos: Element type and shape of every tensor that inference or the file tells something of.
        inner: Names that only exist inside the bodies of If, Loop and Scan, and the node that holds them.
        kinds: What the values are that are no tensors: ``sequence``, ``optional``, ``map``, ...
        functions: Names inside the local functions, which have a scope of their own, and the function's name.
        others: Names that are tied to tensors elsewhere: value infos, quantization annotations, training graphs.
    """

    graph: onnx.GraphProto
    producers: dict[str, tuple[int, int]]
    consumers: dict[str, list[int]]
    constants: set[str]
    infos: dict[str, TensorInfo]
    inner: dict[str, int]
    kinds: dict[str, str]
    functions: dict[str, str]
    others: frozenset[str]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes the tensor, or None for an input or initializer."""
        found = self.producers.get(tensor)
        return None if found is None else self.graph.node[found[0]]

    def names(self) -> set[str]:
        """Every tensor name in use anywhere in the graph and its subgraphs, or tied to something there."""
        declared = {i.name for i in self.graph.input} | {o.name for o in self.graph.output}
        used = declared | set(self.producers) | set(self.consumers) | self.constants | set(self.inner)
        return used | self.others

    def shape(self, tensor: str) -> tuple[int | str | None, ...] | None:
        """Return the shape that is known of a tensor, None where its rank is not known."""
        info = self.infos.get(tensor)
        return info.shape if info else None


def structure(inferred: onnx.ModelProto) -> Structure:
    """Index the main graph of a model whose shapes have been inferred."""
    graph = inferred.graph
    producers: dict[str, tuple[int, int]] = {}
    consumers: dict[str, list[int]] = {}
    inner: dict[str, int] = {}
    constants = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    for index, node in enumerate(graph.node):
        reads = set(node_inputs(node))
        for name in reads:
            consumers.setdefault(name, []).append(index)
        for position, name in enumerate(node.output):
            if name:
                producers[name] = (index, position)
        for name in _inner_names(node):
            inner.setdefault(name, index)
        if reads <= constants and not _is_random(node):
            constants.update(name for name in node.output if name)
    infos = {t.name: TensorInfo(t.data_type, tuple(t.dims)) for t in graph.initializer}
    kinds: dict[str, str] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.WhichOneof("value")
        if kind == "tensor_type":
            infos[value.name] = _tensor_info(value.type.tensor_type)
        elif kind is not None:
            kinds[value.name] = kind.removesuffix("_type").replace("_", " ")
    functions = {n: f.name for f in inferred.functions for node in f.node for n in node.output}
    others = frozenset(_tied_names(inferred))
    return Structure(graph, producers, consumers, constants, infos, inner, kinds, functions, others)


def _tied_names(model: onnx.ModelProto) -> Iterator[str]:
    """Names of tensors that are spoken of outside the nodes; a new tensor of such a name would be meant by them."""
    graph = model.graph
    yield from (value.name for value in graph.value_info)
    for annotation in graph.quantization_annotation:
        yield annotation.tensor_name
        yield from (entry.value for entry in annotation.quant_parameter_tensor_names)
    for info in model.training_info:
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


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


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
    if node.op_type in RANDOM_OPS:
        return True
    return any(_is_random(inner) for graph in subgraphs(node) for inner in graph.node)


def _tensor_info(tensor_type: onnx.TypeProto.Tensor) -> TensorInfo:
    if not tensor_type.HasField("shape"):
        return TensorInfo(tensor_type.elem_type, None)
    return TensorInfo(tensor_type.elem_type, tuple(_dimension(d) for d in tensor_type.shape.dim))


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param if dim.dim_param and isinstance(dim.dim_param, str) else None  # bytes: not UTF-8
