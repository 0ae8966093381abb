"""``cloakonnx merge``: the result of a run from the files of all its shards."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from cloakonnx.cli._files import ARRAYS_OUTPUT, OUTPUT, PATH, Json
from cloakonnx.cli._gates import Gates
from cloakonnx.cli._output import say
from cloakonnx.cli._shards import NAMED_AGAIN, merge_from, stored, words
from cloakonnx.cli._verb import Group, argument, option, verb

if TYPE_CHECKING:
    from cloakonnx.engine.shards.file import Head

_AGAIN = "needed where the shards had it"


@dataclass(frozen=True, kw_only=True)
class _Result(Group):
    """Files of the result."""

    output: Path = option("-o", "--output", type=OUTPUT, required=True, help="Output file, as without shards.")
    save_adversarial: Path | None = option(
        "--save-adversarial",
        type=ARRAYS_OUTPUT,
        metavar="FILE.npz",
        help=f"evaluate: output file for every adversarial input that won; {_AGAIN}.",
    )
    samples: Path | None = option(
        "--samples",
        type=ARRAYS_OUTPUT,
        metavar="FILE.npz",
        help=f"evaluate: output file for a few samples gained and lost; {_AGAIN}.",
    )
    latency: bool = option("--latency", is_flag=True, help="evaluate: time the model beside its baseline.")
    markdown: bool = option("--markdown", is_flag=True, help="evaluate: print the result as Markdown.")
    force: bool = option("--force", is_flag=True, place="last", help="Overwrite an existing output.")


@dataclass(frozen=True, kw_only=True)
class _Inputs(Group):
    """What the shards were made of."""

    model: Path | None = option("--model", type=PATH, help="The model, if it lies elsewhere now.")
    data: Path | None = option("--data", type=PATH, help="The samples, if they lie elsewhere now.")
    adversarial: Path | None = option("--adversarial", type=PATH, help="As --data, for the adversarial samples.")
    analysis: Path | None = option("--analysis", type=PATH, help="As --data, for the analysis.")
    baseline: Path | None = option("--baseline", type=PATH, help="As --data, for the baseline.")
    labels: Path | None = option("--labels", type=PATH, help="As --data, for the labels.")
    data_script: str | None = option(
        "--data-script", metavar="FILE.py:FUNCTION", help=f"The function that yields the samples; {_AGAIN}."
    )
    adversarial_script: str | None = option(
        "--adversarial-script",
        metavar="FILE.py:FUNCTION",
        help=f"The function that yields adversarial samples; {_AGAIN}.",
    )


@verb("merge")
def command(
    *, shards: Annotated[tuple[Path, ...], argument(type=PATH, nargs=-1, required=True)], result: _Result,
    inputs: _Inputs, require: Gates, as_json: Json,
) -> None:  # fmt: skip
    """Make the result of a run from the files SHARDS of all its shards: the same bytes as without shards.

    \b
    cloakonnx evaluate model.onnx --data test.npz --eps 2/255 --shard 1/2 -o 1.shard
    cloakonnx evaluate model.onnx --data test.npz --eps 2/255 --shard 2/2 -o 2.shard
    cloakonnx merge 1.shard 2.shard -o evaluation.json

    Each shard has the command line that made it. The model and the samples are read again, at the same paths, and
    compared with those of the shards. What takes all samples, sanity checks and gates say, is done here.
    """
    from cloakonnx.engine.shards.merged import Merged

    merged = Merged.of(shards)
    made = _verb_of(merged.head, shards[0])
    context = click.get_current_context()
    given = {each.name: context.params.get(str(each.name)) for each in context.command.params if each.name != "shards"}
    values = dict(_values(made, merged.head, given, shards[0]))
    say(f"merging {len(merged.shards)} shards of cloakonnx {made.name}")
    merge_from(merged)
    with made.make_context(str(made.name), list(words(made, values)), parent=context.parent) as inner:
        made.invoke(inner)


def _verb_of(head: Head, path: Path) -> click.Command:
    """Return the command of the verb that the shards have run.

    Raises:
        UsageError: Python ran them.
        DataError: there is no such verb.
    """
    from cloakonnx.engine.shards.shard import SHARDED
    from cloakonnx.errors import DataError

    if head.verb not in SHARDED:
        raise DataError(f"{path} is damaged; run that shard again")
    if head.call is None:
        raise click.UsageError(
            f"{path} was made in Python: merge it there, with cloakonnx.engines.merge(shards, {head.verb}, ...)"
        )
    found: click.Command = importlib.import_module(f"cloakonnx.cli.{head.verb}").command
    return found


def _values(made: click.Command, head: Head, given: dict[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the verb's parameters: those of the shards, and those that the merge was given in their place.

    Raises:
        UsageError: an option that the verb does not have, or one that has to be named again.
    """
    assert head.call is not None
    yield from stored(made, head.call, path)
    flags = {str(each.name): next(iter(each.opts)) for each in click.get_current_context().command.params}
    taken = {str(each.name) for each in made.params}
    for name, value in given.items():
        if value in (None, False, ()):
            continue
        if name not in taken:
            raise click.UsageError(f"{flags[name]} does not go with shards of cloakonnx {made.name}")
        yield name, [str(each) for each in value] if isinstance(value, tuple) else _text(value)
    for name, stored_path in head.call.get("files", {}).items():
        if name in flags and not given.get(name) and "://" not in stored_path and not Path(stored_path).exists():
            raise click.UsageError(f"the shards had {stored_path}, which is not here: name it with {flags[name]}")
    for name in head.call.get("again", ()):
        if name in NAMED_AGAIN and not given.get(name):
            raise click.UsageError(
                f"the shards were made with {flags[name]}: name it again, for a merge writes no file and runs no code "
                "that a shard names"
            )


def _text(value: object) -> str | bool:
    return value if isinstance(value, bool) else str(value)
