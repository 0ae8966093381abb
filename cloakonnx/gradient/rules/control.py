"""Control flow: If goes back through the branch that ran, Scan and Loop through their iterations in reverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto

from cloakonnx.gradient._bodies import Formal, Part, body_of
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule
from cloakonnx.graph.build import Tensor
from cloakonnx.graph.index.index import Dim


@rule("If", since=1, until=25)
def if_(s: GradientSite) -> Grads:
    """The branch that ran, again, and back through it."""
    names = [s.reads[i] for i in s.wanted]
    branches = []
    for branch in ("then_branch", "else_branch"):
        part = Part(s, body_of(s.node, branch))
        given = zip(part.outputs, s.grads, strict=True)
        grads = part.gradients([(name, part.outer(grad)) for name, grad in given if grad is not None], names)
        like = [s.build.tensor(name) for name in names]
        part.kept([part.output(grads.get(x.name), part.outer(x)) for x in like])
        branches.append(part.body())
    then, other = branches
    kinds = [s.index.elem_type(name) for name in names]
    found = s.build.ops("If", s.input(0), elem_types=kinds, then_branch=then, else_branch=other)
    yield from zip(s.wanted, found, strict=True)


@dataclass(frozen=True)
class _Slice:
    """What a body gets one slice of in each turn, or gives one of.

    Attributes:
        tensor: All slices; for an output that of its gradient.
        axis: Along which they lie.
        backwards: Whether the first turn has the last slice.
    """

    tensor: Tensor
    axis: int = 0
    backwards: bool = False


@rule("Scan", since=9, until=25)
def scan(s: GradientSite) -> Grads:
    """A Scan from the last turn to the first, over the states that each turn began with."""
    body = body_of(s.node, "body")
    count = s.attr("num_scan_inputs")
    first, kept = len(s.node.input) - count, len(body.output) - (len(s.node.input) - count)
    axes, ways = s.attr("scan_input_axes") or [0] * count, s.attr("scan_input_directions") or [0] * count
    out_axes, out_ways = s.attr("scan_output_axes") or [0] * kept, s.attr("scan_output_directions") or [0] * kept
    given = [s.input(first + i) for i in range(count)]
    slices = [_Slice(x, _positive(s, x, a), bool(way)) for x, a, way in zip(given, axes, ways, strict=True)]
    outputs: list[_Slice | None] = []
    for k, grad in enumerate(s.grads[first:]):
        axis = _positive(s, s.output(first + k), out_axes[k])
        outputs.append(None if grad is None else _Slice(grad, axis, bool(out_ways[k])))
    return _turned_back(s, body, states=range(first), slices=slices, outputs=outputs)


@rule("Loop", since=11, until=25)
def loop(s: GradientSite) -> Grads:
    """As Scan: however many turns it took, their states are kept."""
    body = body_of(s.node, "body")
    states = range(2, len(s.node.input))
    outputs = [None if grad is None else _Slice(grad) for grad in s.grads[len(states) :]]
    lead = (
        Formal(body.input[0].name, TensorProto.INT64, ()),
        Formal(body.input[1].name, TensorProto.BOOL, ()),
    )
    return _turned_back(s, body, states=states, slices=[], outputs=outputs, lead=lead)


def _positive(s: GradientSite, x: Tensor, axis: int) -> int:
    return axis if axis >= 0 else axis % len(s.shape(x, "scanned tensor"))


def _turned_back(
    s: GradientSite,
    body: onnx.GraphProto,
    *,
    states: range,
    slices: Sequence[_Slice],
    outputs: Sequence[_Slice | None],
    lead: tuple[Formal, ...] = (),
) -> Grads:
    """Emit the Scan that goes back.

    Args:
        s: The node; it is made to give the states that its turns began with.
        body: Its body.
        states: Positions of the states among the node's inputs; its scanned inputs come behind them.
        slices: The scanned inputs.
        outputs: Gradient of each scanned output.
        lead: Inputs of the body before the states: the number of the turn and the condition of a Loop.
    """
    turns = _Turns(s, body, states, slices, lead)
    part = turns.part
    floats = [j for j, position in enumerate(states) if s.index.is_float(s.reads[position])]
    given = [(k, each) for k, each in enumerate(outputs) if each is not None]
    comes_in = [turns.input(s.input(states[j]), s.input(states[j]).dims) for j in floats]
    sliced = [turns.input(each.tensor, _without(each)) for _, each in given]
    seeds = [(turns.ends[j], grad) for j, grad in zip(floats, comes_in, strict=True)]
    seeds += [(turns.ends[len(states) + k], grad) for (k, _), grad in zip(given, sliced, strict=True)]
    outside = [i for i in s.wanted if i >= len(s.node.input)]
    back = [i for i in range(len(slices)) if states.stop + i in s.wanted]
    variables = [turns.names[j] for j in floats] + [turns.names[len(states) + i] for i in back]
    found = part.gradients(seeds, [*variables, *(s.reads[i] for i in outside)])
    sums = [turns.input(s.input(i), s.input(i).dims) for i in outside]
    totals = []
    for i, so_far in zip(outside, sums, strict=True):
        more = found.get(s.reads[i])
        totals.append(part.output(so_far if more is None else so_far + more))
    parts = [part.output(found.get(name), part.build.tensor(name)) for name in variables]
    leaves = [*parts[: len(floats)], *totals, *parts[len(floats) :]]
    shapes = [x.dims for x in (*(s.input(states[j]) for j in floats), *(s.input(i) for i in outside))]
    read = part.kept(leaves, [*shapes, *(_without(slices[i]) for i in back)])
    stored = [(each.name, _Slice(_stored(s, body, each))) for each in turns.formals if each.name in read]
    again = [(n, each) for n, each in zip(turns.names[len(states) :], slices, strict=True) if n in read]
    if not (stored or again or given):  # the number of turns counts all the same
        again = [(turns.names[len(states)], slices[0])] if slices else []
        stored = [] if slices else [(lead[0].name, _Slice(_stored(s, body, lead[0])))]
    scanned = [each for _, each in (*stored, *again, *given)]
    names = [t.name for t in (*comes_in, *sums)] + [name for name, _ in (*stored, *again)] + [t.name for t in sliced]
    begins = [_beginning(s, j, s.input(states[j])) for j in floats] + [s.input(i).zeros() for i in outside]
    results = s.build.ops(
        "Scan",
        *begins,
        *(each.tensor for each in scanned),
        elem_types=[t.elem_type for t in leaves],
        body=part.body(names),
        num_scan_inputs=len(scanned),
        scan_input_axes=[each.axis for each in scanned],
        scan_input_directions=[int(not each.backwards) for each in scanned],
        **_of_outputs([slices[i] for i in back]),
    )
    positions = [states[j] for j in floats] + outside + [states.stop + i for i in back]
    for position, grad in zip(positions, results, strict=True):
        if position in s.wanted:
            yield position, grad


class _Turns:
    """The body of a Scan or Loop as a part, with the inputs of the Scan that goes back.

    Attributes:
        part: The part.
        formals: The body's inputs without the slices.
        names: Names in the body of the states, then of the slices.
        ends: Names of the states after a turn, then of the slices that it gives.
    """

    def __init__(
        self,
        s: GradientSite,
        body: onnx.GraphProto,
        states: range,
        slices: Sequence[_Slice],
        lead: tuple[Formal, ...],
    ) -> None:
        self._site = s
        self.names = [value.name for value in body.input][len(lead) :]
        starts = [s.input(position) for position in states]
        count = len(starts)
        self.formals = [*lead, *(Formal(n, x.elem_type, x.dims) for n, x in zip(self.names, starts, strict=False))]
        given = zip(self.names[count:], slices, strict=True)
        of_slices = [Formal(name, each.tensor.elem_type, _without(each)) for name, each in given]
        self.part = Part(s, body, [*self.formals, *of_slices])
        self.ends = self.part.outputs[1:] if lead else self.part.outputs

    def input(self, like: Tensor, shape: tuple[Dim, ...] | None) -> Tensor:
        """Add an input to the Scan that goes back."""
        return self.part.build.input(self._site.build.own("grad"), like.elem_type, shape)


def _of_outputs(back: Sequence[_Slice]) -> dict[str, Any]:
    if not back:
        return {}
    return {
        "scan_output_axes": [each.axis for each in back],
        "scan_output_directions": [int(not each.backwards) for each in back],
    }


def _without(each: _Slice) -> tuple[Dim, ...] | None:
    """Shape of one slice."""
    dims = each.tensor.dims
    return None if dims is None else dims[: each.axis] + dims[each.axis + 1 :]


def _stored(s: GradientSite, body: onnx.GraphProto, each: Formal) -> Tensor:
    """Have the node give what an input of its body was in each turn, (turns, ...)."""
    kept, turns = s.build.own(f"{each.name}/kept"), s.build.own(f"{each.name}/turns")
    body.node.append(onnx.helper.make_node("Identity", [each.name], [kept], name=kept))
    body.output.append(onnx.helper.make_tensor_value_info(kept, each.elem_type, None))
    s.node.output.append(turns)
    for attribute in s.node.attribute:
        if attribute.name in {"scan_output_axes", "scan_output_directions"}:
            attribute.ints.append(0)
    s.index.learn(turns, each.elem_type, None if each.shape is None else (None, *each.shape))
    return s.build.tensor(turns)


def _beginning(s: GradientSite, state: int, start: Tensor) -> Tensor:
    """Return the gradient of a state after the last turn."""
    grad = s.grads[state]
    return start.zeros() if grad is None else grad
