"""Shards on the command line: a verb that handles its part of the batches, and a verb that has all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._files import claim
from cloakonnx.cli._output import RESUMED, going_on, print_json, say
from cloakonnx.cli._verb import Group, option

if TYPE_CHECKING:
    from cloakonnx.engine.batches import Engine
    from cloakonnx.engine.shards.file import Head
    from cloakonnx.engine.shards.merged import Merged
    from cloakonnx.engine.shards.part import Part

_ENGINE = "cloakonnx.shards"

_NOT_KEPT = frozenset({
    *("shard", "resume", "force", "output", "as_json", "dry_run"),
    *("workers", "engine", "gpus_per_worker", "cpus_per_worker"),
})  # fmt: skip
"""Options that results do not depend on."""

NAMED_AGAIN = ("save_adversarial", "samples", "data_script", "adversarial_script")
"""Options that write files or run code: a shard's file does not decide that, so the merge names them itself."""

_OF_THE_WHOLE = {"require": "--require", "junit": "--junit", "markdown": "--markdown", "latency": "--latency"}
"""Options that need the whole result."""


class _Shard(click.ParamType["tuple[int, int]"]):
    """Which of how many shards."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return both numbers."""
        if isinstance(value, tuple):
            return value
        number, slash, of = str(value).partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            self.fail(f"{value!r} is no shard like 3/16, the third of 16", param, ctx)
        return int(number), int(of)


@dataclass(frozen=True, kw_only=True)
class Sharding(Group):
    """Whether a run is a part of one."""

    shard: tuple[int, int] | None = option(
        "--shard",
        type=_Shard(),
        metavar="I/N",
        place="last",
        help="Run part I of N of the batches only; -o is its file, and 'cloakonnx merge' makes the result of all.",
    )


def in_shards(function: Callable[..., None]) -> Callable[..., None]:
    """Make a verb's function run a part of its batches where --shard says so.

    The function gets no output, and does not resume: the shard has these. It ends after its last batch.
    """

    @wraps(function)
    def run(*, sharding: Sharding, **values: Any) -> None:
        if sharding.shard is None or click.get_current_context().params.get("dry_run"):
            function(sharding=sharding, **values)
            return
        _run(function, sharding, sharding.shard, values)

    return run


def _run(function: Callable[..., None], sharding: Sharding, shard: tuple[int, int], values: Mapping[str, Any]) -> None:
    from cloakonnx.engine.shards.part import Part, PartDone, Slice

    context = click.get_current_context()
    for name, flag in _OF_THE_WHOLE.items():
        if context.params.get(name):
            raise click.UsageError(
                f"{flag} needs the whole result: leave it out here, and give it to 'cloakonnx merge'"
            )
    output: Path | None = context.params.get("output")
    if output is None:
        raise click.UsageError("--shard needs -o: the file of the shard")
    claim(output, force=context.params["force"])
    part = Part(Slice(*shard), output, bool(context.params.get("resume")))
    context.meta[_ENGINE] = part
    try:
        with going_on(RESUMED):
            function(sharding=sharding, **{name: _without_outputs(each) for name, each in values.items()})
    except PartDone:
        head = part.write(str(context.command.name), call=_call(context))
        _report(head, output, as_json=values["as_json"])


def _without_outputs(group: Any) -> Any:
    """Return a group of options without output and without what is left of an earlier run; these are the shard's."""
    if not is_dataclass(group) or isinstance(group, type):
        return group
    names = {each.name for each in fields(group)}
    changes: dict[str, Any] = {"output": None, "resume": False}
    return replace(group, **{name: value for name, value in changes.items() if name in names})


def _report(head: Head, output: Path, *, as_json: bool) -> None:
    batches = [range(each.batches) for each in head.passes]
    from cloakonnx.engine.shards.part import owner

    own = sum(owner(number, head.of) == head.number for each in batches for number in each)
    everything = sum(map(len, batches))
    if as_json:
        print_json({"output": str(output), "shard": head.number, "of": head.of, "batches": own, "all": everything})
    say(f"shard {head.number} of {head.of}: {own} of {everything} batches; wrote {output}")


def _call(context: click.Context) -> dict[str, Any]:
    """Return the command line for the merge: MODEL, and the options that were given or that a settings file has."""
    from cloakonnx.engine.shards.file import OPTIONS

    values = {**(context.default_map or {}), **_raw(context)}
    files: dict[str, Any] = {}
    options: dict[str, Any] = {}
    again: list[str] = []
    for each in context.command.params:
        name = str(each.name)
        value = values.get(name)
        if name in _NOT_KEPT or value in (None, False, (), []):
            continue
        if name in NAMED_AGAIN:
            again.append(name)
        elif isinstance(each.type, click.Path):
            files[name] = str(value)
        else:
            options[name] = value
    return {"files": files, OPTIONS: options, "again": again}


def _raw(context: click.Context) -> dict[str, Any]:
    """Return what stands on the command line, by parameter, as texts."""
    found, _, _ = context.command.make_parser(context).parse_args(list(context.obj.arguments))
    return {name: value for name, value in found.items() if isinstance(value, (str, bool, list))}


def words(command: click.Command, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the command line of a verb from the texts of its parameters."""
    for each in command.params:
        value = values.get(str(each.name))
        if value in (None, False, (), []):
            continue
        flag = next((name for name in each.opts if name.startswith("--")), "")
        if isinstance(each, click.Argument):
            continue
        if isinstance(each, click.Option) and each.is_flag:
            yield flag
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield f"{flag}={one}"
    yield from ("--", *(str(values[str(each.name)]) for each in command.params if isinstance(each, click.Argument)))


def stored(command: click.Command, call: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the verb's parameters that a shard's file has, as texts; raises DataError for any that none would write."""
    from cloakonnx.engine.shards.file import OPTIONS
    from cloakonnx.errors import DataError

    known = {str(each.name) for each in command.params} - _NOT_KEPT - {*NAMED_AGAIN, *_OF_THE_WHOLE}
    for name, value in [*call.get("files", {}).items(), *call.get(OPTIONS, {}).items()]:
        texts = value if isinstance(value, list) else [value]
        if name not in known or not all(isinstance(each, (str, bool)) for each in texts):
            raise DataError(f"{path} is damaged; run that shard again")
        yield name, value


def merge_from(merged: Merged) -> None:
    """Have the verb that runs next take the results of its batches from shards."""
    click.get_current_context().meta[_ENGINE] = merged


def own_samples(count: int | None, batch_size: int) -> int | None:
    """Return how many of some samples a run handles itself: all but in a shard."""
    from cloakonnx.engine.shards.part import Part

    found: Part | Merged | None = click.get_current_context().meta.get(_ENGINE)
    if count is None or not isinstance(found, Part):
        return count
    starts = range(0, count, batch_size)
    return sum(min(batch_size, count - start) for i, start in enumerate(starts) if found.slice.has(i))


def merges() -> bool:
    """Return whether the results of all batches come from shards, so that little is left to do."""
    from cloakonnx.engine.shards.merged import Merged

    return isinstance(click.get_current_context().meta.get(_ENGINE), Merged)


def engine_of_shards(engine: Engine) -> Engine:
    """Return the engine that a shard or a merge has, which may handle its batches on another; else that one."""
    from cloakonnx.engine.shards.part import Part

    found: Part | Merged | None = click.get_current_context().meta.get(_ENGINE)
    if found is None:
        return engine
    return found.on(engine) if isinstance(found, Part) else found
