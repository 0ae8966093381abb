"""Errors become one line on stderr and an exit code, and with --json an object on stdout as well."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cloakonnx.cli._output import complain, one_line, print_json
from cloakonnx.cli._parameters import option_of
from cloakonnx.errors import CloakError

_INTERRUPTED = 130


def failed(error: BaseException, *, as_json: bool) -> int:
    """Say what was wrong, and return the exit code; raise what is a defect."""
    code, hint = 2, None
    match error:
        case CloakError():
            kind, line, code = error.kind, error.said(option_of), error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return 2
        case click.ClickException():
            kind, line = "usage", error.format_message()
            command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "cloakonnx"
            hint = f"see '{command} --help'"
        case MemoryError():
            kind, line = "memory", "out of memory; a smaller --batch-size needs less"
        case OSError():
            kind, line = "file", f"{error.filename}: " if error.filename else ""
            line += error.strerror or str(error)
        case _:
            raise error
    complain(one_line(line if hint is None else f"{line} ({hint})"))
    if as_json:
        _print(kind, line, hint or _advice(line), code)
    return code


def interrupted(notes: Sequence[str], *, as_json: bool) -> int:
    """Say that the run was interrupted and how it goes on, and return the exit code."""
    line = "; ".join(("interrupted", "no output was left half-written", *notes))
    complain(f"cloakonnx: {line}")
    if as_json:
        _print("interrupted", line, _advice(line) if notes else None, _INTERRUPTED)
    return _INTERRUPTED


def _advice(line: str) -> str | None:
    """Return the last clause of a message, which says what to do where there is one."""
    _, semicolon, last = line.rpartition("; ")
    return last if semicolon else None


def _print(kind: str, message: str, hint: str | None, code: int) -> None:
    print_json({"error": {"kind": kind, "message": " ".join(message.split()), "hint": hint}, "exit": code})
