"""The way that gradients take through a graph, and whether each op on it has a rule; no rule is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import onnx

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient import registry
from cloakonnx.graph.index.index import Index, node_inputs
from cloakonnx.graph.index.node import describe
from cloakonnx.graph.index.traits import Kind, Trait, has


class Path(NamedTuple):
    """The part of a graph through which gradients flow.

    Attributes:
        nodes: Nodes on the way from a variable to a seed, in order.
        active: Tensors whose gradient is needed.
        blocked: Nodes of zero gradient that the data passes on its way to a seed, described.
        bridged: Those of zero gradient that are passed straight through instead, described.
    """

    nodes: tuple[onnx.NodeProto, ...]
    active: frozenset[str]
    blocked: tuple[str, ...]
    bridged: tuple[str, ...]

    def differentiates(self, node: onnx.NodeProto, name: str, index: Index) -> bool:
        """Whether a gradient is needed of a tensor by one of the nodes that read it."""
        return name in self.active and _carries(node, name, index)


def find_path(
    nodes: Sequence[onnx.NodeProto],
    index: Index,
    seeds: Iterable[str],
    variables: Iterable[str],
    *,
    straight_through: bool = False,
) -> Path:
    """Find the nodes whose rules are needed; straight-through, those of rounding and quantisation are among them."""
    needed = set(seeds)
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node_inputs(node))
    flowing, touched = set(variables), set(variables)
    kept: list[onnx.NodeProto] = []
    blocked: list[str] = []
    bridged: list[str] = []
    for node in nodes:
        read = list(node_inputs(node))
        if not needed.intersection(node.output) or touched.isdisjoint(read):
            continue
        touched.update(name for name in node.output if name and (index.is_float(name) or straight_through))
        if flowing.isdisjoint(read):
            continue
        entry = registry.find(node.domain, node.op_type)
        if not any(name in flowing and _carries(node, name, index) for name in read):  # integers only
            if entry is None or entry.kind is not Kind.STOP:
                blocked.append(describe(node))
            continue
        rounds = node.op_type == "Cast" and index.is_float(node.input[0]) and not index.is_float(node.output[0])
        is_zero = rounds or (entry is not None and entry.kind is Kind.ZERO)
        is_bridged = is_zero and straight_through and entry is not None and entry.rule is not None
        if is_zero:
            (bridged if is_bridged else blocked).append(describe(node))
        if (is_zero and not is_bridged) or (entry is not None and entry.kind is Kind.STOP):
            continue
        kept.append(node)
        has_integers = is_bridged or (straight_through and has(node.op_type, Trait.CARRIES_INTEGERS))
        carrying = [name for name in node.output if name and (index.is_float(name) or has_integers)]
        flowing.update(carrying)
        if not carrying:  # a label
            blocked.append(describe(node))
    reached = set(seeds)  # of the flowing tensors, those from which a seed is reached without a blocked node
    path = []
    for node in reversed(kept):
        if reached.intersection(node.output):
            path.append(node)
            reached.update(name for name in node_inputs(node) if name in flowing and _carries(node, name, index))
    path.reverse()
    return Path(tuple(path), frozenset(reached & flowing), tuple(blocked), tuple(bridged))


def _carries(node: onnx.NodeProto, name: str, index: Index) -> bool:
    """Whether a gradient may come back from a node by one of its inputs; integers mostly are indices and shapes."""
    if index.is_float(name):
        return True
    if has(node.op_type, Trait.CARRIES_INTEGERS) and not node.domain:
        return bool(name == node.input[0]) or node.op_type == "Concat"
    entry = registry.find(node.domain, node.op_type)
    return entry is not None and any(name == node.input[i] for i in entry.integers if i < len(node.input))


def check_rules(path: Path, opset: int) -> None:
    """Raise for the first node on the path that has no rule, a newer version than its rule knows, or that trains.

    Raises:
        DifferentiationError: Names the node and its op.
    """
    for node in path.nodes:
        entry = registry.find(node.domain, node.op_type)
        if entry is None:
            raise _no_rule(node, "this op has no rule")
        if _version(node, opset) > entry.until:
            raise _no_rule(node, f"its version is newer than {entry.until}, the last that the rule knows")
        if node.op_type == "BatchNormalization" and any(
            each.name == "training_mode" and each.i for each in node.attribute
        ):
            raise _no_rule(node, "it is in training mode; export the model in evaluation mode")


def _no_rule(node: onnx.NodeProto, reason: str) -> DifferentiationError:
    return DifferentiationError(
        f"cannot differentiate {describe(node)}: {reason}; black-box attacks need no gradient: {{attack}} square",
        parameter="attack",
    )


def _version(node: onnx.NodeProto, opset: int) -> int:
    if node.domain not in {"", "ai.onnx"}:
        return 0
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, "").since_version)
    except (onnx.defs.SchemaError, TypeError):  # an opset beyond an int, a name that is no text
        return 0
