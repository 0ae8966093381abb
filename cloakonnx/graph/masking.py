"""The head with a mask as its input: run once for each mask on what the backbone gave once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.graph.head import head
from cloakonnx.graph.load import Model
from cloakonnx.graph.taps import Tap


@dataclass(frozen=True, eq=False)
class MaskedHead:
    """The graph after a tap, with a mask multiplied in at the tap.

    Attributes:
        proto: The model; its weights are as in the source, references or inline.
        unmasked: Its first input: the tap as the backbone gives it.
        mask: Its second input: weights of the tap's rank, float32 or double where the tap is double; 1 long on every
            axis but the feature axis, or on every one but that and the first, for a mask of each sample's own.
        sides: Its other inputs: computed tensors, or the model's inputs, that it reads beside the tap.
    """

    proto: onnx.ModelProto
    unmasked: str
    mask: str
    sides: tuple[str, ...]


def masked_head(model: Model, tap: Tap, output_name: str | None = None) -> MaskedHead:
    """Cut the part of a model that leads from a tap to an output, and multiply a mask in at its beginning.

    Args:
        model: The model.
        tap: The tap.
        output_name: The class scores, where there are several outputs.

    Raises:
        TapError: the output does not depend on the tap, or the graph after the tap reads a tensor of unknown type.
        ModelError: the output can't be told.
    """
    part = head(model, tap.name, output_name)
    names = model.structure.names()
    unmasked, mask, cast = (_free(f"{tap.name}{suffix}", names) for suffix in ("_unmasked", "_mask", "_mask_cast"))
    graph = part.proto.graph
    entry = graph.input[0]
    entry.name = unmasked
    is_plain = tap.elem_type in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
    wide = tap.elem_type if is_plain else onnx.TensorProto.FLOAT
    shape: list[int | str | None] = [1] * len(tap.shape)
    shape[0], shape[tap.feature_axis] = None, tap.features
    sides = list(graph.input)[1:]
    del graph.input[1:]
    graph.input.extend([onnx.helper.make_tensor_value_info(mask, wide, shape), *sides])
    nodes = [onnx.helper.make_node("Mul", [unmasked, mask if is_plain else cast], [tap.name], name=f"{tap.name}_cloak")]
    if not is_plain:
        nodes.insert(0, onnx.helper.make_node("Cast", [mask], [cast], name=cast, to=tap.elem_type))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return MaskedHead(part.proto, unmasked, mask, part.sides)


def mask_input(tap: Tap, masks: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return masks, (F,) weights each, as the mask input of a :class:`MaskedHead` takes them: one a row.

    Args:
        tap: The head's tap.
        masks: The masks.
    """
    shape = [1] * len(tap.shape)
    shape[0], shape[tap.feature_axis] = len(masks), -1
    wide = np.float64 if tap.elem_type == onnx.TensorProto.DOUBLE else np.float32
    return np.stack(masks).astype(wide).reshape(shape)


def _free(wanted: str, taken: set[str]) -> str:
    name = wanted
    while name in taken:
        name += "_"
    taken.add(name)
    return name
