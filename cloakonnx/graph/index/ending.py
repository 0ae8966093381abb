"""What a classifier's output holds: how many classes, and whether a single score is a probability or a logit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import ModelError
from cloakonnx.graph.index.index import Dim
from cloakonnx.graph.index.traits import Trait, has

_GUARD = 1e-3
"""Largest distance from 0 and 1 of the bounds of a Clip that only protects a logarithm."""

MIDDLE = 0.5
"""Threshold of the probability of class 1."""

_PROBABLE = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})
"""Activations that give probabilities."""


@dataclass(frozen=True)
class Ending:
    """How a classifier's output is made.

    Attributes:
        source: Tensor before the final activation; the output itself where there is none.
        activation: ``Softmax``, ``LogSoftmax``, ``Sigmoid`` (spelled out, too), ``HardSigmoid`` or None.
        axis: Of Softmax and LogSoftmax, as the node has it.
        shift: Of HardSigmoid: its value is above one half where ``source + shift`` is above 0.
        is_quantised: Whether scores are quantised after the activation, so that some become equal.
        untold: Op type behind which a single score may have any meaning; None where it is a logit or a probability.
        is_probability: Whether the output holds probabilities although no activation can be left out: behind an If of
            which every branch ends in one.
        is_layer: Whether the scores are what a layer of weights gives, scaled and moved by constants at most.
    """

    source: str
    activation: str | None = None
    axis: int = -1
    shift: float = 0.0
    is_quantised: bool = False
    untold: str | None = None
    is_probability: bool = False
    is_layer: bool = False

    def threshold(self, output: str) -> float:
        """Return what a single score must exceed to stand for class 1: one half of a probability, 0 as a logit.

        Raises:
            ModelError: a softmax over one class, or an op that tells neither.
        """
        if self.activation in {"Softmax", "LogSoftmax"}:
            raise ModelError(
                f"output {output!r} is a {self.activation} over a single class, which gives every input the same "
                "score; export the model with a Sigmoid instead, or with its logit"
            )
        if self.untold is not None:
            raise ModelError(
                f"output {output!r} gives one score a sample and ends in {self.untold}, which shows neither a "
                "probability nor a logit; export the model with a Sigmoid at its end, with its logit, or with a score "
                "for each class; or let its values decide with {task} binary",
                parameter="task",
            )
        return 0.0 if self.activation is None and not self.is_probability else MIDDLE


def ending(
    output: str,
    *,
    producer: Callable[[str], onnx.NodeProto | None],
    value: Callable[[str], NDArray[Any] | None],
) -> Ending:
    """Look from an output back to the activation that made it.

    Args:
        output: The class scores.
        producer: The node that makes a tensor; None for inputs and constants.
        value: A constant's value; None for what is not constant or not known.
    """
    name, is_quantised = output, False
    node = _standard(producer(name))
    while node is not None and (_passes(node) or is_guard(node, value)):
        is_quantised |= has(node.op_type, Trait.QUANTISES)
        name = node.input[0]
        node = _standard(producer(name))
    if node is None:
        return Ending(output, untold=_custom(producer(name)))
    if node.op_type in {"Softmax", "LogSoftmax"}:
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        return Ending(node.input[0], node.op_type, axis=axis, is_quantised=is_quantised)
    logit = _sigmoid(name, node, producer, value)
    if logit is not None:
        return replace(logit, is_quantised=is_quantised)
    if _gives_probabilities(name, node, producer, value):
        return Ending(output, is_quantised=is_quantised, is_probability=True)
    return Ending(output, untold=_untold(output, producer, value), is_layer=_is_layer(output, producer, value))


def _gives_probabilities(
    name: str,
    node: onnx.NodeProto,
    producer: Callable[[str], onnx.NodeProto | None],
    value: Callable[[str], NDArray[Any] | None],
) -> bool:
    """Whether a node is an If, and every branch of it ends in a Softmax or Sigmoid, inside it or before."""
    branches = [graph for attribute in node.attribute if (graph := attribute.g).output]
    if node.op_type != "If" or not branches:
        return False
    position = list(node.output).index(name)
    for graph in branches:
        inner = {each: made for made in graph.node for each in made.output}

        def made_by(tensor: str, inner: dict[str, onnx.NodeProto] = inner) -> onnx.NodeProto | None:
            return inner[tensor] if tensor in inner else producer(tensor)

        found = ending(graph.output[position].name, producer=made_by, value=value)
        if found.activation not in _PROBABLE and not found.is_probability:
            return False
    return True


def scores_of(shape: Sequence[Dim] | None, output: str) -> int | None:
    """Return how many scores a sample has in an output of this shape, batch first; None where that is not known.

    Raises:
        ModelError: they lie along more than one axis, as a map's do.
    """
    if shape is None:
        return None
    rest = [d for d in shape[1:] if d != 1]
    if len(rest) > 1 and sum(isinstance(d, int) for d in rest) > 1:
        text = ", ".join("?" if d is None else str(d) for d in shape)
        raise ModelError(f"output {output!r} has shape ({text}); a classifier gives one row of class scores a sample")
    known = [d for d in rest if isinstance(d, int)]
    return prod(known) if len(known) == len(rest) else None


def _standard(node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    return node if node is not None and node.domain in {"", "ai.onnx"} else None


def _passes(node: onnx.NodeProto) -> bool:
    if node.op_type == "Transpose":
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
        return perm[:1] == [0]
    return has(node.op_type, Trait.MOVES | Trait.QUANTISES)


def _custom(node: onnx.NodeProto | None) -> str | None:
    """Return an op of another domain that may make probabilities, such as ONNX Runtime's QLinearSigmoid."""
    return node.op_type if node is not None and ("Sigmoid" in node.op_type or "Softmax" in node.op_type) else None


def is_guard(node: onnx.NodeProto, value: Callable[[str], NDArray[Any] | None]) -> bool:
    """Whether a node keeps probabilities from 0 and 1, and else changes nothing."""
    low, high = limits_of(node, value)
    return node.op_type == "Clip" and 0 <= low <= _GUARD and 1 - _GUARD <= high <= 1


def limits_of(node: onnx.NodeProto, value: Callable[[str], NDArray[Any] | None]) -> tuple[float, float]:
    """Return a Clip's bounds, which are attributes up to opset 10 and inputs from 11 on; NaN where not known."""
    limits = {"min": -np.inf, "max": np.inf} | {a.name: a.f for a in node.attribute}
    for name, tensor in zip(("min", "max"), node.input[1:], strict=False):
        if tensor:
            limits[name] = _number(value(tensor), np.nan)
    return float(limits["min"]), float(limits["max"])


def sigmoid_input(
    name: str,
    node: onnx.NodeProto,
    producer: Callable[[str], onnx.NodeProto | None],
    value: Callable[[str], NDArray[Any] | None],
) -> str | None:
    """Return the tensor whose sigmoid, the op or spelled out, a node gives; None where it gives none."""
    found = _sigmoid(name, node, producer, value)
    return found.source if found is not None and found.activation == "Sigmoid" else None


def _sigmoid(
    name: str,
    node: onnx.NodeProto,
    producer: Callable[[str], onnx.NodeProto | None],
    value: Callable[[str], NDArray[Any] | None],
) -> Ending | None:
    """Return what a sigmoid is made of; None where the node is none."""
    if node.op_type == "Sigmoid":
        return Ending(node.input[0], "Sigmoid")
    if node.op_type == "HardSigmoid":
        given = {a.name: a.f for a in node.attribute}
        slope, offset = given.get("alpha", 0.2), given.get("beta", 0.5)
        return Ending(node.input[0], "HardSigmoid", shift=(offset - MIDDLE) / slope) if slope > 0 else None
    # 1 / (1 + exp(-z))
    below = node.input[0] if node.op_type == "Reciprocal" else None
    if node.op_type == "Div" and _number(value(node.input[0])) == 1:
        below = node.input[1]
    total = None if below is None else _standard(producer(below))
    if total is None or total.op_type != "Add":
        return None
    for one, power in (tuple(total.input), tuple(reversed(total.input))):
        exponential = _standard(producer(power))
        if _number(value(one)) == 1 and exponential is not None and exponential.op_type == "Exp":
            logit = _negated(_standard(producer(exponential.input[0])), value)
            return None if logit is None else Ending(logit, "Sigmoid")
    return None


def _negated(node: onnx.NodeProto | None, value: Callable[[str], NDArray[Any] | None]) -> str | None:
    """Return the tensor that a node changes the sign of."""
    if node is None or node.op_type not in {"Neg", "Mul"}:
        return None
    if node.op_type == "Neg":
        return node.input[0]
    pairs = (tuple(node.input), tuple(reversed(node.input)))
    return next((name for name, factor in pairs if _number(value(factor)) == -1), None)


def _untold(
    output: str,
    producer: Callable[[str], onnx.NodeProto | None],
    value: Callable[[str], NDArray[Any] | None],
) -> str | None:
    """Return the op, with constant factors and sums behind it at most, that leaves the meaning of a score open."""
    name, affine = output, ""
    last = _standard(producer(name))
    while last is not None:
        if has(last.op_type, Trait.ONE_SIDED):
            return last.op_type
        if last.op_type == "Clip":
            return None if limits_of(last, value)[0] < 0 < limits_of(last, value)[1] else "Clip"
        if (of_one := _sigmoid(name, last, producer, value) is not None) or _divides(last, value):
            return f"{affine * of_one}{last.op_type}"
        if last.op_type == "Log":
            return "Log" if _is_probable(ending(last.input[0], producer=producer, value=value)) else None
        ahead = [each for each in last.input if each and value(each) is None]
        if not (_passes(last) or has(last.op_type, Trait.AFFINE)) or len(ahead) != 1:
            return None
        if has(last.op_type, Trait.AFFINE):
            affine = f"{last.op_type} of "
        name = ahead[0]
        last = _standard(producer(name))
    return None


def _divides(node: onnx.NodeProto, value: Callable[[str], NDArray[Any] | None]) -> bool:
    return node.op_type == "Div" and value(node.input[1]) is None


def _is_probable(made: Ending) -> bool:
    """Whether an ending is a probability, scaled or moved by constants at most: p + 1e-7 in a logarithm."""
    return made.activation in _PROBABLE or (made.untold is not None and " of " in made.untold)


def _is_layer(
    output: str,
    producer: Callable[[str], onnx.NodeProto | None],
    value: Callable[[str], NDArray[Any] | None],
) -> bool:
    last = _standard(producer(output))
    while last is not None and not has(last.op_type, Trait.WEIGHTED):
        ahead = [each for each in last.input if each and value(each) is None]
        if not (_passes(last) or has(last.op_type, Trait.AFFINE)) or len(ahead) != 1:
            return False
        last = _standard(producer(ahead[0]))
    return last is not None


def _number(found: NDArray[Any] | None, missing: float = 0.0) -> float:
    """Return a constant of one element as a number."""
    return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else missing
