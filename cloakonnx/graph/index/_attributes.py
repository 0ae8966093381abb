"""Whether the attributes of nodes have the types that their ops declare: code that reads them may then rely on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import onnx
from onnx import AttributeProto

from cloakonnx.errors import ModelError
from cloakonnx.graph.index.index import subgraphs
from cloakonnx.graph.index.limits import quoted
from cloakonnx.graph.index.node import describe
from cloakonnx.graph.index.normal import plain_domain

_NEWEST = 2**31 - 1


def check_attributes(model: onnx.ModelProto) -> None:
    """Check the types of attributes; an op that onnx does not know and a type that is not given pass.

    Raises:
        ModelError: an attribute has another type than its op declares; ONNX Runtime refuses such a model, too.
    """
    _check(model.graph.node, _versions(model.opset_import))
    for function in model.functions:
        _check(function.node, _versions(function.opset_import))


def _versions(opsets: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {plain_domain(each.domain): min(each.version, _NEWEST) for each in opsets}


def _check(nodes: Iterable[onnx.NodeProto], versions: Mapping[str, int]) -> None:
    for node in nodes:
        domain = plain_domain(node.domain)
        types = _types(node.op_type, versions.get(domain, 1), domain) if node.attribute else {}
        for each in node.attribute:
            wanted = types.get(each.name, each.type)
            if each.type not in {wanted, AttributeProto.UNDEFINED}:
                raise ModelError(
                    f"attribute {quoted(each.name)} of {describe(node)} is of type {_named(each.type)}, where the op "
                    f"has {_named(wanted)}: the file is damaged; export it again"
                )
        for graph in subgraphs(node):
            _check(graph.node, versions)


def _named(kind: int) -> str:
    return str(AttributeProto.AttributeType.Name(kind)) if kind in AttributeProto.AttributeType.values() else str(kind)


@cache
def _types(op: str, version: int, domain: str) -> dict[str, int]:
    try:
        found = onnx.defs.get_schema(op, version, domain).attributes
    except (onnx.defs.SchemaError, TypeError):  # no such op, or a name that is no text
        return {}
    return {name: int(each.type) for name, each in found.items()}  # type: ignore[call-overload]  # an IntEnum
