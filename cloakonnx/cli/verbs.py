"""The verbs: loads a verb's module only when it is called, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cloakonnx.cli._files import PATH
from cloakonnx.cli._output import drop_unread, one_line, say, warnings_said
from cloakonnx.cli._settings import read_settings
from cloakonnx.errors import CloakError, nearest

_VERBS = {
    "demo": "Harden a bundled classifier, and show what that brings.",
    "harden": "Do everything in one go, and keep every finished stage.",
    "inspect": "List the tensors of a model that can carry a mask.",
    "attack": "Make adversarial inputs from an ONNX file.",
    "analyze": "Score features on clean and adversarial pairs.",
    "learn": "Learn masks against attacks that see them.",
    "apply": "Write the hardened model: the source and the mask.",
    "evaluate": "Attack a hardened model and its baseline, and compare.",
    "sweep": "Clean, static and adaptive accuracy under many masks, in one pass.",
    "report": "Write an evaluation as one HTML page.",
    "gate": "Judge an evaluation: pass, fail or inconclusive.",
    "verify": "Check that a hardened model is its source and the mask.",
    "strip": "Take the masks out again, to the byte.",
    "doctor": "Check the installation: packages, providers, a test gradient.",
    "config": "Print the options in force, and where they come from.",
}
"""Verb to its line in the list; a module of the same name under cloakonnx.cli holds its command."""

_INTERRUPTED = 130
_ARGUMENTS, _CONFIG = "cloakonnx.arguments", "cloakonnx.config"
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
        """Write the list of verbs."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or name the nearest ones."""
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], _VERBS)}")
        name, command, rest = super().resolve_command(ctx, args)
        ctx.meta[_ARGUMENTS], ctx.meta[_CONFIG] = _without_config(rest)
        return name, command, ctx.meta[_ARGUMENTS]


def _command(verb: str) -> click.Command:
    command: click.Command = importlib.import_module(f"cloakonnx.cli.{verb}").command
    return command


def _commands() -> dict[str, click.Command]:
    """Import every verb, for a settings file that may name any of them."""
    return {verb: _command(verb) for verb in _VERBS}


def _without_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Take ``--config`` out of a verb's arguments: it may stand on either side of the verb."""
    rest: list[str] = []
    config = None
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return [*rest, argument, *waiting], config
        if argument == "--config":
            value = next(waiting, None)
            if value is None:
                raise click.UsageError("--config needs a file")
            config = Path(value)
        elif argument.startswith("--config="):
            config = Path(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    return rest, config


@click.command(cls=_Verbs, context_settings={"help_option_names": _HELP, "max_content_width": 100})
@click.version_option(package_name="cloakonnx")
@click.option(
    "--config",
    type=PATH,
    help="Options, as TOML; may follow the verb.  [cloakonnx.toml, pyproject.toml]",
)
@click.pass_context
def _cloakonnx(ctx: click.Context, *, config: Path | None) -> None:
    """Harden exported ONNX classifiers with constant masks: no retraining, no framework.

    \b
    cloakonnx analyze model.onnx --data clean.npz --adversarial adversarial.npz
    cloakonnx apply model.onnx
    cloakonnx verify model.hardened.onnx --source model.onnx

    Exit codes: 0 done, 1 a check failed, 2 bad usage or bad input, 130 interrupted.
    """
    ctx.obj = config = ctx.meta.get(_CONFIG) or config
    verb, arguments = ctx.invoked_subcommand, ctx.meta.get(_ARGUMENTS, [])
    if verb is None or verb == "config" or not {*_HELP}.isdisjoint(arguments):
        return
    settings = read_settings(config, _commands)
    if settings is not None:
        defaults = settings.defaults(verb, _command(verb), arguments)
        for line in settings.weakened(verb, _command(verb), defaults):
            say(f"cloakonnx: {line}")
        ctx.default_map = {verb: defaults}


def exit_code() -> int:
    """Run the command line; an error is one line on stderr."""
    output = sys.stdout
    try:
        with warnings_said():
            code = _cloakonnx.main(standalone_mode=False)
    except BaseException as error:
        chain = list(_chain(error))
        if not any(isinstance(each, KeyboardInterrupt | click.Abort) for each in chain):
            # Nobody reads the help: click replaces the output then, and exits with 1, which is a failed check here.
            if isinstance(error, SystemExit) and sys.stdout is not output:
                drop_unread()
                return 0
            return _error_code(error)
        notes = [note for each in chain for note in getattr(each, "__notes__", ())]
        say("; ".join(("cloakonnx: interrupted", "no output was left half-written", *notes)))
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from: what was being written when Ctrl-C came may fail to close as well."""
    while error is not None:
        yield error
        error = error.__context__


def _error_code(error: BaseException) -> int:
    """Say what was wrong in one line; raise what is a defect."""
    match error:
        case CloakError():
            line, code = str(error), error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return 2
        case click.ClickException():
            hint = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "cloakonnx"
            line, code = f"{error.format_message()} (see '{hint} --help')", 2
        case MemoryError():
            line, code = "out of memory; a smaller --batch-size needs less", 2
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            line, code = f"{named}{error.strerror or error}", 2
        case _:
            raise error
    say(one_line(line))
    return code
