"""Ops that write values to places of another tensor."""

from __future__ import annotations

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule

_REDUCTIONS = {"none", "add"}


@rule("ScatterND", since=11, until=18, note="reduction none or add")
def scatter_nd(s: GradientSite) -> Grads:
    """Dy with zeros where something was written; the updates get what stands in their places."""
    return _scattered(s, "GatherND", {})


@rule("ScatterElements", since=11, until=18, note="reduction none or add")
def scatter_elements(s: GradientSite) -> Grads:
    """Dy with zeros where something was written; the updates get what stands in their places."""
    return _scattered(s, "GatherElements", {"axis": s.attr("axis", 0)})


def _scattered(s: GradientSite, reads: str, where: dict[str, int]) -> Grads:
    s.only(0, 2)
    reduction = s.attr("reduction", "none")
    if reduction not in _REDUCTIONS:
        raise s.error(f"reduction {reduction} has no rule")
    if s.wants(0):
        yield 0, s.dy if reduction == "add" else s.dy.op(s.node.op_type, s.input(1), s.input(2).zeros(), **where)
    if s.wants(2):
        yield 2, s.dy.op(reads, s.input(1), **where)
