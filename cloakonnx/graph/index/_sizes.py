"""Computes what nodes make from constants, without making it: shapes, and the small values that shapes need."""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.index._made import Known, inferred_node, made, makes, of_tensor, plain, value_of
from cloakonnx.graph.index.index import nodes_within, subgraphs, topological
from cloakonnx.graph.index.limits import (
    CONSTANT_BYTES,
    DRIVING,
    RANK,
    STORED_GROWTH,
    TURNS,
    WEIGHT_BYTES,
    WHOLE_NUMBERS,
    counted,
    element_bytes,
    megabytes,
)
from cloakonnx.graph.index.node import describe

_Scope = MutableMapping[str, Known]
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_FORMS = {"Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten"}
_LOOPS = {"Loop", "Scan"}
_SHAPED_BY = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0, "RandomNormal": 0}
"""Ops whose output has as many dimensions as an input has entries, and which input that is."""


def check_sizes(model: onnx.ModelProto) -> None:
    """Check what a model makes of its constants.

    Args:
        model: A model without local functions. Of its declared shapes only those of the inputs are used.

    Raises:
        ModelError: a constant would be above the limits, a Loop would not end, or nodes read each other in a circle.
    """
    _Sizes(model).walk(model.graph, {}, _Reads.of(model.graph))


def is_uncertain(model: onnx.ModelProto) -> bool:
    """Whether only a run can tell how long the model takes and how much memory: it has loops, or unknown constants."""
    nodes = list(nodes_within(model.graph.node))
    if any(node.op_type in _LOOPS for node in nodes):
        return True
    if not any(makes(node) for node in nodes):
        return False
    sizes = _Sizes(model)
    with contextlib.suppress(ModelError):  # the user's model was checked; what is derived of it may transpose weights
        sizes.walk(model.graph, {}, _Reads.of(model.graph))
    return sizes.is_open


class _NodeReads(NamedTuple):
    """What a node reads, captures of its bodies included, and the same of each body."""

    names: frozenset[str]
    bodies: tuple[_Reads, ...]


class _Reads(NamedTuple):
    """What each node of a graph reads, and what the graph reads but does not define."""

    nodes: list[_NodeReads]
    captured: frozenset[str]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Reads:
        """Go through a graph once: asking for each node at every level takes the square of the depth."""
        own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        own |= {t.values.name for t in graph.sparse_initializer}
        nodes: list[_NodeReads] = []
        captured: set[str] = set()
        for node in graph.node:
            bodies = tuple(map(cls.of, subgraphs(node)))
            names = frozenset(filter(None, node.input)).union(*(body.captured for body in bodies))
            nodes.append(_NodeReads(names, bodies))
            captured |= names - own
            own.update(node.output)
        return cls(nodes, frozenset(captured | {o.name for o in graph.output} - own))


@dataclass
class _Sizes:
    """One pass over a model; an unknown dimension of an input counts as one."""

    model: onnx.ModelProto
    is_open: bool = False
    total: int = 0
    weights: int = 0
    whole_numbers: int = 0
    stored: int = field(init=False)
    opsets: list[onnx.OperatorSetIdProto] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.stored = sum(element_bytes(t.data_type, prod(t.dims)) for t in graph.initializer)
        self.opsets = list(self.model.opset_import)

    def walk(self, graph: onnx.GraphProto, outer: _Scope, reads: _Reads) -> tuple[int, _Scope]:
        """Go through a graph; return how many nodes it runs, and what is known of its tensors."""
        scope: _Scope = ChainMap({}, *(outer.maps if isinstance(outer, ChainMap) else [outer]))
        for value in graph.input:
            scope[value.name] = _declared(value)
        for tensor in graph.initializer:
            scope[tensor.name] = of_tensor(tensor)
        for sparse in graph.sparse_initializer:
            scope[sparse.values.name] = Known(tuple(sparse.dims), sparse.values.data_type, is_constant=True)
        readers = _readers(graph.node)
        turns = 0
        for index in _ordered(graph.node, reads):
            turns += self._node(graph.node[index], scope, readers, reads.nodes[index])
        return turns, scope

    def _node(
        self, node: onnx.NodeProto, scope: _Scope, readers: Mapping[str, list[onnx.NodeProto]], reads: _NodeReads
    ) -> int:
        inputs = [scope.get(name) if name else None for name in node.input]
        self._check_shape_operand(node, inputs)
        bodies = list(subgraphs(node))
        if bodies:
            turns, found = self._bodies(node, bodies, inputs, scope, reads)
        else:
            turns, found = 1, self._outputs(node, inputs)
        for name, known in zip(node.output, found, strict=False):
            if name and known is not None:
                scope[name] = known
                if known.is_constant and plain(node) != "Constant":
                    self._check_constant(node, name, known, inputs, readers)
        return turns

    def _outputs(self, node: onnx.NodeProto, inputs: Sequence[Known | None]) -> Sequence[Known | None]:
        """Return what is known of a node's outputs; None where it depends on the data."""
        op = plain(node)
        if op in {"Shape", "Size"} and inputs and inputs[0] is not None and inputs[0].shape is not None:
            return [value_of(node, inputs, self.opsets)]
        given = [known for name, known in zip(node.input, inputs, strict=True) if name]
        is_fixed = all(known is not None and known.is_constant for known in given)
        if not is_fixed:
            self._check_made(node, inputs)
            return []
        shapes = made(node, inputs)
        if shapes is None:
            found = inferred_node(node, inputs, self.opsets)
            self.is_open = self.is_open or any(known.shape is None for known in found)
        else:
            found = [shapes]
        self._refuse_large(node, found, inputs)
        if all(known.shape is not None for known in found):
            computed = value_of(node, inputs, self.opsets, found)
            return [computed] if computed is not None else found
        return found

    def _check_made(self, node: onnx.NodeProto, inputs: Sequence[Known | None]) -> None:
        """Check the size of what a node makes of data, where constants tell it."""
        found = made(node, inputs) if makes(node) else None
        if found is None or found.shape is None:
            return
        _check_rank(node, len(found.shape))

    def _refuse_large(self, node: onnx.NodeProto, found: Iterable[Known], inputs: Sequence[Known | None]) -> None:
        for known in found:
            if known.shape is not None:
                _check_rank(node, len(known.shape))
                if any(size < 0 for size in known.shape):
                    raise ModelError(f"{describe(node)} would make a constant of negative or overflowing size")

    def _check_constant(
        self,
        node: onnx.NodeProto,
        name: str,
        known: Known,
        inputs: Sequence[Known | None],
        readers: Mapping[str, list[onnx.NodeProto]],
    ) -> None:
        if known.shape is None:
            return
        size = known.bytes
        read = sum(each.bytes for each in inputs if each is not None and each.shape is not None)
        most = max(DRIVING, 2 * read if makes(node) else STORED_GROWTH * self.stored)
        if size > most:
            if known.is_float and _feeds_weights(name, readers):
                self.weights += size
                if self.weights <= WEIGHT_BYTES:
                    return
                raise ModelError(
                    f"{describe(node)} and others would make {megabytes(self.weights)} of weights from constants; the "
                    f"limit is {megabytes(WEIGHT_BYTES)}"
                )
            raise ModelError(
                f"{describe(node)} would make {megabytes(size)} from constants; the limit is {megabytes(most)}"
            )
        self.total += size
        if self.total > CONSTANT_BYTES + 2 * STORED_GROWTH * self.stored:
            raise ModelError(
                f"{describe(node)} and the nodes before it would make {megabytes(self.total)} from constants; the "
                f"limit is {megabytes(CONSTANT_BYTES + 2 * STORED_GROWTH * self.stored)}"
            )
        if len(known.shape) == 1 and not known.is_float:
            self.whole_numbers += known.shape[0]
            if self.whole_numbers > WHOLE_NUMBERS:
                raise ModelError(
                    f"{describe(node)} and the nodes before it would make vectors of {self.whole_numbers:,} whole "
                    f"numbers; the limit is {WHOLE_NUMBERS:,}"
                )

    def _check_shape_operand(self, node: onnx.NodeProto, inputs: Sequence[Known | None]) -> None:
        position = _SHAPED_BY.get(plain(node))
        if position is None or position >= len(inputs):
            return
        operand = inputs[position]
        if operand is not None and operand.shape is not None and len(operand.shape) == 1:
            _check_rank(node, operand.shape[0])

    def _bodies(
        self,
        node: onnx.NodeProto,
        bodies: Sequence[onnx.GraphProto],
        inputs: Sequence[Known | None],
        scope: _Scope,
        reads: _NodeReads,
    ) -> tuple[int, Sequence[Known | None]]:
        """Go through the bodies of a node; return how many nodes run, and what is known of the outputs."""
        walked = [self.walk(body, scope, inside) for body, inside in zip(bodies, reads.bodies, strict=True)]
        turns = sum(count for count, _ in walked) + 1
        is_constant = all(known is not None and known.is_constant for known in map(scope.get, reads.names))
        if is_constant:
            self.is_open = True
        outputs = [Known(None, 0, is_constant=True) if is_constant else None for _ in node.output]
        if plain(node) != "Loop" or not inputs:
            return turns, outputs
        times = _times(inputs[0], bodies[0], walked[0][1])
        if times is None:
            return turns, outputs
        if times * turns > TURNS and _goes_on(bodies[0], walked[0][1], inputs):
            raise ModelError(
                f"{describe(node)} would run {counted(times)} times, {counted(times * turns)} nodes in all; the limit "
                f"is {TURNS:,}"
            )
        carried = len(node.input) - 2
        for position, result in enumerate(bodies[0].output[1:]):
            known = (walked[0][1].get(result.name) or _declared(result)) if position >= carried else None
            if known is not None and known.shape is not None and position < len(outputs):
                stacked = Known((times, *known.shape), known.elem_type, is_constant=is_constant)
                if stacked.bytes > DRIVING and _goes_on(bodies[0], walked[0][1], inputs):
                    raise ModelError(
                        f"{describe(node)} would make {megabytes(stacked.bytes)} in {counted(times)} turns; the limit "
                        f"is {megabytes(DRIVING)}"
                    )
        return max(times, 1) * turns if times <= TURNS else turns, outputs


def _check_rank(node: onnx.NodeProto, rank: int) -> None:
    if rank > RANK:
        raise ModelError(f"{describe(node)} would make a tensor of {rank:,} dimensions; the limit is {RANK}")


def _times(trips: Known | None, body: onnx.GraphProto, inside: _Scope) -> int | None:
    """Return how many iterations a Loop runs at most, None where the file does not show it."""
    if trips is None or trips.value is None or trips.value.size != 1:
        return None
    return max(int(trips.value.reshape(-1)[0]), 0)


def _goes_on(body: onnx.GraphProto, inside: _Scope, inputs: Sequence[Known | None]) -> bool:
    """Whether a body never ends its Loop before the last turn: its condition is true, or the one that it is given."""
    first = inputs[1] if len(inputs) > 1 else None
    if first is not None and first.value is not None and not first.value.all():
        return False
    if not body.output:
        return False
    known = inside.get(body.output[0].name)
    if known is not None and known.value is not None:
        return bool(known.value.all())
    name = body.output[0].name
    makers = {node.output[0]: node for node in body.node if node.output}
    for _ in range(len(body.node)):
        node = makers.get(name)
        if node is None or plain(node) != "Identity":
            break
        name = node.input[0]
    return len(body.input) > 1 and name == body.input[1].name


def _declared(value: onnx.ValueInfoProto) -> Known:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return Known(None, tensor.elem_type, is_constant=False)
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else 1 for d in tensor.shape.dim)
    return Known(shape, tensor.elem_type, is_constant=False)


def _readers(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _feeds_weights(name: str, readers: Mapping[str, list[onnx.NodeProto]], steps: int = 4) -> bool:
    """Whether all that read a constant are layers, whose weight it is."""
    found = readers.get(name, [])
    if not found or not steps:
        return False
    return all(
        (plain(node) in _WEIGHTED and name in node.input[:2])
        or (plain(node) in _FORMS and _feeds_weights(node.output[0], readers, steps - 1))
        for node in found
    )


def _ordered(nodes: Sequence[onnx.NodeProto], reads: _Reads) -> Iterator[int]:
    """Yield the indices of nodes so that each comes after those that it reads."""
    done = set()
    for index in topological(nodes, [read.names for read in reads.nodes]):
        done.add(index)
        yield index
    if len(done) < len(nodes):
        stuck = next(node for index, node in enumerate(nodes) if index not in done)
        raise ModelError(f"{describe(stuck)} reads, by way of others, what it makes itself: the graph has a circle")
