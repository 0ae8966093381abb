"""Masks of an analysis: as base64 in its text, or, where they are large, in an ``.npz`` beside it that it names."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cloakonnx.data.arrays import load_arrays
from cloakonnx.errors import AnalysisError, CloakError
from cloakonnx.files import pack_npz
from cloakonnx.graph.file.diff import file_sha256
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.kinds import irregular
from cloakonnx.remote import fetched
from cloakonnx.scoring.stored import BesideRecord, StoredMask
from cloakonnx.text import escaped

_MOST_INSIDE = 1_000_000
"""Bytes of the masks that an analysis holds itself."""

_MOST_HEADER = 1 << 12
"""Bytes that an array takes in an ``.npz`` beside its numbers: names, and the header, which lists the shape."""

_LONGEST_NAME = 255


def are_large(masks: Sequence[Mask]) -> bool:
    """Whether masks go into a file of their own."""
    return sum(mask.weights.nbytes for mask in masks) > _MOST_INSIDE


def inside(masks: Sequence[Mask]) -> tuple[StoredMask, ...]:
    """Return the records of an analysis that hold its masks."""
    return tuple(StoredMask.of(mask, data=mask.weights.astype("<f4").tobytes()) for mask in masks)


def packed(masks: Sequence[Mask]) -> bytes:
    """Return masks as an ``.npz``; nothing in it is compressed, for learned weights hardly are."""
    stream = io.BytesIO()
    arrays = {_array(number): mask.weights.astype("<f4") for number, mask in enumerate(masks)}
    pack_npz(stream, arrays, compressed=False)
    return stream.getvalue()


def named(masks: Sequence[Mask]) -> tuple[StoredMask, ...]:
    """Return the records of masks whose numbers are in a file beside the analysis, see :func:`packed`."""
    return tuple(StoredMask.of(mask, array=_array(number)) for number, mask in enumerate(masks))


def _array(number: int) -> str:
    return f"mask_{number}"


@dataclass(frozen=True)
class MasksBeside:
    """Masks whose numbers are in a file beside the analysis.

    Attributes:
        file: The file.
        masks: Each names its array in it.

    Raises:
        ValueError: a name that leads elsewhere, or an array that two masks have.
    """

    file: BesideRecord
    masks: tuple[StoredMask, ...]

    def __post_init__(self) -> None:
        """Check the names."""
        fault = _fault(self.file.name)
        if fault is not None:
            raise ValueError(f"masks_file.name {self.file.name[:80]!r} {fault}")
        if len({mask.array for mask in self.masks}) < len(self.masks):
            raise ValueError("two masks have the same array")

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
                f"{analysis} has its masks in the file {self.file.name} beside it; read both from there, with "
                "cloakonnx.read"
            )
        path = fetched(folder / self.file.name)
        self._check(path, analysis)
        try:
            return tuple(self._masks(path))
        except CloakError as error:
            raise AnalysisError(f"cannot read the masks of {analysis}: {error}") from None

    def _check(self, path: Path, analysis: str) -> None:
        if not path.exists():
            raise AnalysisError(
                f"the masks of {analysis} are in {self.file.name}, which is not beside it; copy that there, or make "
                "both again with cloakonnx learn"
            )
        odd = irregular(path, follow=False) or ("a folder" if path.is_dir() else None)
        if odd is not None:
            raise AnalysisError(f"cannot read the masks of {analysis}: {path} is {odd}, not a file")
        most = sum(math.prod(mask.shape) * 4 + _MOST_HEADER for mask in self.masks)
        try:
            is_other = path.stat().st_size > most or file_sha256(path) != self.file.sha256
        except OSError as error:
            raise AnalysisError(f"cannot read {path}: {error.strerror or error}") from None
        if is_other:
            raise AnalysisError(
                f"{path} is not the file of masks that {analysis} names (its sha256 is another): one of them was "
                "changed, or another run wrote it; make both again with cloakonnx learn"
            )

    def _masks(self, path: Path) -> list[Mask]:
        most = max(math.prod(mask.shape) for mask in self.masks) * 4 + _MOST_HEADER
        found = load_arrays(path, [str(mask.array) for mask in self.masks], most=most)
        for mask in self.masks:
            weights = found[str(mask.array)]
            if weights.dtype != np.dtype("<f4") or weights.shape != mask.shape:
                raise AnalysisError(
                    f"the array {mask.array!r} of {path.name} is {weights.dtype} of shape {weights.shape}, but "
                    f"the mask of {mask.tap!r} is float32 of shape {mask.shape}"
                )
        return [mask.mask(found[str(mask.array)]) for mask in self.masks]


def held(masks: Sequence[StoredMask]) -> tuple[Mask, ...]:
    """Return the masks whose numbers are in the analysis itself; raises MaskError for numbers that are none."""
    return tuple(mask.mask(np.frombuffer(cast(bytes, mask.data), "<f4")) for mask in masks)


def _fault(name: str) -> str | None:
    """Return why a name is not that of a file beside the analysis, None where it is."""
    if not name or len(name.encode(errors="replace")) > _LONGEST_NAME or escaped(name) != name:
        return "is empty, too long, or has characters that can't be seen"
    if any(sign in name for sign in "/\\:"):
        return "leads out of the folder of the analysis"
    return "is hidden" if name.startswith(".") else None
