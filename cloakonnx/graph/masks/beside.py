"""Masks in a file of external data beside the hardened model, where the model keeps its weights so, too."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from cloakonnx.errors import OutputError
from cloakonnx.files import atomic, check_replaceable
from cloakonnx.graph.file.companions import Digest
from cloakonnx.graph.file.edit import Edit
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.file.names import unsafe_name
from cloakonnx.remote import exists

_MOST_INSIDE = 1_000_000
"""Most bytes of masks that the model file itself holds, as in an analysis."""

_LEAST = 4096
"""Bytes of a mask that is moved out, and what offsets are multiples of, so that the file can be mapped."""


@dataclass(frozen=True)
class MasksFile:
    """A file of masks.

    Attributes:
        path: Where it goes.
        location: Its name in the model.
        tensors: What is in it, each from the next multiple of 4,096 bytes on.
    """

    path: Path
    location: str
    tensors: tuple[bytes, ...]

    @property
    def digest(self) -> Digest:
        """Sha256 and length of the file."""
        digest, count = hashlib.sha256(), 0
        for block in self.blocks():
            digest.update(block)
            count += len(block)
        return Digest(digest.hexdigest(), count)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content."""
        at = 0
        for data, offset in zip(self.tensors, offsets(self.tensors), strict=True):
            yield bytes(offset - at)
            yield data
            at = offset + len(data)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Write the file when the block ends well, which writes the model: a failure leaves both as they were."""
        with atomic(self.path) as stream:
            for block in self.blocks():
                stream.write(block)
            yield


def offsets(tensors: tuple[bytes, ...]) -> list[int]:
    """Return where each tensor begins in the file."""
    found, at = [], 0
    for data in tensors:
        at = -(-at // _LEAST) * _LEAST
        found.append(at)
        at += len(data)
    return found


def moved_out(model: Model, edit: Edit, output: Path, *, force: bool) -> tuple[Edit, MasksFile | None]:
    """Return an edit whose large masks are external data, and their file; the edit itself and None where none are.

    Masks go into a file of their own where the model has external data and they take more than 1 MB.

    Args:
        model: What is edited.
        edit: The edit.
        output: The hardened model; the file goes beside it, ``NAME.masks.bin`` for ``NAME.onnx``.
        force: Whether a file there may be overwritten.

    Raises:
        OutputError: the file exists and ``force`` was not given, or the output's name makes a name for it under which
            nothing is written.
    """
    large = [tensor for tensor in edit.add_initializers if len(tensor.raw_data) >= _LEAST]
    if not model.external_files or sum(len(tensor.raw_data) for tensor in large) <= _MOST_INSIDE:
        return edit, None
    location = _location(model, output)
    path = output.absolute().parent / location
    check_replaceable(path)
    if exists(path) and not force:
        raise OutputError(
            f"{path} exists already, and the masks of {output.name} go there; name another output with {{output}}",
            parameter="output",
        )
    file = MasksFile(path, location, tuple(tensor.raw_data for tensor in large))
    places = dict(zip((tensor.name for tensor in large), offsets(file.tensors), strict=True))
    added = [_outside(tensor, location, places.get(tensor.name)) for tensor in edit.add_initializers]
    return dataclasses.replace(edit, add_initializers=tuple(added)), file


def _location(model: Model, output: Path) -> str:
    """Return a name beside the output that is none of the model's own files of external data."""
    stem, number, taken = output.name.removesuffix(".onnx"), 1, set(model.external_files)
    location = f"{stem}.masks.bin"
    while location in taken:
        number += 1
        location = f"{stem}.masks{number}.bin"
    why = unsafe_name(location)
    if why is not None:
        raise OutputError(
            f"the masks of {output.name} would go into {location!r} beside it, which {why}; name another "
            "output with {output}",
            parameter="output",
        )
    return location


def _outside(tensor: onnx.TensorProto, location: str, offset: int | None) -> onnx.TensorProto:
    if offset is None:
        return tensor
    made = onnx.TensorProto()
    made.CopyFrom(tensor)
    made.ClearField("raw_data")
    made.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", len(tensor.raw_data))):
        made.external_data.add(key=key, value=str(value))
    return made
