"""The masks of a folded model: as its metadata records them, or found from its weights beside those of the source.

A mask with a number for each number of its weight would make the file more than twice as large, and says nothing that
both weights do not: the metadata has digests in place of its numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.errors import CheckError
from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold._absorb import Change, Weight, Weights, array_of, held, rounded
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.masks import metadata, strip
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.weights import find_weight

_BLOCK = 1 << 20
_NEAR = (0, -1, 1, -2, 2)
"""Steps from the rounded quotient: the number that was multiplied by is never further away, and one of them fits."""


def read_masks(model: Model, source: Model | None = None) -> list[Mask]:
    """Return the masks that a hardened model carries, in the order they were put in; none for another model.

    Args:
        model: The hardened model.
        source: The model that it was made from. A folded model needs it where masks have a number for each number of
            their weights: these come out with the same products, but not always as the same numbers.

    Raises:
        CheckError: a mask is gone or was moved, or a weight is not what the metadata records.
        ModelError: the metadata is damaged, or there is no source.

    Examples:
        >>> import cloakonnx as ck
        >>> masks = ck.masks("model.folded.onnx", "model.onnx")  # doctest: +SKIP
    """
    if source is None or not metadata.is_folded(model.proto):
        return strip.read_masks(model)
    return given_masks(model, source)


def given_masks(model: Model, source: Model, meant: Sequence[Mask] = ()) -> list[Mask]:
    """Return the masks that a folded model was made with.

    Args:
        model: The folded model.
        source: The model that it was made from.
        meant: Masks to take where the metadata has their digest.

    Raises:
        CheckError: a weight is not the recorded one, or no mask makes it from the source's.
        TapError: the source has no such weight.
    """
    known = {(mask.key, metadata.digest_of(mask)): mask for mask in meant}
    weights = Weights(source, Constants(source.structure))
    found = []
    for each in metadata.folded_masks(model.proto):
        if isinstance(each, metadata.InWeight):
            mask = _between(model, source, weights, each)
            found.append(known.get((each.key, each.sha256), mask))
        else:
            found.append(each)
    return found


def in_weight(model: Model, edit: Edit, change: Change, mask: Mask) -> metadata.InWeight | None:
    """Return what is recorded in place of a mask's numbers; None where they have to be recorded.

    Args:
        model: The source.
        edit: What folds.
        change: What the mask changes; nothing else may change that weight.
        mask: The mask.
    """
    if mask.weights.size != np.prod(change.weight.shape):
        return None
    old = array_of(model, change.weight.tensor)
    tensor = _replaced(edit, change.weight)
    new = old if tensor is None else array_of(model, tensor)
    return None if factors(old, new) is None else metadata.InWeight.of(mask, _bytes(new))


def factors(old: NDArray[np.generic], new: NDArray[np.generic]) -> NDArray[np.float32] | None:
    """Return what an array was multiplied by, of its shape, so that the products rounded once are ``new`` to the bit.

    None where there is no such array. 0 is taken to be multiplied by 1.
    """
    unit = old.dtype if old.dtype.itemsize < np.dtype(np.float32).itemsize else np.dtype(np.float32)
    flat_old, flat_new = np.ravel(old), np.ravel(new)
    found = np.empty(flat_old.shape, np.float32)
    for start in range(0, flat_old.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        fitting = _fitting(flat_old[part], flat_new[part], unit)
        if fitting is None:
            return None
        found[part] = fitting
    return found.reshape(old.shape)


def _fitting(old: NDArray[np.generic], new: NDArray[np.generic], unit: np.dtype) -> NDArray[np.float32] | None:
    wide = old.astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite fits nothing, or is rounded to it
        quotient = np.where(wide == 0, 1.0, new.astype(np.float64) / wide).astype(unit)
        found, missing = quotient.astype(np.float32), np.ones(old.shape, np.bool_)
        for step in _NEAR:
            moved = quotient
            for _ in range(abs(step)):
                moved = np.nextafter(moved, unit.type(np.inf if step > 0 else -np.inf))
            product = rounded(wide * moved.astype(np.float64), old.dtype)
            fits = missing & (_bits(product) == _bits(new))
            found[fits] = moved[fits].astype(np.float32)
            missing &= ~fits
            if not missing.any():
                return found if np.isfinite(found).all() else None
    return None


def _between(model: Model, source: Model, weights: Weights, entry: metadata.InWeight) -> Mask:
    """Return a mask that makes a folded weight of the source's."""
    place = find_weight(source, entry.tap)
    weight = weights.find(place.nodes, place.name)
    if isinstance(weight, str):
        raise CheckError(f"{source.name}: the mask on {entry.tap!r} can't have been folded: {weight}")
    tensor = _of(model, weight.name)
    old = array_of(source, weight.tensor)
    if tensor is None or list(tensor.dims) != list(old.shape) or tensor.data_type != weight.tensor.data_type:
        raise CheckError(f"{model.name}: the folded weight {weight.name!r} is gone or has another shape or type")
    new = array_of(model, tensor)
    if hashlib.sha256(_bytes(new)).hexdigest() != entry.folded_sha256:
        raise CheckError(f"{model.name}: the weight {weight.name!r} is not the one that the metadata records")
    found = factors(old, new)
    if found is None or found.size != entry.size:
        raise CheckError(f"{model.name}: the weight {weight.name!r} is not that of {source.name} times a mask")
    for view in weight.views:
        found = found.reshape(view.before)
        found = np.transpose(found, view.perm) if view.perm is not None else found
    return Mask(entry.tap, found.reshape(entry.shape), granularity=entry.granularity)


def _of(model: Model, name: str) -> onnx.TensorProto | None:
    graph = model.proto.graph
    tensor = next((each for each in graph.initializer if each.name == name), None)
    node = next((each for each in graph.node if each.op_type == "Constant" and name in each.output), None)
    return tensor if tensor is not None or node is None else held(node)


def _replaced(edit: Edit, weight: Weight) -> onnx.TensorProto | None:
    if weight.node is None:
        return edit.replace_initializers.get(weight.name)
    node = edit.replace_nodes.get(weight.node)
    return None if node is None else held(node)


def _bytes(array: NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _bits(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
