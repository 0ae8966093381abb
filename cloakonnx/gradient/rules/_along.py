"""Linear maps along one axis, which several families need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter


def take_back(e: Emitter, s: Site, grad: str, axis: int, *, size: int, taken: Sequence[int]) -> str:
    """Bring back values along an axis: the i-th goes to place ``taken[i]`` of ``size``, no place twice."""
    shape = s.shape(s.x(), "data input")
    if list(taken) == list(range(taken[0], taken[0] + len(taken))) if taken else False:
        before, after = [0] * len(shape), [0] * len(shape)
        before[axis], after[axis] = taken[0], size - taken[-1] - 1
        return e.op("Pad", grad, e.ints(*before, *after)) if any(before + after) else grad
    if _spreads(e, s, axis, taken):
        return _spread(e, s, grad, axis, size=size, taken=taken)
    source = [len(taken)] * size
    for i, place in enumerate(taken):
        source[place] = i
    zero = [0] * (2 * len(shape))
    zero[len(shape) + axis] = 1
    return e.op("Gather", e.op("Pad", grad, e.ints(*zero)), e.ints(*source), axis=axis)


def _spreads(e: Emitter, s: Site, axis: int, taken: Sequence[int]) -> bool:
    """Whether every n-th row or column of images was taken, where onnxruntime convolves."""
    shape = s.shape(s.x(), "data input")
    images = (
        len(shape) == 4 and axis >= 2 and isinstance(shape[1], int) and e.info.elem_type(s.x()) == TensorProto.FLOAT
    )
    steps = set(np.diff(taken).tolist())
    return images and e.provider == "cpu" and len(steps) == 1 and min(steps) > 1


def _spread(e: Emitter, s: Site, grad: str, axis: int, *, size: int, taken: Sequence[int]) -> str:
    """Put zeros between rows or columns by a depthwise ConvTranspose of 1 x 1, ten times as fast as Gather."""
    shape = s.shape(s.x(), "data input")
    channels, step, rest = int(shape[1] or 0), taken[1] - taken[0], size - 1 - taken[-1]
    strides, extra = [1, 1], [0, 0]
    strides[axis - 2], extra[axis - 2] = step, min(rest, step - 1)
    ones = e.constant(np.ones((channels, 1, 1, 1), np.float32))
    wide = e.op("ConvTranspose", grad, ones, group=channels, strides=strides, output_padding=extra)
    before, after = [0] * 4, [0] * 4
    before[axis], after[axis] = taken[0], rest - max(extra)
    return e.op("Pad", wide, e.ints(*before, *after)) if any(before + after) else wide


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
