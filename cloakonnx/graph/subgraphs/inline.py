"""Brings the weights of a model into its proto, for graphs that need them as numbers."""

from __future__ import annotations

import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.content import inlined
from cloakonnx.graph.file.external import is_external, tensors
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.normal import normalised

_LIMIT = 2**31 - 1
"""The largest message that protobuf can serialise."""


def inline(model: Model) -> onnx.ModelProto:
    """Return a copy of the model with every weight inside, from the model file or its external files; normalised.

    Raises:
        ModelError: the whole would be over 2 GB, which protobuf can't hold, or a file is not there any more.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model.proto)
    total = 0
    for tensor in tensors(whole):
        if not is_external(tensor):
            continue
        try:
            held = inlined(model, tensor)
        except ValueError as error:
            raise ModelError(f"{model.name}: {error}") from None
        total += len(held.raw_data)
        if total > _LIMIT:
            raise ModelError(f"{model.name} has over 2 GB of weights; its gradient graph would not fit a protobuf")
        tensor.CopyFrom(held)
    return normalised(whole)
