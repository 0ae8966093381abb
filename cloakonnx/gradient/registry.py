"""The registry of rules: which op has a gradient here, in which versions, and which ops end the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cloakonnx.graph.index.traits import Kind

if TYPE_CHECKING:
    from cloakonnx.gradient._site import GradientSite
    from cloakonnx.graph.build import Tensor

Grads: TypeAlias = "Iterator[tuple[int, Tensor]]"
"""Pairs of input index and that input's gradient."""

Rule: TypeAlias = "Callable[[GradientSite], Grads]"
UnaryRule: TypeAlias = "Callable[[GradientSite], Tensor]"


@dataclass(frozen=True)
class Entry:
    """A registered op.

    Attributes:
        op: Op type.
        domain: Operator set; empty for the default one.
        since: First opset whose version of the op can be read (older models are converted upwards).
        until: Latest version of the op that the rule was written for.
        kind: Whether the op has a rule, a zero gradient, or ends the flow.
        rule: The function, for ops that have one; of an op of zero gradient what a straight-through gradient takes
            instead.
        family: Module that the op is registered in.
        note: Limits, in a few words.
        integers: Positions of integer inputs by which a straight-through gradient goes on.
    """

    op: str
    domain: str
    since: int
    until: int
    kind: Kind
    rule: Rule | None
    family: str
    note: str
    integers: tuple[int, ...] = ()


_ENTRIES: dict[tuple[str, str], Entry] = {}


def add(entry: Entry) -> None:
    """Add an entry; raises ValueError where the op has one."""
    key = (entry.domain, entry.op)
    if key in _ENTRIES:
        raise ValueError(f"{entry.op} is registered twice")
    _ENTRIES[key] = entry


def rule(op: str, *, since: int = 1, until: int, domain: str = "", note: str = "") -> Callable[[Rule], Rule]:
    """Register a rule that yields (input index, gradient) for each wanted input of ``op``, versions since..until."""

    def register(function: Rule) -> Rule:
        family = function.__module__.rpartition(".")[2]
        add(Entry(op, domain, since, until, Kind.RULE, function, family, note))
        return function

    return register


def unary(op: str, *, since: int = 1, until: int, domain: str = "", note: str = "") -> Callable[[UnaryRule], UnaryRule]:
    """Register a rule that returns the gradient of the first input, the only one that may be differentiated."""

    def register(function: UnaryRule) -> UnaryRule:
        def wrapped(s: GradientSite) -> Grads:
            s.only(0)
            yield 0, function(s)

        wrapped.__module__ = function.__module__
        rule(op, since=since, until=until, domain=domain, note=note)(wrapped)
        return function

    return register


def straight_through(op: str, *, since: int = 1, until: int, note: str = "") -> Callable[[UnaryRule], UnaryRule]:
    """Register an op of zero gradient, with what stands in for the gradient of its first input where that is asked for.

    Bengio et al. 2013 (arXiv 1308.3432), section 4; in attacks, BPDA: Athalye et al. 2018 (arXiv 1802.00420).
    """

    def register(function: UnaryRule) -> UnaryRule:
        def wrapped(s: GradientSite) -> Grads:
            s.only(0)
            yield 0, function(s)

        family = function.__module__.rpartition(".")[2]
        add(Entry(op, "", since, until, Kind.ZERO, wrapped, family, note))
        return function

    return register


def ends(op: str, kind: Kind, *, until: int, family: str) -> None:
    """Register an op through which no gradient flows, up to the latest version known."""
    add(Entry(op, "", 1, until, kind, None, family, ""))


def find(domain: str, op: str) -> Entry | None:
    """Return the entry of an op, or None."""
    return _ENTRIES.get(("" if domain == "ai.onnx" else domain, op))


def entries() -> list[Entry]:
    """Return every entry, sorted by domain and op."""
    return [_ENTRIES[key] for key in sorted(_ENTRIES)]
