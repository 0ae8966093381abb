"""The engine of a shard: handles the batches that fall to it and keeps them; the run ends after the last one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from cloakonnx.engine.batches import B, Engine, Pool, R, Work
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.shards.file import Head, Pass, write
from cloakonnx.errors import OptionError
from cloakonnx.json_files import installed_versions


class PartDone(Exception):  # noqa: N818 - no error: what a run does with all batches is left to the merge
    """A shard has handled all batches that fall to it."""


@dataclass(frozen=True)
class Slice:
    """Which batches fall to a shard: one of each ``of``, whose place among these moves on by one.

    Batches of similar cost may come at regular distances, one for each mask, say; so no shard gets all of one kind.

    Attributes:
        number: Of the shard, from 1.
        of: How many shards there are.

    Raises:
        OptionError: there is no such shard.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.number <= self.of:
            raise OptionError(
                f"{{shard}} {self.number}/{self.of}: the first number counts the shards, from 1 to the second",
                parameter="shard",
            )

    def has(self, batch: int) -> bool:
        """Return whether the batch of a number, from 0, falls to it."""
        return owner(batch, self.of) == self.number

    def __str__(self) -> str:
        """Return it as the command line takes it."""
        return f"{self.number}/{self.of}"


def owner(batch: int, of: int) -> int:
    """Return the number of the shard, from 1, to which a batch falls, from 0."""
    return (batch + batch // of) % of + 1


@dataclass(eq=False)
class Part:
    """An engine that handles the batches of a shard.

    Attributes:
        slice: Which batches.
        output: The shard's file; until that is written, finished batches lie in folders beside it.
        resume: Whether to go on with those that are there.
        engine: Where batches are handled; None until :meth:`on` says where.
        passes: Those that are done.
    """

    slice: Slice
    output: Path
    resume: bool = False
    engine: Engine | None = None
    passes: list[Pass] = field(default_factory=list)

    @property
    def threads(self) -> int | None:
        """Intra-op threads of each session."""
        return self._chosen.threads

    @property
    def workers(self) -> int:
        """How many batches are handled at a time, here and by the other shards at the same time."""
        return self._chosen.workers * self.slice.of

    @property
    def _chosen(self) -> Engine:
        assert self.engine is not None  # on() has been called
        return self.engine

    def on(self, engine: Engine) -> Part:
        """Have batches handled by an engine, where none is chosen."""
        self.engine = self.engine or engine
        return self

    @contextmanager
    def open(self, work: Work[B, R]) -> Iterator[Pool[B, R]]:
        """Give the workers of the engine.

        Raises:
            OutputError: what is to be resumed was left by other settings, or can't be written.
        """
        record = json.loads(json.dumps(work.record))
        folder = self._folder(len(self.passes), {**record, "shard": str(self.slice)})
        with folder.opened(resume=self.resume), self._chosen.open(work) as pool:
            own = _Own(pool, self.slice, folder)
            yield own
            self.passes.append(Pass(record, own.batches, own.samples))

    def write(self, verb: str, call: Mapping[str, Any] | None = None) -> Head:
        """Write the shard's file, and remove the folders; raises OutputError where that fails.

        Args:
            verb: What was run.
            call: The command line that ran it.
        """
        head = Head(
            self.slice.number, self.slice.of, verb, installed_versions(), self.threads, tuple(self.passes), call
        )
        folders = [self._folder(number) for number in range(len(self.passes))]
        write(self.output, head, [folder.path for folder in folders])
        for folder in folders:
            folder.remove()
        return head

    def _folder(self, of_pass: int, record: Mapping[str, Any] | None = None) -> Folder:
        return Folder(self.output.with_name(f"{self.output.name}.{of_pass}"), record or {}, run="a shard")


class _Own(Generic[B, R]):
    """Handles the batches of a shard, keeps the results, and gives None for every batch."""

    def __init__(self, pool: Pool[B, R], own: Slice, folder: Folder) -> None:
        self._pool, self._slice, self._folder = pool, own, folder
        self.batches = self.samples = 0

    def run(
        self, batches: Iterable[tuple[int, B | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R | None]]:
        """Yield each batch's number with None; tell of those that are the shard's."""
        digests: dict[int, str] = {}

        def numbered() -> Iterator[tuple[int, B | None]]:
            for number, batch in batches:
                assert batch is not None  # a shard's run has no folder of its own
                self.batches, self.samples = self.batches + 1, self.samples + batch.size
                if not self._slice.has(number):  # nor was it read, where the source can leave it out
                    yield number, None
                    continue
                digest = batch.digest()
                if self._folder.holds(number, digest, name="the source"):
                    tell(number, 1)
                    yield number, None
                    continue
                digests[number] = digest
                yield number, batch

        for number, found in self._pool.run(numbered(), tell):
            if found is not None:
                self._folder.save(number, digests.pop(number), found)
                tell(number, 1)
            yield number, None


def own_batches(engine: Engine, *, each: int = 1) -> Callable[[int], bool] | None:
    """Return whether a batch of samples falls to the shard that an engine is of, by its number; None for other engines.

    Args:
        engine: The engine.
        each: How many batches each of these is handed on as.
    """
    if not isinstance(engine, Part):
        return None
    has = engine.slice.has
    return lambda number: any(map(has, range(number * each, (number + 1) * each)))


def end_of_part(engine: Engine) -> None:
    """End the run here where its engine handles the batches of a shard: the rest takes the results of all.

    Raises:
        PartDone: it does.
    """
    if isinstance(engine, Part):
        raise PartDone


def engine_or(engine: Engine | None, default: Callable[[], Engine]) -> Engine:
    """Return the engine, or the default where there is none; that of a shard handles its batches there."""
    if engine is None:
        return default()
    return engine.on(default()) if isinstance(engine, Part) and engine.engine is None else engine
