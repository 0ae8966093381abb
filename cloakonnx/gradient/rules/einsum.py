"""Einsum: the gradient by an operand is an Einsum of dy and the other operands."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule
from cloakonnx.graph.build import Tensor

_REST = "..."


@dataclass(frozen=True)
class _Operand:
    """A tensor and a label for each of its axes; those of size 1 that '...' broadcasts are taken out."""

    tensor: Tensor
    labels: str
    squeezed: tuple[int, ...] = ()


@rule("Einsum", since=12, until=12)
def einsum(s: GradientSite) -> Grads:
    """Contract dy with the other operands.

    An axis that only one operand has was summed: a vector of ones spreads the gradient along it again. A label that an
    operand has twice takes the diagonal: it becomes two labels and an identity matrix between them.
    """
    free = (letter for letter in string.ascii_letters if letter not in s.attr("equation"))
    given, result = _operands(s, free)
    split = [_without_repeats(each, free) for each in given]
    diagonals = [each for _, more in split for each in more]
    for i in s.wanted:
        wanted = split[i][0]
        terms = [result, *(each for j, (each, _) in enumerate(split) if j != i), *diagonals]
        known = set("".join(each.labels for each in terms))
        terms += [_ones(wanted, label) for label in wanted.labels if label not in known]
        first, *rest = [each.tensor for each in terms]
        equation = f"{','.join(each.labels for each in terms)}->{wanted.labels}"
        grad = first.op("Einsum", *rest, equation=equation)
        yield i, grad.unsqueeze(wanted.squeezed) if wanted.squeezed else grad


def _operands(s: GradientSite, free: Iterator[str]) -> tuple[list[_Operand], _Operand]:
    """Return the operands and dy; '...' is written out, the result sorted where the equation has no arrow."""
    left, arrow, right = s.attr("equation").replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "").replace(_REST, "")
        right = _REST * (_REST in left) + "".join(sorted(each for each in set(letters) if letters.count(each) == 1))
    sides = left.split(",")
    ranks = [len(s.shape(s.input(i), f"input {i}")) for i in range(len(sides))]
    widths = [rank - len(side.replace(_REST, "")) for rank, side in zip(ranks, sides, strict=True)]
    rest = "".join(next(free) for _ in range(max(widths)))
    operands = []
    for i, side in enumerate(sides):
        labels = side.replace(_REST, rest[len(rest) - widths[i] :])
        dims = s.shape(s.input(i), f"input {i}")
        ones = tuple(a for a, label in enumerate(labels) if label in rest and dims[a] == 1)
        kept = "".join(label for a, label in enumerate(labels) if a not in ones)
        operands.append(_Operand(s.input(i).squeeze(ones) if ones else s.input(i), kept, ones))
    labels = right.replace(_REST, rest)
    absent = tuple(a for a, label in enumerate(labels) if all(label not in each.labels for each in operands))
    kept = "".join(label for a, label in enumerate(labels) if a not in absent)
    return operands, _Operand(s.dy.squeeze(absent) if absent else s.dy, kept)


def _without_repeats(operand: _Operand, free: Iterator[str]) -> tuple[_Operand, list[_Operand]]:
    """Return an operand of which no label stands twice, and identity matrices between those that were one."""
    x, once, diagonals = operand.tensor, "", list[_Operand]()
    for label in operand.labels:
        if label not in once:
            once += label
            continue
        once += (other := next(free))
        size = _size(operand, label)
        square = x.builder.zeros(size.op("Concat", size, axis=0), x)
        diagonals.append(_Operand(square.op("EyeLike", dtype=x.elem_type), label + other))
    return _Operand(x, once, operand.squeezed), diagonals


def _size(operand: _Operand, label: str) -> Tensor:
    axis = operand.labels.index(label)
    return operand.tensor.op("Shape", start=axis, end=axis + 1)


def _ones(operand: _Operand, label: str) -> _Operand:
    """Return a vector of ones along an axis of an operand."""
    one = numpy_helper.from_array(np.ones(1, operand.tensor.dtype))
    ones = _size(operand, label).op("ConstantOfShape", value=one, elem_type=operand.tensor.elem_type)
    return _Operand(ones, label)
