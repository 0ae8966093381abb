"""What a model's file declares of its input and its class scores."""

from __future__ import annotations

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.classnames import class_names
from cloakonnx.graph.index.ending import scores_of
from cloakonnx.graph.masks.taps import FLOAT_TYPES


def shape_of(tensor: onnx.TypeProto.Tensor) -> tuple[int | None, ...] | None:
    """Return a tensor's shape without the batch axis: None for free dimensions, and as a whole where undeclared."""
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)[1:]


def input_shape(model: Model, input_name: str | None = None) -> tuple[int | None, ...] | None:
    """Return the shape of the data input without the batch axis: an int, or None where the dimension is free."""
    return shape_of(model.input(input_name).type.tensor_type)


def class_count(model: Model, output_name: str | None = None) -> int | None:
    """Return how many classes the output has, where its shape is known; one score means two classes."""
    count = score_count(model, output_name)
    return None if count is None else max(count, 2)


def score_count(model: Model, output_name: str | None = None) -> int | None:
    """Return how many scores a sample has in the output, where its shape is known."""
    try:
        name = model.output(output_name).name
    except ModelError:
        return None
    for value in (*model.inferred.graph.output, *model.proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name != name or not dims or value.type.tensor_type.elem_type not in FLOAT_TYPES:
            continue
        try:
            count = scores_of([d.dim_value or None for d in dims], name)
        except ModelError:  # whoever needs its classes says so
            return None
        if count:
            return count
    return None


def names_of_classes(model: Model, output_name: str | None = None) -> tuple[str, ...] | None:
    """Return what the file calls the classes, in the order of the scores; None where it does not say."""
    return class_names(model.proto, class_count(model, output_name))


def fixed_batch(model: Model, input_name: str | None = None) -> int | None:
    """Return how many samples the file says that a data input takes at a time; None where it leaves that open."""
    dims = model.input(input_name).type.tensor_type.shape.dim[:1]
    size = int(dims[0].dim_value) if dims else 0
    return size if size > 0 else None
