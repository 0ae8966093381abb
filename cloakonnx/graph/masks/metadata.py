"""What cloakonnx writes into a hardened model's ``metadata_props``, and reads back.

``cloakonnx.masks`` is a JSON list with an object for each Mul node, ``cloakonnx.folded`` of a folded model one for each
mask that was given, ``cloakonnx.external_sha256`` an object of the external files by location; the other entries are
plain strings.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, ClassVar, TypeAlias

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
        """Identifies the mask among those of the model."""
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
        """Identifies the mask among those of the model."""
        return Mask.key_of(self.weight, self.granularity)


Entry: TypeAlias = MaskEntry | WeightMaskEntry


def entries(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata entries that are cloakonnx's own."""
    texts = (p for p in model.metadata_props if isinstance(p.key, str) and isinstance(p.value, str))  # bytes: not UTF-8
    return {p.key: p.value for p in texts if p.key.startswith(PREFIX)}


def nothing_left(name: str, model: onnx.ModelProto, what: str) -> str:
    """Return why nothing can carry a mask in a model whose metadata records masks, and what to do.

    Args:
        name: What messages call the model.
        model: The model.
        what: ``weight`` or ``activation``.
    """
    if {entry.node for entry in masks_of(model)} <= {node.name for node in model.graph.node}:
        return f"{name} is hardened already, and no {what} is without a mask; 'cloakonnx strip' gives the source back"
    return (
        f"{name} was changed after it was hardened, by an optimiser or a quantiser: the masks that its metadata "
        "records are part of its weights, and can't be taken out; harden the model that it was made from"
    )


def masks_of(model: onnx.ModelProto) -> list[Entry]:
    """Return the masks that the metadata lists; none for a model that was never hardened.

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


@dataclass(frozen=True)
class InWeight:
    """A mask with a number for each number of its weight, which are found from the folded and the source's weight.

    Attributes:
        tap: The weight.
        granularity: What one number of the mask multiplies.
        shape: Of the mask.
        removed: How many of its numbers are 0.
        sha256: Hex digest of its numbers as little-endian float32.
        folded_sha256: Hex digest of the bytes of the folded weight.
    """

    tap: str
    granularity: str
    shape: tuple[int, ...]
    removed: int
    sha256: str
    folded_sha256: str
    on_weight: ClassVar[bool] = True

    @classmethod
    def of(cls, mask: Mask, folded: bytes) -> InWeight:
        """Describe a mask whose weight has these bytes with the mask folded in."""
        assert mask.granularity is not None  # a mask settles it
        digest = hashlib.sha256(folded).hexdigest()
        return cls(mask.tap, mask.granularity, mask.weights.shape, len(mask.removed), digest_of(mask), digest)

    @property
    def key(self) -> str:
        """Identifies the mask among those of the model."""
        return Mask.key_of(self.tap, self.granularity)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


Given: TypeAlias = Mask | InWeight
"""What a folded model records of a mask."""


def digest_of(mask: Mask) -> str:
    """Return the hex digest of a mask's numbers as little-endian float32."""
    return hashlib.sha256(mask.weights.astype("<f4").tobytes()).hexdigest()


def folded_entries(masks: Sequence[Given], *, source_sha256: str) -> dict[str, str]:
    """Return the metadata of a folded model: with the source, all that it takes to fold again.

    Weights are base64 of little-endian float32.
    """
    return {KIND: "folded", FOLDED: given_text(masks), SOURCE: source_sha256, VERSION: version("cloakonnx")}


def given_text(masks: Sequence[Given]) -> str:
    """Encode the masks that were folded: compact JSON with sorted keys."""
    listed = [_numbered(mask) if isinstance(mask, Mask) else asdict(mask) for mask in masks]
    return json.dumps(listed, sort_keys=True, separators=(",", ":"))


def _numbered(mask: Mask) -> dict[str, Any]:
    return {
        **({"granularity": mask.granularity} if mask.on_weight else {"feature_axis": mask.feature_axis}),
        "shape": list(mask.weights.shape),
        "tap": mask.tap,
        "weights": base64.b64encode(mask.weights.astype("<f4").tobytes()).decode(),
    }


def folded_masks(model: onnx.ModelProto) -> list[Given]:
    """Return the masks that a folded model was made with, in the order they were given.

    Raises:
        ModelError: the entry is not there or is not what cloakonnx writes.
    """
    try:
        return [_given(fields) for fields in json.loads(entries(model)[FOLDED])]
    except (KeyError, TypeError, ValueError, RecursionError, MaskError):
        raise ModelError(f"the metadata entry {FOLDED!r} is damaged: it is not a list of masks") from None


def _given(fields: dict[str, Any]) -> Given:
    if "folded_sha256" in fields:
        return _in_weight(fields)
    tap, text, unit = fields["tap"], fields["weights"], fields.get("granularity")
    axis = fields["feature_axis"] if unit is None else None
    if type(tap) is not str or len(fields) != 4 or (unit not in ON_WEIGHTS and type(axis) is not int):
        raise TypeError
    weights = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    return Mask(tap, weights.reshape([int(size) for size in fields["shape"]]), axis, unit)


def _in_weight(fields: dict[str, Any]) -> InWeight:
    found = InWeight(**(fields | {"shape": tuple(fields["shape"])}))
    whole = (*found.shape, found.removed)
    if type(found.tap) is not str or found.granularity not in ON_WEIGHTS or not found.shape:
        raise TypeError
    if any(type(each) is not int or each < 0 for each in whole) or found.removed > found.size or not found.size:
        raise ValueError
    if any(re.fullmatch("[0-9a-f]{64}", each) is None for each in (found.sha256, found.folded_sha256)):
        raise ValueError
    return found


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
