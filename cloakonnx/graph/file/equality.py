"""Whether two files hold the same graph, whatever else in them differs: proof that they compute the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from cloakonnx.graph.file.content import raw_content
from cloakonnx.graph.file.external import is_external, tensors
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.bounds import stored_twice
from cloakonnx.graph.index.index import subgraphs


def computes_the_same(first: Model, second: Model) -> bool:
    """Whether the graphs of two models are equal, except for what changes no result.

    That is: value infos, doc strings, metadata, names of nodes and graphs, the sizes that inputs and outputs are
    declared with, the order of nodes and initializers, where the initializers' data is, and the versions of operator
    sets between which no op of the model changed. False does not mean that they compute something else.
    """
    try:
        before, after = _Form.of(first), _Form.of(second)
    except ValueError:
        return False
    return before == after and all(_same_op(op, first.proto, second.proto) for op in _ops(first.proto))


@dataclass(frozen=True)
class _Form:
    """What a graph's results depend on, in no order."""

    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    nodes: Counter[bytes]
    initializers: dict[str, tuple[int, tuple[int, ...], str]]
    sparse: Counter[bytes]
    functions: Counter[bytes]

    @classmethod
    def of(cls, model: Model) -> _Form:
        """Read a model; raises ValueError where data can't be read, or isn't compared here."""
        graph = model.proto.graph
        initializers = {}
        for tensor in graph.initializer:
            if tensor.name in initializers:
                raise ValueError(f"two initializers {tensor.name!r}")
            if stored_twice(tensor):
                raise ValueError(f"{tensor.name!r} holds its data twice, and readers disagree on which counts")
            digest = hashlib.sha256()
            for block in raw_content(model, tensor):
                digest.update(block)
            initializers[tensor.name] = (tensor.data_type, tuple(tensor.dims), digest.hexdigest())
        if sum(map(is_external, tensors(model.proto))) != sum(map(is_external, graph.initializer)):
            raise ValueError("external data of other tensors than initializers")
        return cls(
            inputs=tuple(map(_declared, model.inputs)),
            outputs=tuple(map(_declared, graph.output)),
            nodes=Counter(map(_node, graph.node)),
            initializers=initializers,
            sparse=Counter(each.SerializeToString(deterministic=True) for each in graph.sparse_initializer),
            functions=Counter(each.SerializeToString(deterministic=True) for each in model.proto.functions),
        )


def _declared(value: onnx.ValueInfoProto) -> bytes:
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(value)
    for name in ("doc_string", "metadata_props"):
        kept.ClearField(name)
    if kept.type.HasField("tensor_type"):
        kept.type.tensor_type.ClearField("shape")
    return kept.SerializeToString(deterministic=True)


def _node(node: onnx.NodeProto) -> bytes:
    kept = onnx.NodeProto()
    kept.CopyFrom(node)
    for name in ("name", "doc_string", "metadata_props", "attribute"):
        kept.ClearField(name)
    kept.attribute.extend(sorted(node.attribute, key=lambda each: each.name))
    for attribute in kept.attribute:
        attribute.ClearField("doc_string")
    return kept.SerializeToString(deterministic=True)


def _ops(model: onnx.ModelProto) -> set[tuple[str, str]]:
    nodes = [*_nodes(model.graph.node), *(node for function in model.functions for node in _nodes(function.node))]
    local = {(function.domain, function.name) for function in model.functions}
    return {(node.domain, node.op_type) for node in nodes} - local


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _nodes(graph.node)


def _same_op(op: tuple[str, str], first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
    """Whether an op is the same in the operator sets that two models import."""
    domain, name = op
    versions = [_version(model, domain) for model in (first, second)]
    if versions[0] == versions[1]:
        return True
    if None in versions:
        return False
    try:
        since = {onnx.defs.get_schema(name, version or 0, domain).since_version for version in versions}
    except onnx.defs.SchemaError:
        return False
    return len(since) == 1


def _version(model: onnx.ModelProto, domain: str) -> int | None:
    same = {"", "ai.onnx"} if domain in {"", "ai.onnx"} else {domain}
    return next((each.version for each in model.opset_import if each.domain in same), None)
