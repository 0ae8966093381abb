"""Linear maps along one axis, which several families need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from cloakonnx.gradient._site import GradientSite
from cloakonnx.graph.build import Tensor


def take_back(s: GradientSite, grad: Tensor, axis: int, *, size: int, taken: Sequence[int]) -> Tensor:
    """Bring back values along an axis: the i-th goes to place ``taken[i]`` of ``size``, no place twice."""
    if list(taken) == list(range(taken[0], taken[0] + len(taken))) if taken else False:
        return _padded(s, grad, axis, taken[0], size - taken[-1] - 1)
    if _spreads(s, axis, taken):
        return _spread(s, grad, axis, size=size, taken=taken)
    source = [len(taken)] * size
    for i, place in enumerate(taken):
        source[place] = i
    return _padded(s, grad, axis, 0, 1).gather(s.build.ints(*source), axis)


def _padded(s: GradientSite, grad: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Add zeros along one axis."""
    return grad.padded(*([count if a == axis else 0 for a in range(s.rank)] for count in (before, after)))


def _spreads(s: GradientSite, axis: int, taken: Sequence[int]) -> bool:
    """Whether every n-th row or column of images was taken, where onnxruntime convolves."""
    shape = s.shape(s.x, "data input")
    images = len(shape) == 4 and axis >= 2 and isinstance(shape[1], int) and s.x.elem_type == TensorProto.FLOAT
    steps = set(np.diff(taken).tolist())
    return images and s.build.provider == "cpu" and len(steps) == 1 and min(steps) > 1


def _spread(s: GradientSite, grad: Tensor, axis: int, *, size: int, taken: Sequence[int]) -> Tensor:
    """Put zeros between rows or columns by a depthwise ConvTranspose of 1 x 1, ten times as fast as Gather."""
    step, rest = taken[1] - taken[0], size - 1 - taken[-1]
    strides, extra = [1, 1], [0, 0]
    strides[axis - 2], extra[axis - 2] = step, min(rest, step - 1)
    ones = s.build.constant(np.ones((s.channels, 1, 1, 1), np.float32))
    wide = grad.op("ConvTranspose", ones, group=s.channels, strides=strides, output_padding=extra)
    return _padded(s, wide, axis, taken[0], rest - max(extra))


def apply_along(s: GradientSite, grad: Tensor, axis: int, matrix: npt.NDArray[np.float64]) -> Tensor:
    """Multiply along an axis by a matrix (new size, old size)."""
    weight = s.build.constant(matrix.T.astype(grad.dtype))
    if axis == s.rank - 1:
        return grad.op("MatMul", weight)
    if axis == s.rank - 2:
        return s.build.constant(matrix.astype(grad.dtype)).op("MatMul", grad)
    order = [*(a for a in range(s.rank) if a != axis), axis]
    return grad.transpose(order).op("MatMul", weight).transpose(np.argsort(order).tolist())
