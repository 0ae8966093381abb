"""Finds the logits of a classifier behind the Softmax or Sigmoid at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import TensorProto

from cloakonnx.errors import DifferentiationError
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.ending import Ending, ending, scores_of
from cloakonnx.graph.index.index import Dim, Index

_LEAST = 2.0**-149
"""The smallest probability in float32 above 0."""


@dataclass(frozen=True)
class Logits:
    """The logits of a classifier.

    Attributes:
        tensor: Of shape (N, classes), at least two classes, not float16.
        source: The model's own tensor that it was made from.
        classes: Number of classes.
        stripped: Op type of the final activation that was left out, or None.
        logs: How they were made: of probabilities, ``exact`` or ``floored``, or of the one number that the scores are
            made of, ``single``; None where they are the model's logits.
    """

    tensor: Tensor
    source: str
    classes: int
    stripped: str | None
    logs: Literal["exact", "floored", "single"] | None = None


@dataclass(frozen=True)
class Reading:
    """What is known of an output from other sources than the graph.

    Attributes:
        declared: Its shape as the model declares it, for where inference does not reach (behind If, Loop or Scan).
        straight_through: Whether an activation whose result is quantised is left out, too: equal scores are no longer
            equal then.
        logs: How it was made of the model's scores: ``exact``, in the log domain, or ``single``, of the one number that
            they are made of; None where it is the model's own.
        probabilities: Whether it holds probabilities (True) or logits (False), whatever the graph shows.
    """

    declared: Sequence[Dim] | None = None
    straight_through: bool = False
    logs: Literal["exact", "single"] | None = None
    probabilities: bool | None = None


def logits_of(build: Builder, output: str, reading: Reading) -> Logits:
    """Find the logits behind ``output`` and emit what brings them to (N, classes).

    A single output z, with or without a Sigmoid, is two classes with logits (0, z).

    Args:
        build: Where to emit.
        output: The output that holds the probabilities or logits.
        reading: What else is known of it.

    Raises:
        DifferentiationError: The output has no class axis of known size.
        ModelError: More than one axis of scores, or a single score of which nothing tells what it means.
    """
    index = build.index
    made = ending(output, producer=index.producer, value=index.value)
    is_left = made.is_quantised and not reading.straight_through
    source, stripped = (output, None) if is_left else _behind_activation(index, made, output)
    if not index.is_float(source):
        raise DifferentiationError(
            f"output {output!r} is not floating point, so it has no gradient: name the output that holds the "
            "probabilities or logits with {output_name}",
            parameter="output_name",
        )
    # Between source and output nothing changes the number of elements.
    shapes = index.shape(source), index.shape(output), reading.declared
    classes = next((found for found in (scores_of(shape, output) for shape in shapes) if found is not None), None)
    if classes is None:
        raise DifferentiationError(
            f"the number of classes at {source!r} is unknown: declare the shape of output {output!r} as (N, classes), "
            "or give the model an input of fixed shape"
        )
    takes_logs = made.activation is None and (made.is_probability or reading.probabilities) and not reading.logs
    shift = 0.0
    if classes == 1 and not takes_logs:
        is_known = made.untold is not None and reading.probabilities is False
        threshold = 0.0 if is_known else made.threshold(output)  # raises where the score may be anything
        shift = -threshold if is_left else made.shift
        if made.activation == "HardSigmoid" and not is_left:
            source, stripped = made.source, made.activation
    batch = (index.shape(source) or (None,))[0]
    logits = build.tensor(source)
    if index.rank(source) != 2:
        logits = logits.reshape(-1, classes)
        index.learn(logits.name, logits.elem_type, (batch, classes))
    if logits.dtype.itemsize < 4:
        logits = logits.cast(TensorProto.FLOAT)
        index.learn(logits.name, logits.elem_type, None)
    if takes_logs:
        logits = _logarithm(logits, odds=classes == 1)
        index.learn(logits.name, logits.elem_type, (batch, classes))
    if classes == 1:
        if shift:
            shape = logits.dims
            logits = logits + shift
            index.learn(logits.name, logits.elem_type, shape)
        logits = build.op("Concat", build.zeros(logits.op("Shape"), logits), logits, axis=1)
        classes = 2
    index.learn(logits.name, logits.elem_type, (batch, classes))
    return Logits(logits, source, classes, stripped, "floored" if takes_logs else reading.logs)


def _logarithm(probabilities: Tensor, *, odds: bool) -> Tensor:
    """Return log(p), or log(p / (1 - p)), computed in float64; the logarithm of 0 is that of the least float32."""
    index, shape = probabilities.builder.index, probabilities.dims

    def known(tensor: Tensor) -> Tensor:
        """Note the type, which the backward graph would take for float32."""
        index.learn(tensor.name, tensor.elem_type, shape)
        return tensor

    def log(tensor: Tensor) -> Tensor:
        return known(known(tensor.op("Max", _LEAST)).log())

    wide = known(probabilities.cast(TensorProto.DOUBLE))
    found = known(log(wide) - log(known(1.0 - wide))) if odds else log(wide)
    return known(found.cast(probabilities))


def _behind_activation(index: Index, made: Ending, output: str) -> tuple[str, str | None]:
    """Return the tensor to take for the logits, and the activation after it that is left out.

    HardSigmoid is left out for a single score only: several scores that it clips to 0 or 1 are equal.
    """
    if made.activation in {None, "HardSigmoid"}:
        return output, None
    if made.activation != "Sigmoid" and not _over_classes(index, made.source, made.axis):
        return output, None
    return made.source, made.activation


def _over_classes(index: Index, name: str, axis: int) -> bool:
    """Whether every axis but the first and ``axis`` is of size 1."""
    shape = index.shape(name)
    if shape is None:
        return True
    axis %= len(shape)
    return all(d == 1 for i, d in enumerate(shape) if i not in {0, axis})


_WIDE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def round_input(graph: onnx.GraphProto, name: str) -> None:
    """Make the Cast that gives a model its narrow input ``name`` round on every provider, if there is one.

    Done to a finished graph, so that gradients are not rounded.
    """
    place = next((i for i, node in enumerate(graph.node) if name in node.output and node.op_type == "Cast"), None)
    if place is None:
        return
    build, cast = Builder.beside(graph), graph.node[place]
    narrow = Tensor(build, build.fresh(f"{name}/narrow"), onnx.helper.get_node_attr_value(cast, "to"))
    cast.output[0] = cast.name = narrow.name
    wide = Tensor(build, cast.input[0], TensorProto.FLOAT)
    build.op("Reshape", narrow, wide.op("Shape"), name=name)
    build.insert_into(graph, place + 1)


def rounded(logits: Tensor, elem_type: int) -> Tensor:
    """Return float32 values rounded to what ``elem_type`` holds."""
    if elem_type in _WIDE:
        return logits
    narrow = logits.cast(elem_type)
    return narrow.reshape(logits.op("Shape")).cast(TensorProto.FLOAT)
