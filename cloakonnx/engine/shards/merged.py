"""The engine of a merge: has the results of all batches from the files of shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Generic

from cloakonnx.engine.batches import B, Pool, R, Work
from cloakonnx.engine.folder import DIGEST
from cloakonnx.engine.shards.file import OPTIONS, Head, Pass, ShardFile
from cloakonnx.engine.shards.part import owner
from cloakonnx.engine.trees import unflattened
from cloakonnx.errors import DataError, OptionError
from cloakonnx.json_files import installed_versions

_SHOWN = 12
"""Numbers of shards that a message names."""


@dataclass(eq=False)
class Merged:
    """An engine that reads each batch's result from the file of its shard.

    Attributes:
        shards: All of them, by number.
        opened: How many passes have begun.
    """

    shards: Sequence[ShardFile]
    opened: int = field(default=0)

    workers = 1

    @classmethod
    def of(cls, paths: Iterable[str | PathLike[str]]) -> Merged:
        """Read the heads of all shards of a run.

        Raises:
            DataError: a file is damaged or no shard, one is missing or there twice, or they are not of one run.
        """
        found = [ShardFile.read(path) for path in paths]
        if not found:
            raise DataError("no shards are named; name the files of all shards of a run")
        for each in found[1:]:
            _check_same(found[0], each)
        by_number: dict[int, ShardFile] = {}
        for each in found:
            other = by_number.setdefault(each.head.number, each)
            if other is not each:
                raise DataError(f"{other.path} and {each.path} are the same shard, {_name(each.head)}; name it once")
        missing = [number for number in range(1, found[0].head.of + 1) if number not in by_number]
        if missing:
            few = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
            named = f"shard {few} is" if len(missing) == 1 else f"{len(missing)} shards, {few}, are"
            raise DataError(f"{named} missing of {found[0].head.of}; name the files of all, once they are done")
        differing = _differing(found[0].head.versions, installed_versions())
        if differing:
            raise DataError(f"the shards were made with other versions ({differing}) than are installed here")
        return cls([by_number[number] for number in sorted(by_number)])

    @property
    def head(self) -> Head:
        """What the first shard says of the run."""
        return self.shards[0].head

    @property
    def threads(self) -> int | None:
        """Intra-op threads of each session that the shards had."""
        return self.head.threads

    @contextmanager
    def open(self, work: Work[B, R]) -> Iterator[Pool[B, R]]:
        """Give what reads the results of the next pass.

        Raises:
            OptionError: the shards were made with other settings.
        """
        number, passes = self.opened, self.head.passes
        self.opened += 1
        record = json.loads(json.dumps(work.record))
        if number >= len(passes):
            raise OptionError(f"the shards hold {len(passes)} passes over the samples, and these settings need more")
        differing = _differing(passes[number].record, record)
        if differing:
            raise OptionError(f"the shards were made with other settings than the merge ({differing})")
        yield _Read(self.shards, number, work)


class _Read(Generic[B, R]):
    """Reads the results of one pass."""

    def __init__(self, shards: Sequence[ShardFile], of_pass: int, work: Work[B, R]) -> None:
        self._shards, self._pass, self._work = shards, of_pass, work

    def run(
        self, batches: Iterable[tuple[int, B | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R | None]]:
        """Yield each batch's number and result, in order.

        Raises:
            DataError: the samples are others than those of the shards, or a file is damaged.
        """
        wanted = self._shards[0].head.passes[self._pass]
        count = 0
        for number, batch in batches:
            count += 1
            if batch is None:
                yield number, None
                continue
            shard = self._shards[owner(number, len(self._shards)) - 1]
            if number >= wanted.batches:
                raise _other_samples()
            entries = shard.batch(self._pass, number)
            if str(entries.pop(DIGEST, "")) != batch.digest():
                raise _other_samples(f" (batch {number}, of {shard.path})")
            try:
                result = unflattened(self._work.result, entries)
            except (KeyError, TypeError, ValueError):
                raise DataError(f"{shard.path} is damaged; run that shard again") from None
            yield number, result
        if count != wanted.batches:
            raise _other_samples()


def _other_samples(where: str = "") -> DataError:
    return DataError(
        f"the samples are not those of the shards, or {{batch_size}} is another{where}; name the same data",
        parameter="batch_size",
    )


def _check_same(first: ShardFile, other: ShardFile) -> None:
    """Check that two shards are of one run; raises DataError, which names what differs."""
    differing = next(filter(None, _differences(first.head, other.head)), None)
    if differing is not None:
        raise DataError(f"{first.path} and {other.path} are not shards of one run: they differ in {differing}")


def _differences(one: Head, two: Head) -> Iterator[str]:
    """Yield what differs between two shards, in words; nothing, or an empty text, where it is the same."""
    if (one.verb, one.of) != (two.verb, two.of):
        yield f"what was run, {one.verb} in {one.of} shards and {two.verb} in {two.of}"
    yield _differing(one.versions, two.versions)
    for ours, theirs in zip(one.passes, two.passes, strict=False):
        yield _differing(ours.record, theirs.record)
    if one.threads != two.threads:
        yield "threads"
    called = [{} if each.call is None else each.call.get(OPTIONS, {}) for each in (one, two)]
    yield _differing(*called)
    if [_samples(each) for each in one.passes] != [_samples(each) for each in two.passes]:
        yield "samples or batch size"


def _samples(each: Pass) -> tuple[int, int]:
    return each.batches, each.samples


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    return ", ".join(key for key in sorted(one.keys() | two.keys()) if one.get(key) != two.get(key))


def _name(head: Head) -> str:
    return f"{head.number}/{head.of}"
