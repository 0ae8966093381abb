"""The verbs: loads a verb's module only when it is called, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cloakonnx.cli._call import Call
from cloakonnx.cli._failure import failed, interrupted
from cloakonnx.cli._files import PATH
from cloakonnx.cli._output import complain, drop_unread, set_level, warnings_said
from cloakonnx.cli._settings import read_settings
from cloakonnx.errors import nearest

_GROUPS = {
    "Do it": {
        "harden": "Make masks, apply, verify, attack and report, in one go.",
        "evaluate": "Attack a model and its baseline, and compare robust accuracy.",
        "gate": "Judge an evaluation by limits: pass, fail or inconclusive.",
        "check": "Evaluate and gate every model that a settings file names.",
        "report": "Write an evaluation as one HTML page.",
        "evidence": "Write an evaluation for auditors: in-toto or CycloneDX.",
        "demo": "Harden a bundled classifier, and show the gain.",
    },
    "Step by step": {
        "attack": "Make adversarial inputs for an ONNX model.",
        "analyze": "Score features on clean and adversarial samples.",
        "learn": "Learn masks against attacks that see them.",
        "apply": "Write the hardened model: the source plus the masks.",
        "sweep": "Measure accuracy under masks of several sizes, in one pass.",
        "merge": "Make the result of a run from the files of its shards.",
    },
    "Files and checks": {
        "inspect": "List the tensors that can carry a mask, and what else works.",
        "verify": "Check that a hardened model is its source plus the masks.",
        "strip": "Remove the masks, and restore the original file byte for byte.",
        "config": "Print the options in force, and where each comes from.",
        "doctor": "Check the installation: packages, providers, a test gradient.",
    },
}
"""Headings of the list, each with its verbs; a module of the verb's name under cloakonnx.cli holds its command."""

_VERBS = [verb for verbs in _GROUPS.values() for verb in verbs]

_HELP = ["-h", "--help"]


@contextmanager
def _without_an_empty_line() -> Iterator[None]:
    """Keep an interrupt from click, which would answer it with an empty line; only a terminal's ``^C`` needs one."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if sys.stderr.isatty():
            click.echo(err=True)
        raise click.Abort from interrupt


class _Verbs(click.Group):
    """Knows the verbs' names and help lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of use."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module and return its command."""
        if cmd_name not in _VERBS:
            return None
        return _command(cmd_name)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments before the verb."""
        with _without_an_empty_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        with _without_an_empty_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs, by what they are for."""
        for heading, verbs in _GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{verb:<8}", said) for verb, said in verbs.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or name the nearest ones."""
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], _VERBS)}")
        name, command, rest = super().resolve_command(ctx, args)
        call: Call = ctx.obj
        call.take(rest)
        return name, command, [*call.arguments]  # click takes words out


def _command(verb: str) -> click.Command:
    command: click.Command = importlib.import_module(f"cloakonnx.cli.{verb}").command
    return command


def _commands() -> dict[str, click.Command]:
    """Import every verb, for a settings file that may name any of them."""
    return {verb: _command(verb) for verb in _VERBS}


@click.command(cls=_Verbs, context_settings={"help_option_names": _HELP, "max_content_width": 100})
@click.version_option(package_name="cloakonnx")
@click.option(
    "--config",
    type=PATH,
    help="Settings file (TOML) with options of verbs.  [cloakonnx.toml, pyproject.toml]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print no progress and no notes on stderr: only warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print more: every table of an evaluation.")
@click.pass_context
def _cloakonnx(ctx: click.Context, *, config: Path | None, quiet: bool, verbose: bool) -> None:
    """Harden exported ONNX classifiers with constant masks: no retraining, no framework.

    \b
    cloakonnx harden model.onnx --data val.npz --eps 2/255
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 2/255 -o evaluation.json
    cloakonnx gate evaluation.json --require 'robust>=40%@2/255'

    --config, --quiet and --verbose may also follow the verb. Exit codes: 0 done, 1 a check or gate failed, 2 bad usage
    or bad input, 130 interrupted.
    """
    call: Call = ctx.obj
    call.config = call.config or config
    set_level(ctx, quiet=quiet or call.quiet, verbose=verbose or call.verbose)
    verb = ctx.invoked_subcommand
    if verb is None or verb == "config" or not {*_HELP}.isdisjoint(call.arguments):
        return
    call.settings = settings = read_settings(call.config, _commands)
    if settings is not None:
        defaults = settings.defaults(verb, _command(verb), call.arguments)
        call.as_json = call.as_json or bool(defaults.get("as_json"))
        for line in settings.weakened(verb, _command(verb), defaults):
            complain(f"cloakonnx: {line}")
        ctx.default_map = {verb: defaults}


def exit_code() -> int:
    """Run the command line; an error is one line on stderr, and with --json an object on stdout."""
    output, call = sys.stdout, Call()
    try:
        with warnings_said():
            code = _cloakonnx.main(standalone_mode=False, obj=call)
    except BaseException as error:
        chain = list(_chain(error))
        if not any(isinstance(each, KeyboardInterrupt | click.Abort) for each in chain):
            # Nobody reads the help: click replaces the output then, and exits with 1, which is a failed check here.
            if isinstance(error, SystemExit) and sys.stdout is not output:
                drop_unread()
                return 0
            return failed(error, as_json=call.as_json)
        notes = [note for each in chain for note in getattr(each, "__notes__", ())]
        return interrupted(notes, as_json=call.as_json)
    return code if isinstance(code, int) else 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from: what was being written when Ctrl-C came may fail to close as well."""
    while error is not None:
        yield error
        error = error.__context__
