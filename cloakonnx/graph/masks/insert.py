"""Inserts masks: the producer's output gets another name, and ``Mul(that, mask)`` takes the name it had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks import metadata
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import Tap, find_tap

Values: TypeAlias = NDArray[np.generic]
_MIN_OPSET = 7
_INITIALIZER_MIN_IR = 4


def insertion(model: Model, masks: Sequence[Mask], *, stripped_sha256: str) -> Edit:
    """Return the edit that puts masks into a model.

    Args:
        model: The model, hardened before or not.
        masks: One mask for each tap.
        stripped_sha256: Digest of the bytes that ``strip`` has to give back; a model that was hardened before keeps
            the one it has.

    Raises:
        ModelError: an opset below 7, whose Mul does not broadcast.
        TapError: a tap that can't carry a mask.
        MaskError: no mask, two for one tap, or weights that do not fit.
    """
    if not masks:
        raise MaskError("there is no mask to insert")
    check_opset(model)
    if metadata.is_folded(model.proto):
        raise ModelError(f"{model.name} is folded and takes no more masks; start from the model it was made from")
    names = model.structure.names()
    nodes_named = {node.name for node in model.proto.graph.node}
    already = metadata.masks_of(model.proto)
    listed = list(already)
    rename: dict[tuple[int, int], str] = {}
    insert: dict[int, tuple[onnx.NodeProto, ...]] = {}
    weights: list[onnx.TensorProto] = []
    producers = model.structure.producers
    for mask in masks:
        tap = find_tap(model, mask.tap, axis=mask.feature_axis)
        where = producers[tap.name]
        if where in rename:
            raise MaskError(f"tensor {tap.name!r} has two masks; multiply them into one")
        values = mask_values(tap, mask)
        entry = metadata.MaskEntry(
            tap=tap.name,
            unmasked=_free(f"{tap.name}_unmasked", names),
            node=_free(f"{tap.name}_cloak", nodes_named),
            initializer=_free(f"{tap.name}_mask", names),
            feature_axis=tap.feature_axis,
            sha256=values_sha256(values),
        )
        nodes, tensors = _build(entry, values, constant_node=model.proto.ir_version < _INITIALIZER_MIN_IR)
        rename[where] = entry.unmasked
        insert[where[0]] = nodes + insert.get(where[0], ())  # as if put in one after the other
        weights += tensors
        listed.append(entry)
    known = metadata.entries(model.proto)
    if known and not already:
        raise ModelError(
            f"{model.name} has cloakonnx metadata ({', '.join(known)}) but no masks: it was changed after it was "
            "hardened; start from its source"
        )
    return Edit(
        rename=rename,
        insert=insert,
        add_initializers=tuple(weights),
        metadata={
            metadata.MASKS: metadata.masks_text(listed),
            metadata.SOURCE: known.get(metadata.SOURCE, model.sha256),
            metadata.STRIPPED: known.get(metadata.STRIPPED, stripped_sha256),
            metadata.VERSION: version("cloakonnx"),
        },
    )


def check_opset(model: Model) -> None:
    """Raise ModelError where the model's operator set has no broadcasting Mul."""
    nodes = model.proto.graph.node
    if nodes and not model.opset and all(node.domain not in {"", "ai.onnx"} for node in nodes):
        raise ModelError(
            f"{model.name} has ops of the domain {nodes[0].domain!r} only, and they have no features to mask; it can "
            "be attacked (cloakonnx attack --attack square), but not hardened"
        )
    if model.opset < _MIN_OPSET:
        raise ModelError(
            f"{model.name} uses opset {model.opset}; a mask needs opset {_MIN_OPSET} or later (no broadcasting Mul "
            "before it): export the model again with a later opset"
        )


def mask_values(tap: Tap, mask: Mask) -> Values:
    """Return the mask in the tap's dtype, shaped to broadcast along its feature axis or over the batch.

    Raises:
        MaskError: a length other than the number of features, a shape other than a sample's, or a weight that the dtype
            can't hold.
    """
    count = len(mask.weights)
    whole = mask.weights.ndim > 1
    if whole and mask.weights.shape != tap.shape[1:]:
        dims = ", ".join(str(d) if isinstance(d, int) else "open" for d in tap.shape[1:])
        raise MaskError(
            f"the mask for {tap.name!r} has shape {mask.weights.shape}, but a sample of it has ({dims}); a mask "
            "has one weight a feature, or the shape of a sample where the model fixes that"
        )
    if not whole and tap.features is not None and count != tap.features:
        raise MaskError(
            f"the mask for {tap.name!r} has {count} weights, but the tensor has {tap.features} features on axis "
            f"{tap.feature_axis}"
        )
    with np.errstate(over="ignore"):
        values = mask.weights.astype(onnx.helper.tensor_dtype_to_np_dtype(tap.elem_type))
    if not whole:
        values = values.reshape(tap.mask_shape)
    if not np.isfinite(values.astype(np.float64)).all():
        raise MaskError(f"the mask for {tap.name!r} has a weight that overflows {tap.dtype}")
    return values


def values_sha256(values: Values) -> str:
    """Return the hex digest of a mask's bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _free(wanted: str, taken: set[str]) -> str:
    """Return a name that is not taken, and take it."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def _build(
    entry: metadata.MaskEntry, values: Values, *, constant_node: bool
) -> tuple[tuple[onnx.NodeProto, ...], list[onnx.TensorProto]]:
    """Return the nodes to insert and the initializers to add for one mask."""
    before, after = gs.Variable(entry.unmasked), gs.Variable(entry.tap)
    mask = gs.Constant(entry.initializer, values)
    tensor = OnnxExporter.export_tensor_proto(mask)
    mul = OnnxExporter.export_node(gs.Node("Mul", name=entry.node, inputs=[before, mask], outputs=[after]))
    if not constant_node:
        return (mul,), [tensor]
    constant = onnx.helper.make_node("Constant", [], [entry.initializer], name=f"{entry.node}_constant", value=tensor)
    return (constant, mul), []
