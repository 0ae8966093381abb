"""Inserts masks: at an activation and on a weight.

An activation's producer gives another name, and ``Mul(that, mask)`` takes the name it had. A weight stays as it is, and
the layers that read it read ``Mul(weight, mask)`` instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.file.edit import Edit, edit_proto
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.bounds import check_bounds
from cloakonnx.graph.masks import metadata
from cloakonnx.graph.masks.granularity import Granularity, Place, granularity
from cloakonnx.graph.masks.mask import ELEMENT, PAIRED, Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.masks.weights import WeightPlace, find_weight

Values: TypeAlias = NDArray[np.generic]
_MIN_OPSET = 7
_INITIALIZER_MIN_IR = 4


def insertion(model: Model, masks: Sequence[Mask], *, stripped_sha256: str) -> Edit:
    """Return the edit that puts masks into a model.

    Args:
        model: The model, hardened before or not.
        masks: One mask for each tap or weight; a weight may have one of output and one of input channels.
        stripped_sha256: Digest of the bytes that ``strip`` has to give back; a model that was hardened before keeps
            the one it has.

    Raises:
        ModelError: an opset below 7, whose Mul does not broadcast; or weights that other nodes make, and that with
            masks on them would be more than is read of a model.
        TapError: a tensor that can't carry a mask.
        MaskError: no mask, two for one tensor, or weights that do not fit.
    """
    if not masks:
        raise MaskError("there is no mask to insert")
    check_opset(model)
    if metadata.is_folded(model.proto):
        raise ModelError(f"{model.name} is folded and takes no more masks; start from the model it was made from")
    already = metadata.masks_of(model.proto)
    insertion = _Insertion(model)
    for mask in masks:
        if mask.on_weight:
            insertion.on_weight(mask)
        else:
            insertion.at_tap(mask)
    known = metadata.entries(model.proto)
    if known and not already:
        raise ModelError(
            f"{model.name} has cloakonnx metadata ({', '.join(known)}) but no masks: it was changed after it was "
            "hardened; start from its source"
        )
    edit = Edit(
        rename=insertion.rename,
        rename_inputs=insertion.rename_inputs,
        insert=insertion.insert,
        add_initializers=tuple(insertion.tensors),
        metadata={
            metadata.MASKS: metadata.masks_text([*already, *insertion.entries]),
            metadata.SOURCE: known.get(metadata.SOURCE, model.sha256),
            metadata.STRIPPED: known.get(metadata.STRIPPED, stripped_sha256),
            metadata.VERSION: version("cloakonnx"),
        },
    )
    if insertion.computed:
        check_bounds(edit_proto(model.proto, edit), f"{model.name} with a mask on {insertion.computed[0]!r}")
    return edit


class _Insertion:
    """What an edit is made of, while mask after mask goes in."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._names = model.structure.names()
        self._nodes_named = {node.name for node in model.proto.graph.node}
        self._constant_nodes = model.proto.ir_version < _INITIALIZER_MIN_IR
        self._results: dict[str, str] = {}
        self._keys: set[str] = set()
        self.rename: dict[tuple[int, int], str] = {}
        self.rename_inputs: dict[tuple[int, int], str] = {}
        self.insert: dict[int, tuple[onnx.NodeProto, ...]] = {}
        self.tensors: list[onnx.TensorProto] = []
        self.entries: list[metadata.Entry] = []
        self.computed: list[str] = []

    def at_tap(self, mask: Mask) -> None:
        """Rename what makes the tensor; the Mul node right behind gives it under its own name."""
        tap = find_tap(self._model, mask.tap, axis=mask.feature_axis)
        where = self._model.structure.producers[tap.name]
        if where in self.rename:
            raise MaskError(f"tensor {tap.name!r} has two masks; multiply them into one")
        values = mask_values(tap, mask)
        entry = metadata.MaskEntry(
            tap=tap.name,
            unmasked=_free(f"{tap.name}_unmasked", self._names),
            node=_free(f"{tap.name}_cloak", self._nodes_named),
            initializer=_free(f"{tap.name}_mask", self._names),
            feature_axis=tap.feature_axis,
            sha256=values_sha256(values),
        )
        self.rename[where] = entry.unmasked
        self.insert[where[0]] = self._built(entry, values) + self.insert.get(where[0], ())  # as one after the other

    def on_weight(self, mask: Mask) -> None:
        """Put the Mul node before the first layer that reads the weight; all of them read what it gives instead."""
        place = find_weight(self._model, mask.tap)
        if mask.key in self._keys or (place.name in self._results and mask.granularity not in PAIRED):
            raise MaskError(f"weight {place.name!r} has two masks; multiply them into one")
        self._keys.add(mask.key)
        values = mask_values(place, mask)
        assert mask.granularity is not None  # a mask settles it
        is_cast = values.dtype.itemsize < onnx.helper.tensor_dtype_to_np_dtype(place.elem_type).itemsize
        entry = metadata.WeightMaskEntry(
            weight=place.name,
            source=self._results.get(place.name, place.name),
            masked=_free(f"{place.name}_masked", self._names),
            node=_free(f"{place.name}_cloak", self._nodes_named),
            initializer=_free(f"{place.name}_mask", self._names),
            granularity=mask.granularity,
            sha256=values_sha256(values),
            cast=_free(f"{place.name}_mask_cast", self._names) if is_cast else None,
        )
        self._results[place.name] = entry.masked
        maker = self._model.structure.producer(place.name)
        if maker is not None and maker.op_type != "Constant":
            self.computed.append(place.name)
        for index in place.nodes:
            for position, name in enumerate(self._model.proto.graph.node[index].input):
                if name == place.name:
                    self.rename_inputs[index, position] = entry.masked
        before = place.nodes[0] - 1
        self.insert[before] = self.insert.get(before, ()) + self._built(entry, values, place.elem_type)

    def _built(self, entry: metadata.Entry, values: Values, elem_type: int | None = None) -> tuple[onnx.NodeProto, ...]:
        nodes, tensors = _build(entry, values, elem_type, constant_node=self._constant_nodes)
        self.tensors += tensors
        self.entries.append(entry)
        return nodes


def check_opset(model: Model) -> None:
    """Raise ModelError where the model's operator set has no broadcasting Mul."""
    nodes = model.proto.graph.node
    if nodes and not model.opset and all(node.domain not in {"", "ai.onnx"} for node in nodes):
        raise ModelError(
            f"{model.name} imports the domain {nodes[0].domain!r} alone, and a mask is a Mul of the default one; it "
            "can be attacked as it is, and hardened after model.opset_import.append(onnx.helper.make_opsetid('', 13))"
        )
    if model.opset < _MIN_OPSET:
        raise ModelError(
            f"{model.name} uses opset {model.opset}; a mask needs opset {_MIN_OPSET} or later (no broadcasting Mul "
            "before it): export the model again with a later opset"
        )


def mask_values(place: Place, mask: Mask) -> Values:
    """Return the mask in the place's dtype, or float16 where it is stored so, shaped to broadcast over it.

    Raises:
        MaskError: a shape other than that of a mask of its granularity there, or a weight that the dtype can't hold.
    """
    assert mask.granularity is not None  # a mask settles it
    unit = granularity(mask.granularity)
    spread = unit.spread(place)
    _check_shape(place, mask, unit)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(place.elem_type)
    if mask.is_float16 and dtype.itemsize > np.dtype(np.float16).itemsize:
        dtype = np.dtype(np.float16)
    with np.errstate(over="ignore"):
        values = mask.weights.astype(dtype)
    if spread is not None:
        values = values.reshape(spread)
    if not np.isfinite(values.astype(np.float64)).all():
        raise MaskError(f"the mask for {mask.tap!r} has a weight that overflows {place.dtype}")
    return values


def _check_shape(place: Place, mask: Mask, unit: Granularity) -> None:
    """Raise MaskError where the weights have not the shape that a mask has there."""
    given = mask.weights.shape
    if isinstance(place, WeightPlace):
        if given != unit.shape(place):
            raise MaskError(
                f"the mask for the weight {place.name!r} has shape {given}, but one of {unit.name} has "
                f"{unit.shape(place)} there"
            )
    elif unit.name == ELEMENT:
        if given != place.shape[1:]:
            dims = ", ".join(str(d) if isinstance(d, int) else "open" for d in place.shape[1:])
            raise MaskError(
                f"the mask for {place.name!r} has shape {given}, but a sample of it has ({dims}); a mask has one "
                "weight a feature, or the shape of a sample where the model fixes that"
            )
    elif place.features is not None and given != (place.features,):
        raise MaskError(
            f"the mask for {place.name!r} has {mask.weights.size} weights, but the tensor has {place.features} "
            f"features on axis {place.feature_axis}"
        )


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
    entry: metadata.Entry, values: Values, elem_type: int | None, *, constant_node: bool
) -> tuple[tuple[onnx.NodeProto, ...], list[onnx.TensorProto]]:
    """Return the nodes to insert and the initializers to add for one mask; ``elem_type``: of what it multiplies."""
    import onnx_graphsurgeon as gs  # noqa: PLC0415 - inspect reads masks, and emits no node
    from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter  # noqa: PLC0415

    before, after = gs.Variable(entry.source), gs.Variable(entry.result)
    mask = gs.Constant(entry.initializer, values)
    tensor = OnnxExporter.export_tensor_proto(mask)
    factor = gs.Variable(entry.factor)
    nodes = [OnnxExporter.export_node(gs.Node("Mul", name=entry.node, inputs=[before, factor], outputs=[after]))]
    if entry.factor != entry.initializer:
        made = [entry.initializer], [entry.factor]
        nodes.insert(0, onnx.helper.make_node("Cast", *made, name=f"{entry.node}_cast", to=elem_type))
    if not constant_node:
        return tuple(nodes), [tensor]
    constant = onnx.helper.make_node("Constant", [], [entry.initializer], name=f"{entry.node}_constant", value=tensor)
    return (constant, *nodes), []
