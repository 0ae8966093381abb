"""Undoes broadcasting: sums a gradient down to the shape of an operand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import numpy_helper

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.index.index import Dim


def summed_to(grad: Tensor, x: Tensor, y: Tensor, others: Sequence[Tensor] = ()) -> Tensor:
    """Sum over the axes along which ``x`` was broadcast.

    Args:
        grad: Gradient, of the shape of ``y``.
        x: Tensor that was broadcast.
        y: Tensor that it was broadcast to.
        others: The other operands, where ``y`` is the result of a broadcasting op: an axis along which they are 1 has
            its size from ``x``.
    """
    xs, ys = x.dims, y.dims
    if xs is None or ys is None:
        return summed_like(grad, x)
    lead = len(ys) - len(xs)
    axes = [a for a in range(lead, len(ys)) if xs[a - lead] == 1 and ys[a] != 1]
    shapes = [each.dims for each in others]
    if any(_ambiguous(xs[a - lead], ys[a], len(ys) - a, shapes) for a in range(lead, len(ys))):
        return summed_like(grad, x)
    return grad.sum(axes).sum(range(lead), keepdims=False)


def summed_like(grad: Tensor, x: Tensor) -> Tensor:
    """Sum down to the shape of ``x``, comparing shapes when the graph runs."""
    xs, own = x.op("Shape"), grad.op("Shape")
    missing = own.op("Shape") - xs.op("Shape")
    ones = numpy_helper.from_array(np.ones(1, np.int64))
    padded = missing.op("ConstantOfShape", value=ones).op("Concat", xs, axis=0)
    axes = padded.equals(grad.builder.ints(1)).op("NonZero").reshape(-1)
    return grad.op("ReduceSum", axes, keepdims=1, noop_with_empty_axes=1).reshape(xs)


def _ambiguous(dim: Dim, wide: Dim, from_end: int, others: Sequence[tuple[Dim, ...] | None]) -> bool:
    """Whether it is not known if an axis of size ``dim`` was stretched to one of size ``wide``."""
    if isinstance(dim, int) or wide == 1 or (dim is not None and dim == wide):
        return False
    if not others:
        return True
    return not all(s is not None and _dim_from_end(s, from_end) == 1 for s in others)


def _dim_from_end(shape: tuple[Dim, ...], place: int) -> Dim:
    return shape[-place] if place <= len(shape) else 1
