"""A step of a hardening, and the folder that keeps what finished ones have made.

A stage is as it was before when its settings, the digests of all that it reads, the versions and the digests of the
files it has written are. So a second run does only what has changed, and an interrupted one goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cloakonnx import remote
from cloakonnx.engine.folder import is_bad_input, unfinished
from cloakonnx.errors import OutputError
from cloakonnx.files import check_folder, check_replaceable, check_unclaimed, claimed, write_text
from cloakonnx.graph.file.diff import file_sha256
from cloakonnx.json_files import installed_versions

BESIDE = "beside"
"""What a stage leaves under this name are further files of the folder, known only once they are written."""

_RECORDS = ".stages"


class Duration(NamedTuple):
    """Seconds that a stage takes at most, and is expected to take where that was measured."""

    at_most: float
    expected: float | None = None


@dataclass(frozen=True)
class WorkStage:
    """One step.

    Attributes:
        name: Of the step.
        run: Does it; takes whether it goes on from an interrupted run, returns what it leaves to later stages; JSON.
        settings: What decides its result beside the files it reads; JSON.
        reads: Files of the folder.
        writes: Files of the folder.
        choice: Settings that decide only which of its results is taken: work that was interrupted serves others too.
        is_view: Whether its files only show what others hold, and may be written again without being asked.
        seconds: Estimates how long it takes; None where that is a matter of seconds.
    """

    name: str
    run: Callable[[bool], Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    choice: Mapping[str, Any] = field(default_factory=dict)
    is_view: bool = False
    seconds: Callable[[], Duration] | None = None


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a hardening that has not run.

    Attributes:
        name: Of the stage.
        cached: Whether its results are there.
        seconds: What it takes at most, measured; None where that is a matter of seconds.
        expected: What it is expected to take, from attacks on the first samples; None where that was not measured.
        writes: Its files.
    """

    name: str
    cached: bool
    seconds: float | None
    expected: float | None
    writes: tuple[str, ...]


class ResultFolder:
    """The outputs of one hardening, and records of how they came about.

    Args:
        path: Where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = installed_versions()
        self._digests: dict[tuple[str, int, int, int], str] = {}

    def file(self, name: str) -> Path:
        """Return where an output is."""
        return self.path / name

    def check_place(self) -> None:
        """Check, before any work is done, that the folder can be made or written to, and that no other run works in it.

        Raises:
            OutputError: as :func:`cloakonnx.files.check_folder`, or another run works in it.
        """
        check_folder(self.path)
        check_unclaimed(self._claim)

    @property
    def _claim(self) -> Path:
        """What a run holds, for itself alone."""
        return self.path / _RECORDS / "run"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder, and hold it for one run; where that fails and leaves nothing of use it is removed again.

        Raises:
            OutputError: it can't be made, or another run works in it.
        """
        folders = (self.path.absolute(), *self.path.absolute().parents)
        made = [each for each in folders if not each.exists()]
        try:
            (self.path / _RECORDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from None
        with claimed(self._claim):
            try:
                yield
            except BaseException as error:
                self._tidy(made, is_bad_input=is_bad_input(error))
                raise

    def _tidy(self, made: Sequence[Path], *, is_bad_input: bool) -> None:
        """Remove the folder again where no stage has ended in it and nothing else is there.

        After bad input, which the next run would have again, stages that have left no file and no unfinished work are
        none to keep.
        """
        records = self.path / _RECORDS
        ended = [
            known["files"] for each in records.glob("*.json") if "files" in (known := self._record(each.stem) or {})
        ]
        if any(ended) or (ended and not is_bad_input) or next(unfinished(self.path), None) is not None:
            return
        for each in records.glob("*.json"):
            with suppress(OSError, OutputError):
                remote.remove(each)
        shutil.rmtree(records, ignore_errors=True)
        with suppress(OSError):
            for each in made:
                each.rmdir()

    def check(self, stages: Sequence[WorkStage], *, force: bool) -> frozenset[str]:
        """Check before any work that no result of other settings would be lost; return the stages that are done.

        Raises:
            OutputError: the folder is a file, what it holds under their names are no files, or are such results and
                ``force`` was not given.
        """
        self.check_place()
        for name in (each for stage in stages for each in stage.writes):
            check_replaceable(self.file(name))
        done: set[str] = set()
        stale: set[str] = set()
        again: dict[str, str] = {}  # files that will be made again as they were
        for stage in stages:
            is_known = stale.isdisjoint(stage.reads)
            files = self._finished(stage, again) if is_known else None
            if files is not None:
                if not self._changed(files):
                    done.add(stage.name)
                    continue
                again.update(files)
            else:
                stale.update(stage.writes)
            there = [name for name in stage.writes if remote.exists(self.file(name))]
            if there and not force and not self._may_replace(stage, there, again, is_known=is_known):
                raise self._refusal(stage, there[0])
        return frozenset(done)

    def _refusal(self, stage: WorkStage, name: str) -> OutputError:
        """Say why a stage's files are not written over."""
        files = (self._record(stage.name) or {}).get("files", {})
        changed = [each for each in self._changed(files) if remote.exists(self.file(each))]
        why = "changed since it was written" if changed else "of other inputs, settings or versions"
        return OutputError(
            f"{self.file(changed[0] if changed else name)} is there already, {why}; name another folder with "
            "{output}, or overwrite it with {force}",
            parameter=("output", "force"),
        )

    def _may_replace(self, stage: WorkStage, there: Sequence[str], again: Mapping[str, str], *, is_known: bool) -> bool:
        """Whether files of a stage may be written again without being asked, because nothing else is lost with them.

        Args:
            stage: The stage.
            there: Which of its files are there.
            again: Digests of files that will be made again as they were.
            is_known: Whether what it reads stays as it is.
        """
        known = self._record(stage.name)
        if known is None:
            return False
        files = known.get("files", {})
        is_ours = files.keys() >= set(there) and not any(
            remote.exists(self.file(name)) for name in self._changed(files)
        )
        if stage.is_view and is_ours:
            return True
        was_interrupted = "files" not in known  # perhaps between its files and its record
        return is_known and (is_ours or was_interrupted) and known["key"] == self._key(stage, again)

    def is_done(self, stage: WorkStage) -> bool:
        """Whether a stage's results are there, from what it would read now."""
        files = self._finished(stage)
        return files is not None and not self._changed(files)

    def begin(self, stage: WorkStage) -> bool:
        """Note that a stage starts; return whether an interrupted run has left work to it."""
        known = self._record(stage.name)
        for name, digest in {} if known is None else known.get("files", {}).items():
            if name not in stage.writes and self._sha256(name) == digest:  # or it would pass for one of this run
                remote.remove(self.file(name))
        work = self._work(stage)
        self._write(stage.name, {"key": self._key(stage), "work": work})
        return known is not None and "files" not in known and known.get("work") == work

    def finish(self, stage: WorkStage, left: Mapping[str, Any]) -> None:
        """Note that a stage has ended, and what it leaves to later ones."""
        files = {name: self._sha256(name) for name in (*stage.writes, *left.get(BESIDE, ()))}
        missing = next((name for name, digest in files.items() if digest is None), None)
        if missing is not None:
            raise OutputError(
                f"{self.file(missing)} is gone: something else removes files there; name another with {{output}}",
                parameter="output",
            )
        self._write(
            stage.name, {"key": self._key(stage), "work": self._work(stage), "files": files, "left": dict(left)}
        )

    def forget(self, name: str) -> None:
        """Have a stage run again next time."""
        remote.remove(self.path / _RECORDS / f"{name}.json")

    @staticmethod
    def record(name: str) -> str:
        """Return the file of a stage's record, for a stage that reads what it leaves."""
        return f"{_RECORDS}/{name}.json"

    def left(self, name: str) -> Mapping[str, Any]:
        """Return what a finished stage has left."""
        known = self._record(name)
        return {} if known is None else known.get("left", {})

    def _key(self, stage: WorkStage, again: Mapping[str, str] | None = None) -> str:
        return _digest({"work": self._work(stage, again), "choice": stage.choice})

    def _work(self, stage: WorkStage, again: Mapping[str, str] | None = None) -> str:
        reads = {name: (again or {}).get(name) or self._sha256(name) for name in stage.reads}
        return _digest({"name": stage.name, "settings": stage.settings, "reads": reads, "versions": self._versions})

    def _sha256(self, name: str) -> str | None:
        """Return a file's digest, None where there is none; many stages read the hardened model, which may be large."""
        path = remote.fetched(self.file(name))
        if not path.is_file():
            return None
        about = path.stat()
        seen = name, about.st_ino, about.st_size, about.st_mtime_ns
        if seen not in self._digests:
            self._digests[seen] = file_sha256(path)
        return self._digests[seen]

    def _finished(self, stage: WorkStage, again: Mapping[str, str] | None = None) -> dict[str, str] | None:
        """Return the files, and their digests, of a stage that has ended with these settings; None where it has not."""
        known = self._record(stage.name)
        if known is None or "files" not in known or known["key"] != self._key(stage, again):
            return None
        files: dict[str, str] = known["files"]
        return files

    def _changed(self, files: Mapping[str, str]) -> list[str]:
        """Return which files are no longer as they were written, or no longer there."""
        return [name for name, digest in files.items() if self._sha256(name) != digest]

    def _record(self, name: str) -> dict[str, Any] | None:
        """Return a stage's record; None where there is none, or a damaged one."""
        try:
            found = json.loads(remote.fetched(self.path / _RECORDS / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not isinstance(found.get("key"), str):
            return None
        return found if isinstance(found.get("files", {}), dict) and isinstance(found.get("left", {}), dict) else None

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        write_text(self.path / _RECORDS / f"{name}.json", json.dumps(record, indent=1) + "\n")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
