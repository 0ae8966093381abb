"""Finds the logits of a classifier behind the Softmax or Sigmoid at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.info import Dim, TensorInfo, producers
from cloakonnx.graph.index.ending import Ending, ending, scores_of


@dataclass(frozen=True)
class Logits:
    """The logits of a classifier.

    Attributes:
        name: Tensor of shape (N, classes), at least two classes, not float16.
        source: The model's own tensor that it was made from.
        classes: Number of classes.
        stripped: Op type of the final activation that was left out, or None.
    """

    name: str
    source: str
    classes: int
    stripped: str | None


def logits_of(
    e: Emitter, output: str, declared: Sequence[Dim] | None = None, *, straight_through: bool = False
) -> Logits:
    """Find the logits behind ``output`` and emit what brings them to (N, classes).

    A single output z, with or without a Sigmoid, is two classes with logits (0, z).

    Args:
        e: Where to emit.
        output: The output that holds the probabilities or logits.
        declared: Its shape as the model declares it, for where inference does not reach (behind If, Loop or Scan).
        straight_through: Whether an activation whose result is quantised is left out, too: equal scores are no longer
            equal then.

    Raises:
        DifferentiationError: The output has no class axis of known size.
        ModelError: More than one axis of scores, or a single score of which nothing tells what it means.
    """
    made = ending(output, producer=producers(e.graph).get, value=e.info.value)
    is_left = made.is_quantised and not straight_through
    source, stripped = (output, None) if is_left else _behind_activation(e.info, made, output)
    if not e.info.is_float(source):
        raise DifferentiationError(
            f"output {output!r} is not floating point, so it has no gradient: name the output that holds the "
            "probabilities or logits with --output-name"
        )
    # Between source and output nothing changes the number of elements.
    shapes = e.info.shape(source), e.info.shape(output), declared
    classes = next((found for found in (scores_of(shape, output) for shape in shapes) if found is not None), None)
    if classes is None:
        raise DifferentiationError(
            f"the number of classes at {source!r} is unknown: declare the shape of output {output!r} as (N, classes), "
            "or give the model an input of fixed shape"
        )
    shift = 0.0
    if classes == 1:
        threshold = made.threshold(output)  # raises where the score may be anything
        shift = -threshold if is_left else made.shift
        if made.activation == "HardSigmoid" and not is_left:
            source, stripped = made.source, made.activation
    name = _as_matrix(e, source, classes)
    if e.info.dtype(source).itemsize < 4:
        name = e.op("Cast", name, to=1)
        e.info.types[name] = 1
    else:
        e.info.types[name] = e.info.elem_type(source)
    if classes == 1:
        if shift:
            shifted = e.op("Add", name, e.number(shift, name))
            e.info.copy(name, shifted)
            name = shifted
        pair = e.op("Concat", e.zeros(e.op("Shape", name), name), name, axis=1)
        e.info.types[pair] = e.info.elem_type(name)
        name, classes = pair, 2
    e.info.shapes[name] = ((e.info.shape(source) or (None,))[0], classes)
    return Logits(name, source, classes, stripped)


def _behind_activation(info: TensorInfo, made: Ending, output: str) -> tuple[str, str | None]:
    """Return the tensor to take for the logits, and the activation after it that is left out.

    HardSigmoid is left out for a single score only: of several, those that it holds at 0 or 1 are equal.
    """
    if made.activation in {None, "HardSigmoid"}:
        return output, None
    if made.activation != "Sigmoid" and not _over_classes(info, made.source, made.axis):
        return output, None
    return made.source, made.activation


def _over_classes(info: TensorInfo, name: str, axis: int) -> bool:
    """Whether every axis but the first and ``axis`` is of size 1."""
    shape = info.shape(name)
    if shape is None:
        return True
    axis %= len(shape)
    return all(d == 1 for i, d in enumerate(shape) if i not in {0, axis})


def _as_matrix(e: Emitter, name: str, classes: int) -> str:
    rank = e.info.rank(name)
    if rank == 2:
        return name
    made = e.op("Reshape", name, e.ints(-1, classes))
    e.info.copy(name, made)
    e.info.shapes[made] = ((e.info.shape(name) or (None,))[0], classes)
    return made


_WIDE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def round_input(graph: onnx.GraphProto, name: str) -> None:
    """Make the Cast that gives a model its narrow input ``name`` round on every provider, if there is one.

    Done to a finished graph, so that gradients, which are better off unrounded, pass by.
    """
    place = next((i for i, node in enumerate(graph.node) if name in node.output and node.op_type == "Cast"), None)
    if place is None:
        return
    cast = graph.node[place]
    cast.output[0] = f"{name}/narrow"
    graph.node.insert(place + 1, onnx.helper.make_node("Shape", [cast.input[0]], [f"{name}/shape"]))
    graph.node.insert(place + 2, onnx.helper.make_node("Reshape", [f"{name}/narrow", f"{name}/shape"], [name]))


def rounded(e: Emitter, name: str, elem_type: int) -> str:
    """Return float32 values rounded to what ``elem_type`` holds."""
    if elem_type in _WIDE:
        return name
    narrow = e.op("Cast", name, to=elem_type)
    return e.op("Cast", e.op("Reshape", narrow, e.op("Shape", name)), to=TensorProto.FLOAT)
