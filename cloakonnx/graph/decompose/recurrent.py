"""LSTM, GRU and RNN as a Scan over time steps, one Scan for each direction.

The products of the inputs with their weights are made for all steps at once, before the Scan; a step adds those of the
state. Equations and names are those of the ONNX operator list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx
from onnx import TensorProto

from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.decompose.registry import MICROSOFT, Node, Outputs, decomposition
from cloakonnx.graph.index.index import Index

Activation: TypeAlias = "Callable[[Tensor], Tensor]"
Step: TypeAlias = "Callable[[Tensor, list[Tensor]], list[Tensor]]"
"""From the products of a step's input and the states before to the states after, the hidden one first."""

_ALPHA = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
_BETA = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}
_PLAIN = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softsign": "Softsign", "softplus": "Softplus"}


@dataclass(frozen=True)
class _Direction:
    """What one direction computes with.

    Attributes:
        weights: (I, G H), the gates side by side.
        recurrence: (H, G H).
        bias: (2 G H,) of inputs and of states, or None.
        peepholes: (3 H,), or None.
        activations: Its functions f, g, h.
    """

    weights: Tensor
    recurrence: Tensor
    bias: Tensor | None
    peepholes: Tensor | None
    activations: tuple[Activation, ...]


@decomposition("LSTM", until=22)
def lstm(s: Node) -> Outputs:
    """The gates i, o, f, c, with peepholes and coupled gates where given."""
    return _recurrent(s, gates=4, states=2, defaults=("Sigmoid", "Tanh", "Tanh"), step=_lstm_step)


@decomposition("GRU", until=22)
def gru(s: Node) -> Outputs:
    """The gates z, r, h."""
    return _recurrent(s, gates=3, states=1, defaults=("Sigmoid", "Tanh"), step=_gru_step)


@decomposition("RNN", until=22)
def rnn(s: Node) -> Outputs:
    """One function of the sum."""
    return _recurrent(s, gates=1, states=1, defaults=("Tanh",), step=_rnn_step)


@decomposition("DynamicQuantizeLSTM", domain=MICROSOFT, rounds=True)
def dynamic_quantize_lstm(s: Node) -> Outputs:
    """An LSTM of the weights as they are dequantised; they lie transposed."""

    def dequantised(weights: int, scale: int, zero: int) -> Tensor:
        by = s.input(scale)
        of_tensor = len(s.shape(scale)) < 2
        scales, zeros = (each.reshape(-1, 1, 1) if of_tensor else each.unsqueeze(1) for each in (by, s.input(zero)))
        return (s.input(weights).cast(by) - zeros.cast(by)) * scales

    weights = dequantised(1, 8, 9), dequantised(2, 10, 11)
    return _recurrent(s, gates=4, states=2, defaults=("Sigmoid", "Tanh", "Tanh"), step=_lstm_step, weights=weights)


def _recurrent(
    s: Node,
    *,
    gates: int,
    states: int,
    defaults: Sequence[str],
    step: Callable[[Node, _Direction, Builder], Step],
    weights: tuple[Tensor, Tensor] | None = None,
) -> list[Tensor | None]:
    names = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[s.attr("direction", "forward")]
    batch_first = bool(s.attr("layout", 0))
    x = _wide(s.x)
    x = x.transpose([1, 0, 2]) if batch_first else x
    found = []
    activations = list(_activations(s, list(defaults) * len(names)))
    for d, is_reversed in enumerate(names):
        chosen = tuple(activations[d * len(defaults) : (d + 1) * len(defaults)])
        part = _part(s, d, chosen, weights)
        starts = [_start(s, x, position, d, batch_first) for position in range(5, 5 + states)]
        found.append(_scanned(s, x, part, starts, step, is_reversed=is_reversed))
    ys, *finals = ([each[place] for each in found] for place in range(1 + states))
    y = _joined(ys, 1).transpose([2, 0, 1, 3]) if batch_first else _joined(ys, 1)
    made: list[Tensor | None] = [y, *(_joined(each, 1 if batch_first else 0) for each in finals)]
    return made if x.elem_type == s.x.elem_type else [each and each.cast(s.x) for each in made]


def _wide(tensor: Tensor) -> Tensor:
    """Return a float16 tensor as float32: ONNX Runtime for CPUs has no kernels for the bodies of float16 Scans."""
    return tensor.cast(TensorProto.FLOAT) if tensor.dtype.itemsize < 4 else tensor


def _joined(tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Stack the directions along a new axis."""
    first, *rest = [each.unsqueeze(axis) for each in tensors]
    return first.op("Concat", *rest, axis=axis) if rest else first


def _of_direction(tensor: Tensor | None, direction: int) -> Tensor | None:
    return None if tensor is None else _wide(tensor).gather(tensor.builder.scalar(direction), 0)


def _part(
    s: Node, direction: int, activations: tuple[Activation, ...], given: tuple[Tensor, Tensor] | None
) -> _Direction:
    """Return the weights of a direction, transposed where they come from the op itself."""
    pair = given or (s.input(1), s.input(2))
    weights, recurrence = (_wide(each).gather(s.build.scalar(direction), 0) for each in pair)
    if given is None:
        weights, recurrence = weights.transpose([1, 0]), recurrence.transpose([1, 0])
    bias = _of_direction(s.optional(3), direction)
    peepholes = _of_direction(s.optional(7), direction)
    return _Direction(weights, recurrence, bias, peepholes, activations)


def _start(s: Node, x: Tensor, position: int, direction: int, batch_first: bool) -> Tensor:
    """Return the state before the first step, (N, H)."""
    given = s.optional(position)
    if given is not None:
        return _wide(given).gather(s.build.scalar(direction), 1 if batch_first else 0)
    shape = x.dim(1).op("Concat", s.build.ints(s.attr("hidden_size")), axis=0)
    return s.build.zeros(shape, x)


def _scanned(
    s: Node,
    x: Tensor,
    part: _Direction,
    starts: Sequence[Tensor],
    step: Callable[[Node, _Direction, Builder], Step],
    *,
    is_reversed: bool,
) -> list[Tensor]:
    """Return the hidden states of all steps (T, N, H), and the states after the last."""
    lengths = None if s.optional(4) is None else s.input(4).cast(TensorProto.INT64)
    turns = is_reversed and lengths is not None  # each sequence is turned within its own length
    if turns:
        x = x.op("ReverseSequence", lengths, batch_axis=1, time_axis=0)
    given = [x.op("MatMul", part.weights)]
    if lengths is not None:
        steps = s.build.scalar(0).op("Range", x.op("Shape", start=0, end=1).squeeze(0), s.build.scalar(1))
        inside = steps.unsqueeze(1).op("Less", lengths.unsqueeze(0))
        given.append(inside.unsqueeze(2))
    body = _body(s, part, starts, given, step)
    count, way = len(given), int(is_reversed and not turns)
    *finals, y = s.build.ops(
        "Scan",
        *starts,
        *given,
        elem_types=[x.elem_type] * (len(starts) + 1),
        body=body,
        num_scan_inputs=count,
        scan_input_directions=[way] * count,
        scan_output_directions=[way],
    )
    if turns:
        y = y.op("ReverseSequence", lengths, batch_axis=1, time_axis=0)
    return [y, *finals]


def _body(
    s: Node,
    part: _Direction,
    starts: Sequence[Tensor],
    given: Sequence[Tensor],
    step: Callable[[Node, _Direction, Builder], Step],
) -> onnx.GraphProto:
    """Return the graph of a step; it reads the weights from the graph around it."""
    graph = onnx.GraphProto(name="step")
    build = Builder(graph, Index(graph), opset=s.build.opset, prefix=f"{s.build.own('step')}/")
    before = [build.input(build.own("state"), each.elem_type, None) for each in starts]
    product, *inside = [build.input(build.own("given"), each.elem_type, None) for each in given]
    after = step(s, part, build)(product, before)
    hidden = after[0]
    if inside:  # behind its end a sequence keeps its state and gives zeros
        after = [inside[0].where(new, old) for new, old in zip(after, before, strict=True)]
        hidden = inside[0].where(hidden, 0)
    outputs = [*after, hidden.op("Identity", name=build.own("hidden"))]
    graph.output.extend(onnx.helper.make_tensor_value_info(each.name, each.elem_type, None) for each in outputs)
    return graph


def _outside(build: Builder, tensor: Tensor | None) -> Tensor | None:
    """Return a tensor of the graph around a step."""
    return None if tensor is None else Tensor(build, tensor.name, tensor.elem_type)


def _gates(s: Node, part: _Direction, count: int) -> Tensor | None:
    """Return the sum of both biases, (count H,)."""
    if part.bias is None:
        return None
    of_inputs, of_states = part.bias.split([s.attr("hidden_size") * count] * 2)
    return of_inputs + of_states


def _clipped(s: Node) -> Activation:
    limit = s.attr("clip")
    return (lambda x: x) if limit is None else (lambda x: x.op("Clip", -limit, limit))


def _lstm_step(s: Node, part: _Direction, build: Builder) -> Step:
    size = s.attr("hidden_size")
    f, g, h = part.activations
    bias, clip = _outside(build, _gates(s, part, 4)), _clipped(s)
    recurrence = _outside(build, part.recurrence)
    peeps = [] if part.peepholes is None else part.peepholes.split([size] * 3)
    i_peep, o_peep, f_peep = [_outside(build, each) for each in peeps] or [None] * 3

    def step(product: Tensor, before: list[Tensor]) -> list[Tensor]:
        hidden, cell = before
        gates = product + hidden.op("MatMul", recurrence)
        if bias is not None:
            gates = gates + bias
        i, o, forget, c = gates.split([size] * 4, -1)
        entering = f(clip(i if i_peep is None else i + i_peep * cell))
        if s.attr("input_forget", 0):
            kept = 1 - entering
        else:
            kept = f(clip(forget if f_peep is None else forget + f_peep * cell))
        new = kept * cell + entering * g(clip(c))
        leaving = f(clip(o if o_peep is None else o + o_peep * new))
        return [leaving * h(new), new]

    return step


def _gru_step(s: Node, part: _Direction, build: Builder) -> Step:
    size = s.attr("hidden_size")
    f, g = part.activations
    clip = _clipped(s)
    parts = [] if part.bias is None else part.bias.split([size] * 6)
    wz, wr, wh, rz, rr, rh = [_outside(build, each) for each in parts] or [None] * 6
    to_gates, to_new = (_outside(build, each) for each in part.recurrence.split([2 * size, size], 1))

    def added(tensor: Tensor, *biases: Tensor | None) -> Tensor:
        for each in biases:
            tensor = tensor if each is None else tensor + each
        return tensor

    def step(product: Tensor, before: list[Tensor]) -> list[Tensor]:
        (hidden,) = before
        z_in, r_in, h_in = product.split([size] * 3, -1)
        z_state, r_state = hidden.op("MatMul", to_gates).split([size] * 2, -1)
        z = f(clip(added(z_in + z_state, wz, rz)))
        r = f(clip(added(r_in + r_state, wr, rr)))
        if s.attr("linear_before_reset", 0):
            state = r * added(hidden.op("MatMul", to_new), rh)
            new = g(clip(added(h_in + state, wh)))
        else:
            new = g(clip(added(h_in + (r * hidden).op("MatMul", to_new), wh, rh)))
        return [(1 - z) * new + z * hidden]

    return step


def _rnn_step(s: Node, part: _Direction, build: Builder) -> Step:
    (f,) = part.activations
    bias, recurrence, clip = _outside(build, _gates(s, part, 1)), _outside(build, part.recurrence), _clipped(s)

    def step(product: Tensor, before: list[Tensor]) -> list[Tensor]:
        total = product + before[0].op("MatMul", recurrence)
        return [f(clip(total if bias is None else total + bias))]

    return step


def _activations(s: Node, defaults: Sequence[str]) -> Iterator[Activation]:
    """Yield the functions of all directions; each takes its alpha and beta, where it has any, from the next."""
    names = [each.decode() if isinstance(each, bytes) else each for each in s.attr("activations") or defaults]
    alphas, betas = iter(s.attr("activation_alpha") or ()), iter(s.attr("activation_beta") or ())
    for each in names:
        name = each.lower()
        alpha = next(alphas, _ALPHA[name]) if name in _ALPHA else None
        beta = next(betas, _BETA[name]) if name in _BETA else None
        yield _activation(s, name, alpha, beta)


def _activation(s: Node, name: str, alpha: float | None, beta: float | None) -> Activation:
    if name in _PLAIN:
        return lambda x: x.op(_PLAIN[name])
    if name == "affine":
        return lambda x: x * (alpha or 0.0) + (beta or 0.0)
    if name == "scaledtanh":
        return lambda x: (x * (beta or 0.0)).op("Tanh") * (alpha or 0.0)
    if name == "hardsigmoid":
        return lambda x: x.op("HardSigmoid", alpha=alpha, beta=beta)
    ops = {"leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu", "elu": "Elu"}
    if name not in ops:
        raise s.error(f"its activation {name} is unknown")
    return lambda x: x.op(ops[name], alpha=alpha)
