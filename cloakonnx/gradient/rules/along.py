"""Linear maps along one axis, which several families need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.site import Site


def take_back(e: Emitter, s: Site, grad: str, axis: int, *, size: int, taken: Sequence[int]) -> str:
    """Bring back values along an axis: the i-th goes to place ``taken[i]`` of ``size``, no place twice."""
    shape = s.shape(s.x(), "data input")
    if list(taken) == list(range(taken[0], taken[0] + len(taken))) if taken else False:
        before, after = [0] * len(shape), [0] * len(shape)
        before[axis], after[axis] = taken[0], size - taken[-1] - 1
        return e.op("Pad", grad, e.ints(*before, *after)) if any(before + after) else grad
    source = [len(taken)] * size
    for i, place in enumerate(taken):
        source[place] = i
    zero = [0] * (2 * len(shape))
    zero[len(shape) + axis] = 1
    return e.op("Gather", e.op("Pad", grad, e.ints(*zero)), e.ints(*source), axis=axis)


def apply_along(e: Emitter, s: Site, grad: str, axis: int, matrix: npt.NDArray[np.float64]) -> str:
    """Multiply along an axis by a matrix (new size, old size)."""
    rank = len(s.shape(s.x(), "data input"))
    weight = e.constant(matrix.T.astype(s.info.dtype(s.x())))
    if axis == rank - 1:
        return e.op("MatMul", grad, weight)
    if axis == rank - 2:
        return e.op("MatMul", e.constant(matrix.astype(s.info.dtype(s.x()))), grad)
    order = [*(a for a in range(rank) if a != axis), axis]
    last = e.op("Transpose", grad, perm=order)
    return e.op("Transpose", e.op("MatMul", last, weight), perm=np.argsort(order).tolist())
