"""Files on the command line: the model, and outputs that are claimed before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click

from cloakonnx.cli._verb import Group, argument, option

_KNOWN = frozenset({
    *(".onnx", ".npz", ".npy", ".json", ".html", ".htm", ".xml", ".md", ".toml", ".csv", ".tsv", ".parquet"),
    *(".png", ".jpg", ".jpeg"),
})  # fmt: skip
"""Suffixes that say what a file holds; an output may have any other."""


class _Path(click.Path):
    """A path, of the copy where it has a protocol; an empty text, as of an unset variable, is not the current folder.

    Args:
        writes: Whether something is written there.
        does: What it is to hold or be, in words; None where the suffix does not matter.
        suffixes: Of such files, the usual one first; none for a folder.
    """

    def __init__(self, *, writes: bool = False, does: str | None = None, suffixes: tuple[str, ...] = ()) -> None:
        super().__init__(path_type=Path)
        self.writes, self._does, self.suffixes = writes, does, suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; name a file or folder", param, ctx)
        if "\0" in str(value):
            self.fail(f"{str(value)!r} has a null character, which no path has", param, ctx)
        from cloakonnx.remote import local

        return super().convert(local(value, writes=self.writes), param, ctx)

    def check(self, param: click.Parameter, values: Mapping[str, Any]) -> None:
        """Check that an output's suffix is not that of another kind of file; a shard's -o holds a shard.

        Raises:
            BadParameter: it is.
        """
        path = values.get(str(param.name))
        of_shard = param.name == "output" and values.get("shard")
        if self._does is None or of_shard or not isinstance(path, Path):
            return
        suffix = path.suffix.lower()
        if suffix in _KNOWN and suffix not in self.suffixes:
            wanted = f"give it the suffix {self.suffixes[0]}" if self.suffixes else "name it without that suffix"
            raise click.BadParameter(f"{path.name} is to {self._does}: {wanted}", param=param)


PATH = _Path()
OUTPUT = _Path(writes=True)
JSON_OUTPUT = _Path(writes=True, does="hold JSON", suffixes=(".json",))
MODEL_OUTPUT = _Path(writes=True, does="hold a model", suffixes=(".onnx",))
ARRAYS_OUTPUT = _Path(writes=True, does="hold arrays", suffixes=(".npz",))
PAGE_OUTPUT = _Path(writes=True, does="hold an HTML page", suffixes=(".html", ".htm"))
JUNIT_OUTPUT = _Path(writes=True, does="hold JUnit XML", suffixes=(".xml",))
FOLDER_OUTPUT = _Path(writes=True, does="be a folder")

ModelFile = Annotated[Path, argument(type=PATH)]
HashExternal = Annotated[
    bool,
    option(
        "--hash-external/--no-hash-external",
        default=True,
        help="Read external data to record or check its sha256; without, its content is not checked.  [read]",
    ),
]
Json = Annotated[bool, option("--json", is_flag=True, place="last", help="Print the result as JSON on stdout.")]
_NOTED = "cloakonnx.outputs"

RESUME = "Continue an interrupted run with the same settings."
RESUME_OUTPUT = "Continue an interrupted run with the same settings and -o."


@dataclass(frozen=True, kw_only=True)
class Output(Group):
    """The output of a verb."""

    output: Path | None = option("-o", "--output", type=OUTPUT, help="Output file.")
    force: bool = option("--force", is_flag=True, place="last", help="Overwrite an existing output.")

    def claim(self, *outputs: Path | None, inputs: Sequence[Path | None] = ()) -> None:
        """Check that outputs may be written, and hold them for this run until the verb ends."""
        for each in outputs:
            if each is not None:
                claim(each, inputs=inputs, force=self.force)


@dataclass(frozen=True, kw_only=True)
class AnalysisOutput(Output):
    """An analysis, with its masks in a file beside it where they are large."""

    output: Path | None = option(
        "-o", "--output", type=JSON_OUTPUT, help="Output file for the analysis.  [MODEL.cloak.json]"
    )

    def of(self, model: Path, *, inputs: Sequence[Path | None]) -> Path:
        """Return the analysis's path, and claim it."""
        from cloakonnx.files import check_output
        from cloakonnx.scoring.analysis import default_path, masks_path

        target = self.output or default_path(model)
        self.claim(target, inputs=(model, *inputs))
        check_output(masks_path(target), force=self.force)
        keep_apart(masks_path(target))
        return target


def claim(output: Path, *, inputs: Sequence[Path | None] = (), force: bool = False) -> None:
    """Check that an output may be written and is no other output of the call, and hold it until the verb ends."""
    from cloakonnx.files import check_output, claimed

    check_output(output, inputs=[path for path in inputs if path is not None], force=force)
    keep_apart(output)
    click.get_current_context().with_resource(claimed(output))


def keep_apart(output: Path) -> None:
    """Note an output; raises OutputError where the call has another one of that path, however that is written."""
    from cloakonnx.errors import OutputError

    context = click.get_current_context()
    place = output.resolve()
    noted: set[Path] = context.meta.setdefault(_NOTED, set())  # of the whole call: contexts share it
    if place in noted:
        flags = [
            each.opts[0]
            for each in context.command.params
            if isinstance(each.type, _Path) and each.type.writes
            if isinstance(path := context.params.get(str(each.name)), Path) and path.resolve() == place
        ]
        named = f" ({', '.join(flags)})" if len(flags) > 1 else ""
        raise OutputError(f"{output} would hold two outputs of this call{named}; give each a path of its own")
    noted.add(place)


def check_resume(output: Path | None, *, resume: bool) -> None:
    """Check that what is to be resumed was kept; raises UsageError."""
    if resume and output is None:
        raise click.UsageError("--resume needs -o: finished batches are kept beside the output")
