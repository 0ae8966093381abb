"""Puts the way from pixel space to a model's input in front of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.graph.build import Builder
from cloakonnx.graph.index.index import FLOATS
from cloakonnx.preprocessing import Step


def prepend(graph: onnx.GraphProto, name: str, steps: Sequence[Step], *, pixels: int = TensorProto.FLOAT) -> str:
    """Put preprocessing, rounding and a cast before an input, where there is anything to do.

    Integer inputs are rounded to, not cut off.

    Args:
        graph: The graph; changed in place.
        name: The input; the tensor keeps its name and type.
        steps: Ops with their constants, in order (:meth:`~cloakonnx.preprocessing.Preprocessing.steps`).
        pixels: Element type of the new input, in which the steps are computed.

    Returns:
        The name of the input in pixel space.
    """
    entry = next(value for value in graph.input if value.name == name)
    elem_type = entry.type.tensor_type.elem_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(pixels)
    ops: list[tuple[str, NDArray[Any] | None]] = [(op, values.astype(dtype)) for op, values in steps]
    if elem_type not in FLOATS:
        ops.append(("Round", None))
    if elem_type != pixels:
        ops.append(("Cast", None))
    if not ops:
        return name
    build = Builder.beside(graph)
    given = tensor = build.input(build.fresh(f"{name}_pixels"), pixels)
    for number, (op, value) in enumerate(ops, 1):
        constants = [] if value is None else [build.constant(value)]
        attributes = {"to": elem_type} if op == "Cast" else {}
        tensor = build.op(op, tensor, *constants, name=name if number == len(ops) else None, **attributes)
    build.insert_into(graph)
    entry.name, entry.type.tensor_type.elem_type = given.name, pixels
    return given.name
