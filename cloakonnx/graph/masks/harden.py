"""Put masks into files and take them out: what ``apply`` and ``strip`` do once the masks are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cloakonnx.errors import CheckError, ModelError, OutputError
from cloakonnx.files import check_output
from cloakonnx.graph.file.companions import Companions, Copy, Digest
from cloakonnx.graph.file.edit import (
    Edit,
    canonical_buffer,
    canonical_sha256,
    edit_bytes,
    edited,
    is_editable,
    size,
    write_pieces,
)
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks import metadata
from cloakonnx.graph.masks.beside import MasksFile, moved_out
from cloakonnx.graph.masks.insert import insertion
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.strip import removal, stripped_sha256
from cloakonnx.remote import local
from cloakonnx.text import shown


def plan(model: Model, masks: Sequence[Mask]) -> Edit:
    """Return the edit that puts masks into a model; raises as :func:`insertion` does."""
    if model.unwritten is not None or is_editable(model.buf):  # an edit leaves what can be edited again
        return insertion(model, masks, stripped_sha256=model.sha256)
    return insertion(model, masks, stripped_sha256=canonical_sha256(model))


def hardened(model: Model, masks: Sequence[Mask]) -> Model:
    """Return the hardened model in memory, to run or look at; nothing is written. Raises as :func:`insertion` does."""
    return edited(model, plan(model, masks))


@dataclass(frozen=True)
class Watch:
    """What is called while external data is read and copied.

    Attributes:
        copies: Called before a file is copied.
        progress: Called with the bytes that were read of all files.
    """

    copies: Callable[[Copy], None] = lambda copy: None
    progress: Callable[[int], None] = lambda read: None


def harden_file(
    model: Model,
    masks: Sequence[Mask],
    output: str | Path,
    *,
    force: bool = False,
    hash_external: bool = True,
    watch: Watch | None = None,
) -> None:
    """Write the hardened model, atomically; the source is only read.

    External data stays where it is when the output is beside the source, and is copied when not. Where there is some,
    masks of more than 1 MB are external data, too: ``NAME.masks.bin`` beside the output ``NAME.onnx``.

    Args:
        model: The source.
        masks: What is put in.
        output: The hardened model.
        force: Whether the output, and copies of external data, may be overwritten.
        hash_external: Whether to record digests of the external data in the metadata, which takes reading all of it.
        watch: What is called while external data is read and copied.

    Raises:
        OutputError: the output exists, is the input, or can't be written.
        ModelError, TapError, MaskError: as :func:`insertion`; ModelError also where a file changes meanwhile, or where
            external data would be copied under a name that nothing is written under.
        CheckError: the external data is not what an earlier hardening recorded.
    """
    output = local(output, writes=True)
    check_target(model, output, force=force)
    edit, beside = moved_out(model, plan(model, masks), output, force=force)
    check_size(model, edit, "take masks of fewer numbers (--granularity kernel), or apply with --float16-masks")
    write_edited(model, edit, output, force=force, hash_external=hash_external, watch=watch, beside=beside)


_MOST_BYTES = 2**31 - 1


def check_size(model: Model, edit: Edit, way_out: str) -> None:
    """Check that an edited file is not too large to be read; raises ModelError, with what to do, where it is."""
    buf = canonical_buffer(model)
    if size(edit_bytes(buf, edit)) > _MOST_BYTES >= len(buf):
        raise ModelError(f"{model.name}: with its masks the model file would be over 2 GB; {way_out}")


def write_edited(
    model: Model,
    edit: Edit,
    output: Path,
    *,
    force: bool,
    hash_external: bool,
    watch: Watch | None = None,
    beside: MasksFile | None = None,
) -> None:
    """Write an edited model with its external data, and the digests of these; raises as :func:`harden_file` does."""
    buf = canonical_buffer(model)
    own = None if beside is None else beside.location
    used = [location for location in edited(model, edit).external_files if location != own]
    companions = Companions(model, used, output.absolute().parent, force=force)
    with _copied(companions, watch, digests=hash_external) as digests:
        recording = _recording(model, edit, digests, beside if hash_external else None)
        with nullcontext() if beside is None else beside.written():
            write_pieces(output, model, buf, edit_bytes(buf, recording))


@contextmanager
def _copied(companions: Companions, watch: Watch | None, *, digests: bool) -> Iterator[Mapping[str, Digest]]:
    """Copy external data before a model is written; remove the copies again where that fails."""
    watch = watch or Watch()
    try:
        yield companions.copy(digests=digests, on_copy=watch.copies, on_progress=watch.progress)
    except BaseException:
        companions.undo()
        raise


def _recording(model: Model, edit: Edit, digests: Mapping[str, Digest], beside: MasksFile | None) -> Edit:
    """Return an edit that also records digests of external files; a record that is there stays, and must be right."""
    recorded = metadata.external_recorded(model.proto)
    if recorded is not None:
        check_recorded(model, digests)
        if beside is None:
            return edit
    found = {} if recorded is not None else dict(digests)
    found |= {} if beside is None else {beside.location: beside.digest}
    files = (recorded or {}) | {name: metadata.ExternalFile(each.sha256, each.size) for name, each in found.items()}
    if not files:
        return edit
    return dataclasses.replace(edit, metadata={**edit.metadata, metadata.EXTERNAL: metadata.external_text(files)})


def check_recorded(model: Model, digests: Mapping[str, Digest]) -> None:
    """Check external data against what a hardened model's metadata records of it; raises CheckError."""
    for location, wanted in (metadata.external_recorded(model.proto) or {}).items():
        found = digests.get(location)
        if found is not None and (found.sha256, found.size) != (wanted.sha256, wanted.size):
            raise CheckError(
                f"{model.name}: external data '{shown(location)}' is not as the metadata records it: it was changed "
                "since the model was hardened; nothing was written"
            )


def strip_file(model: Model, output: str | Path, *, force: bool = False, watch: Watch | None = None) -> None:
    """Write the model without its masks: the file that it was hardened from, to the byte.

    External data that is copied is compared with what the metadata records of it.

    Raises:
        OutputError: the output exists, is the input, or can't be written.
        ModelError: the model carries no masks, a file changes meanwhile, or external data would be copied under a name
            that nothing is written under.
        CheckError: the result would not be the recorded source; the model was changed after it was hardened.
    """
    output = local(output, writes=True)
    check_target(model, output, force=force)
    edit = removal(model)
    check_source(model)
    content = model.content
    companions = Companions(model, edited(model, edit).external_files, output.absolute().parent, force=force)
    with _copied(companions, watch, digests=bool(companions.copies)) as digests:
        check_recorded(model, digests)
        write_pieces(output, model, content, edit_bytes(content, edit))


def check_source(model: Model) -> None:
    """Check that a model without its masks is the source that it records.

    Raises:
        ModelError: the model carries no masks, or they are folded into its weights.
        CheckError: it is another one; the model was changed after it was hardened.
    """
    recorded = metadata.entries(model.proto).get(metadata.STRIPPED)
    found = stripped_sha256(model)
    if found != recorded:
        raise CheckError(
            f"{model.name} without its masks has sha256 {found[:16]}..., but {str(recorded)[:16]}... was recorded when "
            "it was hardened: the model was changed since; nothing was written (verify {source} names the change)",
            parameter="source",
        )


def check_target(model: Model, output: Path, *, force: bool) -> None:
    """Check an output made from a model; no ``force`` allows what would overwrite the weights that it refers to.

    Raises:
        OutputError: the output exists, is the input, is a data file of the model, or can't be written.
    """
    folders = {output.absolute().parent, *([model.folder] if model.folder else [])}
    data = [folder / location for folder in folders for location in model.external_files]
    target = output.absolute().parent.resolve() / output.name
    if any(file.parent.resolve() / file.name == target for file in data):
        raise OutputError(
            f"the output {output} is a data file of {model.name}; name another with {{output}}", parameter="output"
        )
    check_output(output, inputs=[model.path] if model.path else [], force=force)
