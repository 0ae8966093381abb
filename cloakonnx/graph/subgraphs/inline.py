"""Brings the weights of a model into its proto, for graphs that need them as numbers; very large ones stay in files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx

from cloakonnx.errors import ModelError
from cloakonnx.graph.file.content import inlined
from cloakonnx.graph.file.external import external_bytes, is_external, tensors
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.normal import normalised

_LIMIT = 2**31 - 1
"""The largest message that protobuf can serialise."""

_MUCH = 1 << 30
"""Bytes of weights from which on they stay in their files."""

_SMALL = 1 << 16
"""Elements up to which a tensor is always inlined: shapes and axes must be known."""


def held(model: Model) -> tuple[onnx.ModelProto, Path | None]:
    """Return a copy of the model to derive graphs from, normalised, and the folder of what it refers to.

    Every weight is inside; where they are over 1 GiB together, large ones stay references into the files.

    Raises:
        ModelError: as :func:`inline`.
    """
    if sum(map(external_bytes, tensors(model.proto))) < _MUCH:
        return inline(model), None
    large = {t.name for t in model.proto.graph.initializer if is_external(t) and int(np.prod(t.dims)) > _SMALL}
    return inline(model, except_for=large), model.folder


def inline(model: Model, *, except_for: Collection[str] = ()) -> onnx.ModelProto:
    """Return a copy of the model with every weight inside, from the model file or its external files; normalised.

    Args:
        model: The model.
        except_for: Initializers that stay references.

    Raises:
        ModelError: the whole would be over 2 GB, which protobuf can't hold, or a file is not there any more.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model.proto)
    total = 0
    for tensor in tensors(whole):
        if not is_external(tensor) or tensor.name in except_for:
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
