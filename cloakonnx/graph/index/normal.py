"""The form in which every derived graph starts: nodes in order, one name of the default domain, each opset once.

ONNX Runtime takes files that are otherwise: it sorts the nodes of the main graph, knows the default domain by its other
name ``ai.onnx`` too, and of several imports of a domain the last one counts. The user's file stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx

from cloakonnx.graph.index.index import nodes_within, sorted_order

_OTHER_NAME = "ai.onnx"


def normalised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model in this form; the model itself where it has it."""
    order = sorted_order(model.graph.node)
    if order is None and not _is_named_otherwise(model) and not _imports_twice(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if order is not None:
        nodes = [model.graph.node[index] for index in order]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
    for node in _all_nodes(copy):
        node.domain = plain_domain(node.domain)
    _import_once(copy)
    for function in copy.functions:
        _import_once(function)
    return copy


def in_order_of(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Return a normalised model with its nodes where they were before; itself where nothing was moved."""
    order = sorted_order(nodes)
    if order is None:
        return model
    found = {old: model.graph.node[new] for new, old in enumerate(order)}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(found[index] for index in range(len(nodes)))
    return copy


def opset_version(imports: Iterable[onnx.OperatorSetIdProto], default: int = 0) -> int:
    """Return the version of the default operator set: the last import counts, as in ONNX Runtime."""
    versions = [each.version for each in imports if plain_domain(each.domain) == ""]
    return versions[-1] if versions else default


def plain_domain(domain: str) -> str:
    """Return a domain by the name that a normalised model has for it."""
    return "" if domain == _OTHER_NAME else domain


def _is_named_otherwise(model: onnx.ModelProto) -> bool:
    return any(node.domain == _OTHER_NAME for node in _all_nodes(model))


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for nodes in (model.graph.node, *(each.node for each in model.functions)):
        yield from nodes_within(nodes)


def _imports_twice(model: onnx.ModelProto) -> bool:
    domains = [plain_domain(each.domain) for each in model.opset_import]
    return len(set(domains)) < len(domains)


def _import_once(holder: onnx.ModelProto | onnx.FunctionProto) -> None:
    last = {plain_domain(each.domain): each.version for each in holder.opset_import}
    del holder.opset_import[:]
    holder.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in last.items())
