"""Puts preprocessing, from pixel space and batches with the samples first, in front of a model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.graph.build import Builder
from cloakonnx.graph.index.index import FLOATS
from cloakonnx.preprocessing import Step

_ROUND = 11
"""The first opset with Round."""


def prepend(
    graph: onnx.GraphProto, name: str, steps: Sequence[Step], *, pixels: int = TensorProto.FLOAT, opset: int = 18
) -> str:
    """Put preprocessing, rounding and a cast before an input, where there is anything to do.

    Integer inputs are rounded to, not cut off.

    Args:
        graph: The graph; changed in place.
        name: The input; the tensor keeps its name and type.
        steps: Ops with their constants, in order (:meth:`~cloakonnx.preprocessing.Preprocessing.steps`).
        pixels: Element type of the new input, in which the steps are computed.
        opset: Version of the default operator set; before 11 there is no Round.

    Returns:
        The name of the input in pixel space.
    """
    entry = next(value for value in graph.input if value.name == name)
    elem_type = entry.type.tensor_type.elem_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(pixels)
    ops: list[tuple[str, NDArray[Any] | None]] = [(op, values.astype(dtype)) for op, values in steps]
    if elem_type not in FLOATS:
        ops += [("Round", None)] if opset >= _ROUND else [("Add", dtype.type(0.5)), ("Floor", None)]
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


def put_batch_first(graph: onnx.GraphProto, name: str, axis: int) -> str:
    """Put a Transpose before an input whose samples lie along another axis than the first, where they do.

    Args:
        graph: The graph; changed in place.
        name: The input; the tensor keeps its name and type.
        axis: The axis that counts samples.

    Returns:
        The name of the input that takes samples along its first axis.
    """
    if axis == 0:
        return name
    entry = next(value for value in graph.input if value.name == name)
    dims = list(entry.type.tensor_type.shape.dim)
    build = Builder.beside(graph)
    given = build.input(build.fresh(f"{name}_batch_first"), entry.type.tensor_type.elem_type)
    perm = [*range(1, axis + 1), 0, *range(axis + 1, len(dims))]
    build.op("Transpose", given, name=name, perm=perm)
    build.insert_into(graph)
    turned = onnx.TensorShapeProto(dim=[dims[axis], *dims[:axis], *dims[axis + 1 :]])
    entry.type.tensor_type.shape.CopyFrom(turned)
    entry.name = given.name
    return given.name
