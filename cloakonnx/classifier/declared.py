"""What a model's file declares of its input and its class scores."""

from __future__ import annotations

from typing import Literal

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.classnames import class_names
from cloakonnx.graph.index.ending import scores_of
from cloakonnx.graph.index.index import node_inputs
from cloakonnx.graph.index.outputs import taken
from cloakonnx.graph.masks.taps import FLOAT_TYPES
from cloakonnx.graph.subgraphs.cut import unfed


def shape_of(tensor: onnx.TypeProto.Tensor, batch_axis: int = 0) -> tuple[int | None, ...] | None:
    """Return a tensor's shape without the batch axis: None for free dimensions, and as a whole where undeclared."""
    if not tensor.HasField("shape"):
        return None
    sizes = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
    return (*sizes[:batch_axis], *sizes[batch_axis + 1 :])


def input_shape(model: Model, input_name: str | None = None, batch_axis: int = 0) -> tuple[int | None, ...] | None:
    """Return the shape of the data input without the batch axis: an int, or None where the dimension is free."""
    return shape_of(model.input(input_name).type.tensor_type, batch_axis)


def batch_axis(model: Model, input_name: str | None, output_name: str | None) -> int | None:
    """Return the axis of the data input that counts samples, by what the file declares; None where that is ambiguous.

    It is the one that is named as the first axis of the class scores; else the only open one, where that of the scores
    is open as well; else the first.
    """
    dims = model.input(input_name).type.tensor_type.shape.dim
    try:
        rows = model.output(output_name).type.tensor_type.shape.dim[:1]
    except ModelError:  # the code that needs the output raises it
        rows = []
    opened = [axis for axis, dim in enumerate(dims) if dim.dim_value <= 0]
    named = [axis for axis in opened if rows and dims[axis].dim_param and dims[axis].dim_param == rows[0].dim_param]
    if len(named) == 1:
        return named[0]
    if len(dims) < 2 or dims[0].dim_value <= 1 or len(opened) != 1:
        return 0
    if rows and rows[0].dim_value > 0:
        return 0 if rows[0].dim_value == dims[0].dim_value else None
    return None if not rows or (rows[0].dim_param and dims[opened[0]].dim_param) else opened[0]


def other_inputs(model: Model, output_name: str | None, input_name: str | None = None) -> list[str]:
    """Return the inputs that the class scores depend on, in the order of the file, without the data input.

    Raises:
        ModelError: no such output, or several and no name.
    """
    producers, nodes = model.structure.producers, model.inferred.graph.node
    waiting, seen = [model.output(output_name).name], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += node_inputs(nodes[producers[name][0]]) if name in producers else ()
    return [value.name for value in model.inputs if value.name in seen and value.name != input_name]


def check_fed(model: Model, input_name: str | None, output_name: str | None) -> None:
    """Check before any data is read that the class scores need no other input; raises ModelError where they do."""
    taken = model.input(input_name).name
    try:
        others = other_inputs(model, output_name, taken)
    except ModelError:  # the code that needs the output raises it
        return
    if others:
        raise unfed(others, taken)


def class_count(model: Model, output_name: str | None = None) -> int | None:
    """Return how many classes the output has, where its shape is known; one score means two classes."""
    count = score_count(model, output_name)
    return None if count is None else max(count, 2)


def score_count(model: Model, output_name: str | None = None) -> int | None:
    """Return how many scores a sample has in the output, where its shape is known."""
    try:
        declared = model.output(output_name)
    except ModelError:
        return None
    name = declared.name
    for value in (*model.inferred.graph.output, declared):
        dims = value.type.tensor_type.shape.dim
        if value.name != name or not dims or value.type.tensor_type.elem_type not in FLOAT_TYPES:
            continue
        try:
            count = scores_of([d.dim_value or None for d in dims], name)
        except ModelError:  # the code that needs its classes raises it
            return None
        if count:
            return count
    return None


def names_of_classes(model: Model, output_name: str | None = None) -> tuple[str, ...] | None:
    """Return what the file calls the classes, in the order of the scores; None where it does not say."""
    return class_names(model.proto, class_count(model, output_name))


def fixed_batch(model: Model, input_name: str | None = None, batch_axis: int = 0) -> int | None:
    """Return how many samples the file says that a data input takes at a time; None where it leaves that open."""
    dims = model.input(input_name).type.tensor_type.shape.dim[batch_axis : batch_axis + 1]
    size = int(dims[0].dim_value) if dims else 0
    return size if size > 0 else None


def counterpart(model: Model, name: str | None, kind: Literal["input", "output"]) -> str | None:
    """Return what a model calls the input or output that another model, which it is compared with, calls ``name``.

    Where it has a single one that may have another name, which None stands for.

    Raises:
        ModelError: it has several, and none of that name.
    """
    names = [v.name for v in (model.inputs if kind == "input" else model.proto.graph.output)]
    if name is None or name in names or (kind == "output" and taken(model.structure, name)):
        return name
    if len(names) == 1:
        return None
    raise ModelError(
        f"{model.name} has no {kind} {name!r}; it has {', '.join(names)}: export both models with the same name for it"
    )
