"""Masks of an analysis: as base64 in its text, or, where they are large, in an ``.npz`` beside it that it names."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloakonnx.data.arrays import load_arrays
from cloakonnx.errors import AnalysisError, CloakError
from cloakonnx.files import pack_npz
from cloakonnx.graph.file.diff import file_sha256
from cloakonnx.graph.masks.mask import ON_WEIGHTS, Mask
from cloakonnx.kinds import irregular
from cloakonnx.records import Entries
from cloakonnx.text import escaped

_MOST_INSIDE = 1_000_000
"""Bytes of the masks that an analysis holds itself."""

_MOST_HEADER = 1 << 12
"""Bytes that an array takes in an ``.npz`` beside its numbers: names, and the header, which lists the shape."""

_LONGEST_NAME = 255


def are_large(masks: Sequence[Mask]) -> bool:
    """Whether masks go into a file of their own."""
    return sum(mask.weights.nbytes for mask in masks) > _MOST_INSIDE


def inside(masks: Sequence[Mask]) -> dict[str, Any]:
    """Return the entries of an analysis that hold its masks."""
    data = (base64.b64encode(mask.weights.astype("<f4").tobytes()).decode() for mask in masks)
    return {"masks": [_described(mask) | {"data": each} for mask, each in zip(masks, data, strict=True)]}


def packed(masks: Sequence[Mask]) -> bytes:
    """Return masks as an ``.npz``; nothing in it is compressed, for learned weights hardly are."""
    stream = io.BytesIO()
    arrays = {_array(number): mask.weights.astype("<f4") for number, mask in enumerate(masks)}
    pack_npz(stream, arrays, compressed=False)
    return stream.getvalue()


def named(masks: Sequence[Mask], name: str, content: bytes) -> dict[str, Any]:
    """Return the entries of an analysis whose masks are in a file beside it.

    Args:
        masks: The masks.
        name: Of the file.
        content: Of the file, see :func:`packed`.
    """
    return {
        "masks_file": {"name": name, "sha256": hashlib.sha256(content).hexdigest()},
        "masks": [_described(mask) | {"array": _array(number)} for number, mask in enumerate(masks)],
    }


def _described(mask: Mask) -> dict[str, Any]:
    return {
        "tap": mask.tap,
        **({"granularity": mask.granularity} if mask.on_weight else {"feature_axis": mask.feature_axis}),
        "shape": list(mask.weights.shape),
    }


def _array(number: int) -> str:
    return f"mask_{number}"


@dataclass(frozen=True)
class _Listed:
    """A mask as the analysis lists it, its numbers apart."""

    tap: str
    feature_axis: int | None
    granularity: str | None
    shape: tuple[int, ...]

    def mask(self, weights: np.ndarray) -> Mask:
        return Mask(self.tap, weights.reshape(self.shape), self.feature_axis, self.granularity)


@dataclass(frozen=True)
class MasksBeside:
    """Masks whose numbers are in a file beside the analysis.

    Attributes:
        name: Of the file.
        sha256: Of its bytes.
        arrays: Name of each array in it, and the mask that it is.
    """

    name: str
    sha256: str
    arrays: tuple[tuple[str, _Listed], ...]

    def read(self, folder: Path | None, analysis: str) -> tuple[Mask, ...]:
        """Return the masks.

        Args:
            folder: Where the analysis is; None where it is only a text.
            analysis: Name of the analysis, for messages.

        Raises:
            AnalysisError: the file is missing, leads out of the folder, is not the one that the analysis names, or does
                not hold the masks that it lists.
        """
        if folder is None:
            raise AnalysisError(
                f"{analysis} has its masks in the file {self.name} beside it; read both from there, with load_analysis"
            )
        path = folder / self.name
        self._check(path, analysis)
        try:
            return tuple(self._masks(path))
        except CloakError as error:
            raise AnalysisError(f"cannot read the masks of {analysis}: {error}") from None

    def _check(self, path: Path, analysis: str) -> None:
        if not path.exists():
            raise AnalysisError(
                f"the masks of {analysis} are in {self.name}, which is not beside it; copy that there, or make both "
                "again with cloakonnx learn"
            )
        odd = irregular(path, follow=False) or ("a folder" if path.is_dir() else None)
        if odd is not None:
            raise AnalysisError(f"cannot read the masks of {analysis}: {path} is {odd}, not a file")
        most = sum(math.prod(listed.shape) * 4 + _MOST_HEADER for _, listed in self.arrays)
        try:
            is_other = path.stat().st_size > most or file_sha256(path) != self.sha256
        except OSError as error:
            raise AnalysisError(f"cannot read {path}: {error.strerror or error}") from None
        if is_other:
            raise AnalysisError(
                f"{path} is not the file of masks that {analysis} names (its sha256 is another): one of them was "
                "changed, or another run wrote it; make both again with cloakonnx learn"
            )

    def _masks(self, path: Path) -> list[Mask]:
        most = max(math.prod(listed.shape) for _, listed in self.arrays) * 4 + _MOST_HEADER
        found = load_arrays(path, [array for array, _ in self.arrays], most=most)
        for array, listed in self.arrays:
            if found[array].dtype != np.dtype("<f4") or found[array].shape != listed.shape:
                raise AnalysisError(
                    f"the array {array!r} of {path.name} is {found[array].dtype} of shape {found[array].shape}, but "
                    f"the mask of {listed.tap!r} is float32 of shape {listed.shape}"
                )
        return [listed.mask(found[array]) for array, listed in self.arrays]


def listed(entries: Entries) -> tuple[tuple[Mask, ...], MasksBeside | None]:
    """Return the masks that an analysis holds, or where they are; raises ValueError or MaskError for damaged ones."""
    each = entries.objects("masks")
    if not each:
        raise ValueError("it holds no mask")
    if "masks_file" not in entries.all():
        return tuple(map(_held, each)), None
    file = entries.object("masks_file")
    name, sha256 = file.text("name"), file.text("sha256")
    fault = _fault(name)
    if fault is not None:
        raise ValueError(f"masks_file.name {name[:80]!r} {fault}")
    if re.fullmatch("[0-9a-f]{64}", sha256) is None:
        raise ValueError("masks_file.sha256 is not 64 hex digits")
    arrays = tuple((mask.text("array"), _listed(mask)) for mask in each)
    if len({array for array, _ in arrays}) < len(arrays):
        raise ValueError("two masks have the same array")
    return (), MasksBeside(name, sha256, arrays)


def _fault(name: str) -> str | None:
    """Return why a name is not that of a file beside the analysis, None where it is."""
    if not name or len(name.encode(errors="replace")) > _LONGEST_NAME or escaped(name) != name:
        return "is empty, too long, or has characters that can't be seen"
    if any(sign in name for sign in "/\\:"):
        return "leads out of the folder of the analysis"
    return "is hidden" if name.startswith(".") else None


def _held(entries: Entries) -> Mask:
    weights = np.frombuffer(base64.b64decode(entries.text("data"), validate=True), "<f4")
    return _listed(entries, count=len(weights)).mask(weights)


def _listed(entries: Entries, *, count: int | None = None) -> _Listed:
    """Return a mask as it is listed; ``count``: how many weights are there, where that is known."""
    sizes = entries.numbers("shape")
    shape = tuple(int(size) for size in sizes)
    if not shape or shape != sizes or min(shape) < 1 or count not in {None, math.prod(shape)}:
        raise ValueError(f"a mask has {count or 'some'} weights, which do not fit its shape {list(sizes)}")
    unit = entries.text_if_there("granularity")
    if unit is not None and unit not in ON_WEIGHTS:
        raise ValueError(f"{unit!r} is no granularity of masks on weights")
    axis = entries.optional_whole("feature_axis") if unit is None else None
    return _Listed(entries.text("tap"), axis, unit, shape)
