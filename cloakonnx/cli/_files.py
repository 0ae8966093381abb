"""Files on the command line: the model, and outputs that are claimed before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click

from cloakonnx.cli._verb import Group, argument, option


class _Path(click.Path):
    """A path, of the copy where it has a protocol; an empty text, as of an unset variable, is not the current folder.

    Args:
        writes: Whether something is written there.
    """

    def __init__(self, *, writes: bool = False) -> None:
        super().__init__(path_type=Path)
        self._writes = writes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; name a file or folder", param, ctx)
        if "\0" in str(value):
            self.fail(f"{str(value)!r} has a null character, which no path has", param, ctx)
        from cloakonnx.remote import local

        return super().convert(local(value, writes=self._writes), param, ctx)


PATH = _Path()
OUTPUT = _Path(writes=True)

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
        "-o", "--output", type=OUTPUT, help="Output file for the analysis.  [MODEL.cloak.json]"
    )

    def of(self, model: Path, *, inputs: Sequence[Path | None]) -> Path:
        """Return the analysis's path, and claim it."""
        from cloakonnx.files import check_output
        from cloakonnx.scoring.analysis import default_path, masks_path

        target = self.output or default_path(model)
        self.claim(target, inputs=(model, *inputs))
        check_output(masks_path(target), force=self.force)
        return target


def claim(output: Path, *, inputs: Sequence[Path | None] = (), force: bool = False) -> None:
    """Check that an output may be written, and hold it for this run until the verb ends."""
    from cloakonnx.files import check_output, claimed

    check_output(output, inputs=[path for path in inputs if path is not None], force=force)
    click.get_current_context().with_resource(claimed(output))


def check_resume(output: Path | None, *, resume: bool) -> None:
    """Check that what is to be resumed was kept; raises UsageError."""
    if resume and output is None:
        raise click.UsageError("--resume needs -o: finished batches are kept beside the output")
