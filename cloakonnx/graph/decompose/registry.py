"""The registry of decompositions: which op is which formula over standard ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from cloakonnx.errors import DifferentiationError
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import Dim, Index
from cloakonnx.graph.index.node import NodeView, describe

MICROSOFT = "com.microsoft"
LEARNING = "ai.onnx.ml"

Outputs: TypeAlias = "Tensor | Sequence[Tensor | None]"
"""The first output, or one for each; None for outputs without a gradient."""

Formula: TypeAlias = "Callable[[Node], Outputs]"


@dataclass(frozen=True)
class Node(NodeView):
    """A node that is written out.

    Attributes:
        build: Where to emit.
    """

    build: Builder

    def input(self, position: int) -> Tensor:
        """Return an input."""
        return self.build.tensor(self.node.input[position])

    def optional(self, position: int) -> Tensor | None:
        """Return an input where it is given."""
        return self.input(position) if self.has(position) else None

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.input(0)

    def shape(self, position: int) -> tuple[Dim, ...]:
        """Shape of an input of known rank."""
        found = self.input(position).dims
        if found is None:
            raise self.error(f"the rank of its input {position} is unknown; give the model an input of fixed shape")
        return found

    def error(self, reason: str) -> DifferentiationError:
        """Build the error that names the node."""
        return DifferentiationError(
            f"cannot differentiate {describe(self.node)}: {reason}; black-box attacks need no gradient: "
            "{attack} square",
            parameter="attack",
        )


@dataclass(frozen=True)
class Decomposition:
    """An op and its formula.

    Attributes:
        op: Op type.
        domain: Operator set; empty for the default one.
        formula: Emits the standard ops and returns the outputs.
        until: Latest version of the op that the formula was written for; 1 for other domains.
        rounds: Whether the op rounds or computes in integers, so that its own gradient is 0.
        integers: Positions of quantised inputs, by which a straight-through gradient goes on.
        family: Module that the op is in.
        note: Limits, in a few words.
    """

    op: str
    domain: str
    formula: Formula
    until: int
    rounds: bool
    integers: tuple[int, ...]
    family: str
    note: str


_FOUND: dict[tuple[str, str], Decomposition] = {}


def decomposition(
    op: str,
    *,
    domain: str = "",
    until: int = 1,
    rounds: bool = False,
    integers: Sequence[int] = (),
    note: str = "",
) -> Callable[[Formula], Formula]:
    """Register the formula of an op."""

    def register(formula: Formula) -> Formula:
        family = formula.__module__.rpartition(".")[2]
        _FOUND[domain, op] = Decomposition(op, domain, formula, until, rounds, tuple(integers), family, note)
        return formula

    return register


def decompositions() -> list[Decomposition]:
    """Return every decomposition, sorted by domain and op."""
    return [_FOUND[key] for key in sorted(_FOUND)]


def written_out(
    found: Decomposition, node: onnx.NodeProto, index: Index, *, opset: int, prefix: str
) -> tuple[onnx.GraphProto, list[str | None]]:
    """Return a node as a graph of standard ops that reads the node's inputs by name, and the names of its outputs.

    Args:
        found: The op's decomposition.
        node: The node.
        index: What is known of its tensors.
        opset: Version of the default operator set.
        prefix: Begins the names of new tensors.

    Raises:
        DifferentiationError: the formula does not cover the node.
    """
    graph = onnx.GraphProto(name=node.op_type)
    build = Builder(graph, Index(graph), opset=opset, prefix=prefix)
    for name in node.input:
        if name:
            build.index.learn(name, index.elem_type(name), index.shape(name))
    made = found.formula(Node(node, index, build))
    outputs = [made] if isinstance(made, Tensor) else list(made)
    named = [None if each is None else each.op("Identity", name=build.fresh(f"{prefix}output")) for each in outputs]
    graph.output.extend(onnx.ValueInfoProto(name=each.name) for each in named if each is not None)
    return graph, [None if each is None else each.name for each in named]
