"""Masks in, masks out, on files: what ``apply`` and ``strip`` do once they know the masks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from cloakonnx.errors import CheckError, OutputError
from cloakonnx.files import check_output
from cloakonnx.graph.file.diff import file_sha256
from cloakonnx.graph.file.edit import (
    Edit,
    canonical_buffer,
    copy_external,
    edit_bytes,
    edited,
    is_editable,
    write_pieces,
)
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks import metadata
from cloakonnx.graph.masks.insert import insertion
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.strip import removal, stripped_sha256


def plan(model: Model, masks: Sequence[Mask]) -> Edit:
    """Return the edit that puts masks into a model; raises as :func:`insertion` does."""
    if model.unwritten is not None or is_editable(model.buf):  # an edit leaves what can be edited again
        return insertion(model, masks, stripped_sha256=model.sha256)
    return insertion(model, masks, stripped_sha256=hashlib.sha256(canonical_buffer(model)).hexdigest())


def hardened(model: Model, masks: Sequence[Mask]) -> Model:
    """Return the hardened model in memory, to run or look at; nothing is written. Raises as :func:`insertion` does."""
    return edited(model, plan(model, masks))


def recording_external(model: Model, edit: Edit) -> Edit:
    """Return an edit that also records size and digest of each external file that the edited model refers to.

    What a model that was hardened before records of them stays as it is.
    """
    if model.folder is None or metadata.EXTERNAL in metadata.entries(model.proto):
        return edit
    files = {
        location: metadata.ExternalFile(file_sha256(model.folder / location), (model.folder / location).stat().st_size)
        for location in edited(model, edit).external_files
    }
    if not files:
        return edit
    return dataclasses.replace(edit, metadata={**edit.metadata, metadata.EXTERNAL: metadata.external_text(files)})


def harden_file(
    model: Model, masks: Sequence[Mask], output: str | Path, *, force: bool = False, hash_external: bool = False
) -> None:
    """Write the hardened model, atomically; the source is only read.

    External data stays where it is when the output is beside the source, and is copied when not. ``hash_external``
    records its digests in the metadata.

    Raises:
        OutputError: the output exists, is the input, or can't be written.
        ModelError, TapError, MaskError: as :func:`insertion`.
    """
    output = Path(output)
    check_target(model, output, force=force)
    edit = plan(model, masks)
    if hash_external:
        edit = recording_external(model, edit)
    buf = canonical_buffer(model)
    copy_external(model, output.absolute().parent, force=force)
    write_pieces(output, buf, edit_bytes(buf, edit))


def strip_file(model: Model, output: str | Path, *, force: bool = False) -> None:
    """Write the model without its masks: the file that it was hardened from, to the byte.

    Raises:
        OutputError: the output exists, is the input, or can't be written.
        ModelError: the model carries no masks.
        CheckError: the result would not be the recorded source; the model was changed after it was hardened.
    """
    output = Path(output)
    check_target(model, output, force=force)
    edit = removal(model)
    recorded = metadata.entries(model.proto).get(metadata.STRIPPED)
    found = stripped_sha256(model)
    if found != recorded:
        raise CheckError(
            f"{model.name} without its masks has sha256 {found[:16]}..., but {str(recorded)[:16]}... was recorded when "
            "it was hardened: the model was changed since; nothing was written (verify --source names the change)"
        )
    copy_external(model, output.absolute().parent, force=force)
    content = model.content
    write_pieces(output, content, edit_bytes(content, edit))


def check_target(model: Model, output: Path, *, force: bool) -> None:
    """Check an output made from a model; no ``force`` allows what would overwrite the weights that it refers to.

    Raises:
        OutputError: the output exists, is the input, is a data file of the model, or can't be written.
    """
    folders = {output.absolute().parent, *([model.folder] if model.folder else [])}
    data = [folder / location for folder in folders for location in model.external_files]
    target = output.absolute().parent.resolve() / output.name
    if any(file.parent.resolve() / file.name == target for file in data):
        raise OutputError(f"the output {output} is a data file of {model.name}; name another with -o")
    check_output(output, inputs=[model.path] if model.path else [], force=force)
