"""Finds the logits of a classifier behind the Softmax or Sigmoid at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.info import Dim, TensorInfo, producers

_PASSING = frozenset({"Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})


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


def logits_of(e: Emitter, output: str, declared: Sequence[Dim] | None = None) -> Logits:
    """Find the logits behind ``output`` and emit what brings them to (N, classes).

    A single output z, with or without a Sigmoid, is two classes with logits (0, z).

    Args:
        e: Where to emit.
        output: The output that holds the probabilities or logits.
        declared: Its shape as the model declares it, for where inference does not reach (behind If, Loop or Scan).

    Raises:
        DifferentiationError: The output has no class axis of known size.
    """
    source, stripped = _behind_activation(e, output)
    if not e.info.is_float(source):
        raise DifferentiationError(
            f"output {output!r} is not floating point, so it has no gradient: name the output that holds the "
            "probabilities or logits with --output-name"
        )
    # Between source and output nothing changes the number of elements.
    classes = _classes(e.info.shape(source)) or _classes(e.info.shape(output)) or _classes(declared)
    if classes is None:
        raise DifferentiationError(
            f"the number of classes at {source!r} is unknown: declare the shape of output {output!r} as (N, classes), "
            "or give the model an input of fixed shape"
        )
    name = _as_matrix(e, source, classes)
    if e.info.dtype(source).itemsize < 4:
        name = e.op("Cast", name, to=1)
        e.info.types[name] = 1
    else:
        e.info.types[name] = e.info.elem_type(source)
    if classes == 1:
        pair = e.op("Concat", e.zeros(e.op("Shape", name), name), name, axis=1)
        e.info.types[pair] = e.info.elem_type(name)
        name, classes = pair, 2
    e.info.shapes[name] = ((e.info.shape(source) or (None,))[0], classes)
    return Logits(name, source, classes, stripped)


def _behind_activation(e: Emitter, output: str) -> tuple[str, str | None]:
    made_by = producers(e.graph)
    name = output
    while name in made_by and made_by[name].op_type in _PASSING and not made_by[name].domain:
        name = made_by[name].input[0]
    node = made_by.get(name)
    if node is None or node.domain or node.op_type not in {"Softmax", "LogSoftmax", "Sigmoid"}:
        return output, None
    if node.op_type != "Sigmoid" and not _over_classes(e.info, node.input[0], _axis(node.attribute)):
        return output, None
    return node.input[0], node.op_type


def _axis(attributes: object) -> int:
    return next((a.i for a in attributes if a.name == "axis"), -1)  # type: ignore[attr-defined]


def _over_classes(info: TensorInfo, name: str, axis: int) -> bool:
    """Whether every axis but the first and ``axis`` is of size 1."""
    shape = info.shape(name)
    if shape is None:
        return True
    axis %= len(shape)
    return all(d == 1 for i, d in enumerate(shape) if i not in {0, axis})


def _classes(shape: Sequence[Dim] | None) -> int | None:
    if shape is None:
        return None
    rest: Sequence[Dim] = shape[1:] or (1,)
    known = [d for d in rest if isinstance(d, int)]
    if len(known) < len(rest):
        return None
    count = 1
    for size in known:
        count *= size
    return count


def _as_matrix(e: Emitter, name: str, classes: int) -> str:
    rank = e.info.rank(name)
    if rank == 2:
        return name
    made = e.op("Reshape", name, e.ints(-1, classes))
    e.info.copy(name, made)
    return made
