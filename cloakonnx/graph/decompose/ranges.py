"""Ranges of the integers that numbers are quantised to, and which of their ends belong to the model's function."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto

RANGES: dict[int, tuple[int, int]] = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
}


def cuts_as_activation(zero: NDArray[Any] | None, kind: int) -> bool:
    """Return whether straight-through gradients end where numbers are cut off.

    Where an end of the range stands for 0, quantisation does what a Relu (or a Clip from 0 on) before it did, and the
    float model has no gradient beyond it either. Other ends come from calibration: the numbers beyond are outliers, and
    a gradient of 0 there hides whole paths of a model such as a transformer (measured in docs/quantising.md).

    Args:
        zero: The zero point's value; None where it is not constant, which counts as such an end.
        kind: Element type of the integers.
    """
    return zero is None or bool(((zero == RANGES[kind][0]) | (zero == RANGES[kind][1])).any())
