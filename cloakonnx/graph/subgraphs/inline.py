"""Brings the weights of a model into its proto, for graphs that need them as numbers."""

from __future__ import annotations

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.external import is_external, reference, tensors
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.normal import normalised

_LIMIT = 2**31 - 1
"""The largest message that protobuf can serialise."""


def inline(model: Model) -> onnx.ModelProto:
    """Return a copy of the model with every weight inside, from the model file or its external files; normalised.

    Raises:
        ModelError: the whole would be over 2 GB, which protobuf can't hold.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model.proto)
    total = 0
    for tensor in tensors(whole):
        if not is_external(tensor):
            continue
        span = model.own_data(tensor)
        data = model.buf[slice(*span)] if span is not None else _from_file(model, tensor)
        total += len(data)
        if total > _LIMIT:
            raise ModelError(f"{model.name} has over 2 GB of weights; its gradient graph would not fit a protobuf")
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
    return normalised(whole)


def complete(model: Model, tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a copy of one tensor with its data inside, from the model file or its external file."""
    whole = onnx.TensorProto()
    whole.CopyFrom(tensor)
    if is_external(tensor):
        span = model.own_data(tensor)
        whole.ClearField("external_data")
        whole.ClearField("data_location")
        whole.raw_data = model.buf[slice(*span)] if span is not None else _from_file(model, tensor)
    return whole


def _from_file(model: Model, tensor: onnx.TensorProto) -> bytes:
    entries = reference(tensor)
    if model.folder is None:
        raise ModelError(f"tensor {tensor.name!r} is in an external file, but the model has no folder")
    with (model.folder / entries["location"]).open("rb") as stream:
        stream.seek(int(entries.get("offset", "0")))
        return stream.read(int(entries["length"])) if "length" in entries else stream.read()
