"""The rule of every op with a decomposition: what its standard ops' rules give. The model's own node computes it."""

from __future__ import annotations

import cloakonnx.graph.decompose  # noqa: F401  fills the registry
from cloakonnx.gradient._bodies import Part
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Entry, Grads, add
from cloakonnx.graph.decompose.registry import Decomposition, decompositions, written_out
from cloakonnx.graph.index.traits import Kind


def _rule(found: Decomposition, s: GradientSite) -> Grads:
    """Write the node out beside it, and take the gradients of that."""
    graph, names = written_out(found, s.node, s.index, opset=s.build.opset, prefix=f"{s.build.own('part')}/")
    part = Part(s, graph, straight_through=found.rounds)
    seeds = []
    for position, grad in enumerate(s.grads):
        if grad is None:
            continue
        name = names[position] if position < len(names) else None
        if name is None and found.rounds:
            continue  # a scale of the moment
        if name is None:
            raise s.error(f"its output {position} has no rule")
        seeds.append((name, part.outer(grad)))
    wanted = list(dict.fromkeys(s.reads[i] for i in s.wanted))
    grads = part.gradients(seeds, wanted)
    given = {name: part.output(grad) for name, grad in grads.items()}
    part.kept(list(given.values()))
    part.spliced()
    for i in s.wanted:
        if (name := s.reads[i]) in given:  # of an input that the node reads twice it is the whole
            made = given.pop(name)
            s.index.learn(made.name, made.elem_type, s.index.shape(name))
            yield i, s.build.tensor(made.name)


def _register(found: Decomposition) -> None:
    def rule(s: GradientSite) -> Grads:
        return _rule(found, s)

    kind = Kind.ZERO if found.rounds else Kind.RULE
    add(Entry(found.op, found.domain, 1, found.until, kind, rule, found.family, found.note, found.integers))


for _each in decompositions():
    _register(_each)
