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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
import onnx

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.masks.mask import ON_WEIGHTS, Mask

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
    """One mask at an activation of a hardened model.

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

    @property
    def source(self) -> str:
        """What the Mul node multiplies by the mask."""
        return self.unmasked

    @property
    def factor(self) -> str:
        """What it multiplies that by."""
        return self.initializer

    @property
    def result(self) -> str:
        """What it gives."""
        return self.tap

    @property
    def own(self) -> set[str]:
        """The tensors that are there because of the mask."""
        return {self.unmasked, self.initializer}

    @property
    def key(self) -> str:
        """What tells the mask from the others."""
        return self.tap


@dataclass(frozen=True)
class WeightMaskEntry:
    """One mask on a weight of a hardened model.

    Attributes:
        weight: The weight, which stays as it was.
        source: What the Mul node multiplies by the mask: the weight, or what another mask on it gives.
        masked: What it gives, which the layers read in place of the weight.
        node: Name of the Mul node.
        initializer: Name of the mask's initializer, or of the Constant node's output below IR 4.
        granularity: What one number of the mask multiplies.
        sha256: Hex digest of the mask's bytes, little-endian in the dtype that it is stored in.
        cast: The tensor that a Cast of the initializer to the weight's dtype gives; None where it is stored in that.
    """

    weight: str
    source: str
    masked: str
    node: str
    initializer: str
    granularity: str
    sha256: str
    cast: str | None = None

    @property
    def factor(self) -> str:
        """What the Mul node multiplies the source by."""
        return self.cast or self.initializer

    @property
    def tap(self) -> str:
        """The tensor that the mask is for."""
        return self.weight

    @property
    def result(self) -> str:
        """What the Mul node gives."""
        return self.masked

    @property
    def own(self) -> set[str]:
        """The tensors that are there because of the mask."""
        return {self.masked, self.initializer, self.factor}

    @property
    def key(self) -> str:
        """What tells the mask from the others."""
        return Mask.key_of(self.weight, self.granularity)


Entry: TypeAlias = MaskEntry | WeightMaskEntry


def entries(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata entries that are cloakonnx's own."""
    texts = (p for p in model.metadata_props if isinstance(p.key, str) and isinstance(p.value, str))  # bytes: not UTF-8
    return {p.key: p.value for p in texts if p.key.startswith(PREFIX)}


def masks_of(model: onnx.ModelProto) -> list[Entry]:
    """Return the masks that the metadata tells of; none for a model that was never hardened.

    Raises:
        ModelError: the entry is there but is not what cloakonnx writes.
    """
    text = entries(model).get(MASKS)
    if text is None:
        return []
    try:
        return [_entry(fields) for fields in json.loads(text)]
    except (TypeError, ValueError, RecursionError):
        raise ModelError(f"the metadata entry {MASKS!r} is damaged: it is not a list of masks") from None


def _entry(fields: dict[str, Any]) -> Entry:
    found: Entry = WeightMaskEntry(**fields) if "weight" in fields else MaskEntry(**fields)
    if not all(type(value) is (int if key == "feature_axis" else str) for key, value in fields.items()):
        raise TypeError
    if isinstance(found, WeightMaskEntry) and found.granularity not in ON_WEIGHTS:
        raise ValueError
    return found


def masks_text(masks: Sequence[Entry]) -> str:
    """Encode masks for the metadata: compact JSON with sorted keys."""
    listed = [{key: value for key, value in asdict(mask).items() if value is not None} for mask in masks]
    return json.dumps(listed, sort_keys=True, separators=(",", ":"))


def is_folded(model: onnx.ModelProto) -> bool:
    """Whether the metadata says that masks are folded into the weights."""
    return entries(model).get(KIND) == "folded"


def folded_entries(masks: Sequence[Mask], *, source_sha256: str) -> dict[str, str]:
    """Return the metadata of a folded model: all that it takes to fold again.

    Weights are base64 of little-endian float32.
    """
    listed = [
        {
            **({"granularity": mask.granularity} if mask.on_weight else {"feature_axis": mask.feature_axis}),
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
            tap, text, unit = fields["tap"], fields["weights"], fields.get("granularity")
            axis = fields["feature_axis"] if unit is None else None
            if type(tap) is not str or len(fields) != 4 or (unit not in ON_WEIGHTS and type(axis) is not int):
                raise TypeError
            weights = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
            found.append(Mask(tap, weights.reshape([int(size) for size in fields["shape"]]), axis, unit))
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
