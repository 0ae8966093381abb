"""What cloakonnx writes into a hardened model's ``metadata_props``, and reads back.

``cloakonnx.masks`` is a JSON list with an object for each Mul node, ``cloakonnx.folded`` of a folded model one for each
mask that was given, with its weights, ``cloakonnx.external_sha256`` an object of the external files by location; the
other entries are plain strings.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version

import numpy as np
import onnx

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.masks.mask import Mask

PREFIX = "cloakonnx."
MASKS = PREFIX + "masks"
SOURCE = PREFIX + "source_sha256"
STRIPPED = PREFIX + "stripped_sha256"
VERSION = PREFIX + "version"
EXTERNAL = PREFIX + "external_sha256"
KIND = PREFIX + "kind"
FOLDED = PREFIX + "folded"


@dataclass(frozen=True)
class MaskEntry:
    """One mask of a hardened model.

    Attributes:
        tap: The masked tensor.
        unmasked: The name that the producer's output has now.
        node: Name of the Mul node.
        initializer: Name of the mask's initializer, or of the Constant node's output below IR 4.
        feature_axis: The axis that the mask runs along.
        sha256: Hex digest of the mask's bytes, little-endian in the tap's dtype.
    """

    tap: str
    unmasked: str
    node: str
    initializer: str
    feature_axis: int
    sha256: str


_KINDS = (str, str, str, str, int, str)
"""Types of the fields of a :class:`MaskEntry`, in order."""


def entries(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata entries that are cloakonnx's own."""
    texts = (p for p in model.metadata_props if isinstance(p.key, str) and isinstance(p.value, str))  # bytes: not UTF-8
    return {p.key: p.value for p in texts if p.key.startswith(PREFIX)}


def masks_of(model: onnx.ModelProto) -> list[MaskEntry]:
    """Return the masks that the metadata tells of; none for a model that was never hardened.

    Raises:
        ModelError: the entry is there but is not what cloakonnx writes.
    """
    text = entries(model).get(MASKS)
    if text is None:
        return []
    try:
        found = [MaskEntry(**fields) for fields in json.loads(text)]
        if not all(type(value) is kind for entry in found for kind, value in zip(_KINDS, astuple(entry), strict=True)):
            raise TypeError
        return found
    except (TypeError, ValueError, RecursionError):
        raise ModelError(f"the metadata entry {MASKS!r} is damaged: it is not a list of masks") from None


def masks_text(masks: Sequence[MaskEntry]) -> str:
    """Encode masks for the metadata: compact JSON with sorted keys."""
    return json.dumps([asdict(mask) for mask in masks], sort_keys=True, separators=(",", ":"))


def is_folded(model: onnx.ModelProto) -> bool:
    """Whether the metadata says that masks are folded into the weights."""
    return entries(model).get(KIND) == "folded"


def folded_entries(masks: Sequence[Mask], *, source_sha256: str) -> dict[str, str]:
    """Return the metadata of a folded model: all that it takes to fold again.

    Weights are base64 of little-endian float32.
    """
    listed = [
        {
            "feature_axis": mask.feature_axis,
            "shape": list(mask.weights.shape),
            "tap": mask.tap,
            "weights": base64.b64encode(mask.weights.astype("<f4").tobytes()).decode(),
        }
        for mask in masks
    ]
    return {
        KIND: "folded",
        FOLDED: json.dumps(listed, sort_keys=True, separators=(",", ":")),
        SOURCE: source_sha256,
        VERSION: version("cloakonnx"),
    }


def folded_masks(model: onnx.ModelProto) -> list[Mask]:
    """Return the masks that a folded model was made with, in the order they were given.

    Raises:
        ModelError: the entry is not there or is not what cloakonnx writes.
    """
    try:
        found = []
        for fields in json.loads(entries(model)[FOLDED]):
            tap, axis, text = fields["tap"], fields["feature_axis"], fields["weights"]
            if type(tap) is not str or type(axis) is not int or len(fields) != 4:
                raise TypeError
            weights = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
            found.append(Mask(tap, weights.reshape([int(size) for size in fields["shape"]]), axis))
        return found
    except (KeyError, TypeError, ValueError, RecursionError, MaskError):
        raise ModelError(f"the metadata entry {FOLDED!r} is damaged: it is not a list of masks") from None


@dataclass(frozen=True)
class ExternalFile:
    """What is recorded of an external data file: hex digest and length in bytes."""

    sha256: str
    size: int


def external_text(files: Mapping[str, ExternalFile]) -> str:
    """Encode external files by location for the metadata: compact JSON with sorted keys."""
    return json.dumps({name: asdict(file) for name, file in files.items()}, sort_keys=True, separators=(",", ":"))


def external_recorded(model: onnx.ModelProto) -> dict[str, ExternalFile] | None:
    """Return the external files that the metadata records, by location; None where it records none.

    Raises:
        ModelError: the entry is there but is not what cloakonnx writes.
    """
    text = entries(model).get(EXTERNAL)
    if text is None:
        return None
    try:
        found = {name: ExternalFile(**fields) for name, fields in json.loads(text).items()}
        for file in found.values():
            if type(file.size) is not int or re.fullmatch("[0-9a-f]{64}", file.sha256) is None:
                raise TypeError
        return found
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise ModelError(f"the metadata entry {EXTERNAL!r} is damaged: it is not an object of files") from None
