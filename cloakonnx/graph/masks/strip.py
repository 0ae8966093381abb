"""Takes masks out again: gives back the file that they were put into, to the byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import CheckError, MaskError, ModelError
from cloakonnx.graph.file.content import inlined
from cloakonnx.graph.file.edit import Edit, edit_bytes, edit_proto, edited, sha256
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.index import Index, structure
from cloakonnx.graph.masks import metadata
from cloakonnx.graph.masks.insert import insertion
from cloakonnx.graph.masks.mask import Mask


def removal(model: Model) -> Edit:
    """Return the edit that takes every mask out of a hardened model.

    Raises:
        ModelError: the model carries no masks, or they are folded into its weights.
        CheckError: a mask is not where the metadata says; the model was changed after it was hardened.
    """
    if metadata.is_folded(model.proto):
        source = metadata.entries(model.proto).get(metadata.SOURCE, "unknown")
        raise ModelError(
            f"{model.name} is folded: its masks are in the weights and can't be taken out; use the model that it was "
            f"made from (sha256 {source[:16]}...)"
        )
    masks = metadata.masks_of(model.proto)
    if not masks:
        raise ModelError(f"{model.name} carries no cloakonnx masks: its metadata has no entry {metadata.MASKS!r}")
    graph = structure(model.proto)
    rename: dict[tuple[int, int], str] = {}
    removed: set[int] = set()
    weights: set[str] = set()
    unmasked: dict[str, str] = {}
    for mask in masks:
        mul = graph.producers.get(mask.result)
        if mul is None or not _is_mask_node(graph, mul[0], mask) or not _is_source(graph, mask):
            raise CheckError(
                f"{model.name}: the mask of {mask.tap!r} is not where the metadata says (a Mul node {mask.node!r} that "
                f"multiplies {mask.source!r} by {mask.factor!r}): the model was changed after it was hardened"
            )
        if isinstance(mask, metadata.WeightMaskEntry):
            unmasked[mask.masked] = mask.weight
        else:
            rename[graph.producers[mask.unmasked]] = mask.tap
        removed.add(mul[0])
        if mask.factor != mask.initializer:
            removed.add(graph.producers[mask.factor][0])
        constant = graph.producers.get(mask.initializer)
        if constant is not None:
            removed.add(constant[0])
        else:
            weights.add(mask.initializer)
    return Edit(
        rename=rename,
        rename_inputs=_renamed_inputs(graph, unmasked),
        remove_nodes=frozenset(removed),
        remove_initializers=frozenset(weights),
        remove_metadata=frozenset(metadata.entries(model.proto)),
    )


def _is_source(graph: Index, mask: metadata.Entry) -> bool:
    """Whether what a mask multiplies is there, and a constant where it is to be a weight."""
    if isinstance(mask, metadata.WeightMaskEntry):
        return mask.source in graph.constants and mask.weight in graph.constants
    return mask.unmasked in graph.producers


def _renamed_inputs(graph: Index, unmasked: dict[str, str]) -> dict[tuple[int, int], str]:
    """Return where masked weights are read, with the weights' own names."""
    return {
        (index, position): unmasked[name]
        for masked in unmasked
        for index in graph.consumers.get(masked, ())
        for position, name in enumerate(graph.graph.node[index].input)
        if name in unmasked
    }


def _is_mask_node(graph: Index, index: int, mask: metadata.Entry) -> bool:
    node = graph.graph.node[index]
    if node.op_type != "Mul" or node.name != mask.node or list(node.input) != [mask.source, mask.factor]:
        return False
    cast = graph.producer(mask.factor)
    if mask.factor == mask.initializer:
        return True
    return cast is not None and cast.op_type == "Cast" and list(cast.input) == [mask.initializer]


def mask_values_of(model: Model, mask: metadata.Entry) -> NDArray[np.generic]:
    """Return a mask of a hardened model as stored in the file, in its dtype and broadcast shape.

    Raises:
        CheckError: it is gone, or its data is no tensor.
    """
    graph = model.proto.graph
    tensors = [t for t in graph.initializer if t.name == mask.initializer]
    if not tensors:
        nodes = [n for n in graph.node if n.op_type == "Constant" and mask.initializer in n.output]
        tensors = [a.t for n in nodes for a in n.attribute if a.name == "value"]
    if not tensors:
        raise CheckError(f"{model.name}: the mask {mask.initializer!r} of {mask.tap!r} is gone")
    try:
        values: NDArray[np.generic] = onnx.numpy_helper.to_array(inlined(model, tensors[0]))
        values.astype(np.float64)
    except Exception as error:  # whatever numpy makes of dims, type and data that do not fit together
        raise CheckError(
            f"{model.name}: the mask {mask.initializer!r} of {mask.tap!r} is no tensor: {error}".replace("\n", " ")
        ) from None
    return values


def reinserted(model: Model) -> Model:
    """Return the model with its masks taken out and put in again, in memory.

    It equals the model exactly when the masks, their nodes and their metadata are what cloakonnx writes; what is
    recorded of other things than the masks' places (hashes, version) is taken unchanged. Raises as
    :func:`removal` and :func:`~cloakonnx.graph.masks.insert.insertion` do.
    """
    without = stripped(model)
    listed = metadata.masks_of(model.proto)
    bare = dataclasses.replace(without, proto=_untied(without.proto, listed))
    edit = insertion(bare, read_masks(model), stripped_sha256="")
    known = metadata.entries(model.proto)
    own = {key: value if key == metadata.MASKS else known.get(key, value) for key, value in edit.metadata.items()}
    if metadata.EXTERNAL in known:
        own[metadata.EXTERNAL] = known[metadata.EXTERNAL]
    made = edit_proto(without.proto, dataclasses.replace(edit, metadata=own))
    again = [
        dataclasses.replace(entry, sha256=old.sha256)
        for entry, old in zip(metadata.masks_of(made), listed, strict=True)
    ]
    next(p for p in made.metadata_props if p.key == metadata.MASKS).value = metadata.masks_text(again)
    return dataclasses.replace(model, proto=made)


def _untied(proto: onnx.ModelProto, masks: Sequence[metadata.Entry]) -> onnx.ModelProto:
    """Return a copy in which only nodes and initializers mention the masks' own tensors.

    Shape inference and quantisers write value infos and annotations for them, which remain when the masks are removed.
    """
    made, own = onnx.ModelProto(), {name for mask in masks for name in mask.own}
    made.CopyFrom(proto)
    infos = [value for value in proto.graph.value_info if value.name not in own]
    annotations = [each for each in proto.graph.quantization_annotation if each.tensor_name not in own]
    made.graph.ClearField("value_info")
    made.graph.ClearField("quantization_annotation")
    made.graph.value_info.extend(infos)
    made.graph.quantization_annotation.extend(annotations)
    return made


def read_masks(model: Model) -> list[Mask]:
    """Return the masks that a hardened model carries, in the order they were put in; none for another model.

    Those of a folded model are the ones that its metadata records, whether they are in the weights or Mul nodes.

    Raises:
        CheckError: a mask is gone or was moved.
        ModelError: the metadata is damaged, or the numbers of a folded mask are to be had with the source only, see
            :func:`~cloakonnx.graph.fold.recorded.read_masks`.
    """
    if not metadata.is_folded(model.proto):
        return [_mask(model, entry) for entry in metadata.masks_of(model.proto)]
    given = metadata.folded_masks(model.proto)
    inside = [mask.tap for mask in given if not isinstance(mask, Mask)]
    if inside:
        raise ModelError(
            f"{model.name} is folded, and the numbers of {len(inside)} masks ({inside[0]!r} first) are in its weights "
            "only: to read them takes the model that it was made from"
        )
    return [mask for mask in given if isinstance(mask, Mask)]


def found_masks(model: Model) -> tuple[list[Mask], str | None]:
    """Return the masks of a model, and None; none, and a sentence, where it was changed after it was hardened.

    Optimisers and quantisers keep the metadata, but move, replace or remove the nodes that it names. Of a folded model
    these are the masks whose numbers the metadata records.
    """
    try:
        if metadata.is_folded(model.proto):
            return [mask for mask in metadata.folded_masks(model.proto) if isinstance(mask, Mask)], None
        masks = read_masks(model)
        if masks:
            removal(model)
    except (CheckError, MaskError, ModelError):
        return [], f"the masks that the metadata of {model.name} records can't be found in its graph"
    return masks, None


def _mask(model: Model, entry: metadata.Entry) -> Mask:
    values = mask_values_of(model, entry)
    if isinstance(entry, metadata.WeightMaskEntry):
        stored = entry.cast is not None
        return Mask(entry.weight, values.astype(np.float32), granularity=entry.granularity, is_float16=stored)
    return Mask(entry.tap, _weights(model, entry, values).astype(np.float32), entry.feature_axis)


def _weights(model: Model, entry: metadata.MaskEntry, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a mask as one weight a feature, or in the shape of a sample where it has one for every element."""
    along_axis_1 = entry.feature_axis == 1 and all(size == 1 for size in values.shape[1:])
    if values.ndim < 2 or along_axis_1:
        return values.reshape(-1)
    shape = model.structure.shape(entry.tap)
    return values if shape is not None and shape[1:] == values.shape else values.reshape(-1)


def stripped(model: Model) -> Model:
    """Return the model without its masks in memory, to run or compare it; raises as :func:`removal` does."""
    return edited(model, removal(model))


def stripped_sha256(model: Model) -> str:
    """Return the digest of what stripping gives now, whatever the metadata says; raises as :func:`removal` does."""
    content = model.content
    return sha256(content, edit_bytes(content, removal(model)))
