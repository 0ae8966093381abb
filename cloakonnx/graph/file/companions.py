"""The external data of a model that is written: copied beside it where that has to be, and its digests taken.

A file's name comes from the model, which is not trusted, and what is copied is written under that name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cloakonnx.errors import ModelError, OutputError
from cloakonnx.files import atomic, check_replaceable
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.file.names import unsafe_name
from cloakonnx.remote import fetched, remove
from cloakonnx.text import shown

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Copy:
    """A file of external data that is copied.

    Attributes:
        location: Its name in the model.
        source: Where it is.
        target: Where it goes.
        size: Bytes.
        folder: The output's folder.
        is_shared: Whether the file has other names, which may be anywhere: it is a hard link.
    """

    location: str
    source: Path
    target: Path
    size: int
    folder: Path
    is_shared: bool

    def __str__(self) -> str:
        """Return what is copied, in words."""
        links = ", a hard link to a file that has other names as well" if self.is_shared else ""
        return f"external data {shown(self.location)} ({self.size:,} bytes{links}) to {self.folder}"


@dataclass(frozen=True)
class Digest:
    """A file's sha256, in hex digits, and its length in bytes."""

    sha256: str
    size: int


def is_elsewhere(model: Model, folder: Path) -> bool:
    """Whether an output in a folder needs copies of a model's external data."""
    return model.folder is not None and folder.resolve() != model.folder.resolve()


def check_names(model: Model, locations: Sequence[str]) -> None:
    """Check that external data may be written under the names that it has.

    Raises:
        ModelError: a file is hidden, configuration or code by its name.
    """
    for location in locations:
        why = unsafe_name(location)
        if why is not None:
            raise ModelError(
                f"{model.name}: external data '{shown(location)}' {why}, so it is not copied to another folder; "
                "write the output beside the model, or save the model with its data under another name"
            )


class Companions:
    """The files of external data that go with an output.

    Args:
        model: What the output is made from.
        locations: The files that the output refers to.
        folder: The output's folder.
        force: Whether files with other content may be overwritten.

    Raises:
        ModelError: a file would be written under a name that nothing is written under.
        OutputError: a file can't be written, or has another content and ``force`` was not given.
    """

    def __init__(self, model: Model, locations: Sequence[str], folder: Path, *, force: bool) -> None:
        source = model.folder or Path()
        self._files = {} if model.folder is None else {location: source / location for location in locations}
        self._model = model
        self._made: list[Path] = []
        self.copies: tuple[Copy, ...] = ()
        if is_elsewhere(model, folder):
            check_names(model, locations)
            self.copies = tuple(self._planned(model, folder, force=force))

    def _planned(self, model: Model, folder: Path, *, force: bool) -> Iterator[Copy]:
        for location, source in self._files.items():
            target = folder / location
            _check_target(target, folder)
            if _same_content(source, fetched(target)):
                continue
            if target.exists() and not force:
                raise OutputError(
                    f"{target} exists already with other content; choose another folder, or use {{force}}",
                    parameter="force",
                )
            about = source.stat()
            yield Copy(location, source, target, about.st_size, folder, about.st_nlink > 1)

    def copy(
        self,
        *,
        digests: bool,
        on_copy: Callable[[Copy], None] = lambda copy: None,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> Mapping[str, Digest]:
        """Copy what has to be, and return the digest of each file, or of none.

        Args:
            digests: Whether to read the files that are not copied for their digests.
            on_copy: Called before a file is copied.
            on_progress: Called with the bytes that were read.

        Raises:
            OutputError: a write fails.
        """
        copies = {copy.location: copy for copy in self.copies}
        found: dict[str, Digest] = {}
        done = 0
        for location, path in self._files.items():
            if location in copies:
                on_copy(copies[location])
                found[location] = self._copied(copies[location], lambda read, done=done: on_progress(done + read))  # type: ignore[misc]
            elif digests:
                found[location] = digest_of(path, lambda read, done=done: on_progress(done + read))  # type: ignore[misc]
            done += found[location].size if location in found else 0
        return found if digests else {}

    def undo(self) -> None:
        """Remove what was copied where nothing was before, and folders that were made for it."""
        for path in reversed(self._made):
            with suppress(OSError, OutputError):
                path.rmdir() if path.is_dir() else remove(path)

    def _copied(self, copy: Copy, on_progress: Callable[[int], None]) -> Digest:
        is_new = not copy.target.exists()
        try:
            missing = [each for each in copy.target.parents if not each.exists()]
            for each in reversed(missing):
                each.mkdir()
                self._made.append(each)
        except OSError as error:
            raise OutputError(f"cannot write {copy.target}: {error.strerror or error}") from None
        with atomic(copy.target) as writer:
            digest = digest_of(copy.source, on_progress, writer.write)
            self._model.check_unchanged()
        if is_new:
            self._made.append(copy.target)
        return digest


def digest_of(
    path: Path,
    on_progress: Callable[[int], None] = lambda read: None,
    on_block: Callable[[bytes], object] = lambda block: None,
) -> Digest:
    """Return a file's digest, read block by block.

    Args:
        path: The file.
        on_progress: Called with the bytes that were read.
        on_block: Called with each block.

    Raises:
        ModelError: it can't be read.
    """
    digest, count = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                on_block(block)
                count += len(block)
                on_progress(count)
    except FileNotFoundError:
        raise ModelError(f"{path} is gone; it was there when the model was read") from None
    return Digest(digest.hexdigest(), count)


def _check_target(target: Path, folder: Path) -> None:
    """Check that a copy goes where its name says: through no link, and over nothing but a file."""
    for each in target.parents:
        if each == folder:
            break
        if each.is_symlink() or (each.exists() and not each.is_dir()):
            raise OutputError(f"cannot write {target}: {each} is no folder of its own; choose another folder")
    check_replaceable(target)
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder; choose another one")


def _same_content(first: Path, second: Path) -> bool:
    if not second.is_file() or first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as a, second.open("rb") as b:
        while block := a.read(_BLOCK):
            if block != b.read(_BLOCK):
                return False
    return True
