"""``cloakonnx check``: every model of a settings file, evaluated and judged by its gates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from cloakonnx.cli._data import LabelledData
from cloakonnx.cli._evaluation import Asked, Beside, opened
from cloakonnx.cli._files import FOLDER_OUTPUT, RESUME_OUTPUT, Json, ModelFile, Output, check_resume, keep_apart
from cloakonnx.cli._finished import Finished, key_of
from cloakonnx.cli._gates import SomeGates, check_junit, junit_option, write_junit
from cloakonnx.cli._output import RESUMED, complain, going_on, one_line, print_json, readers_may_leave, say
from cloakonnx.cli._parameters import option_of
from cloakonnx.cli._plan import Plan
from cloakonnx.cli._runs import Runs
from cloakonnx.cli._settings import Setting, SettingsFile, converted, options
from cloakonnx.cli._verb import option, verb
from cloakonnx.errors import CloakError, OptionError
from cloakonnx.urls import address

if TYPE_CHECKING:
    from cloakonnx.evaluation.evaluation import Evaluation
    from cloakonnx.evaluation.gates import Decision
    from cloakonnx.reporting.junit import Suite


@dataclass(frozen=True, kw_only=True)
class _GatesOfModel(SomeGates):
    """Gates of one model; the JUnit file is of all."""

    junit: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _Results(Output):
    """Where evaluations are kept."""

    output: Path | None = option(
        "-o", "--output", type=FOLDER_OUTPUT, help="Folder for the evaluation of each model, NAME.json.  [none]"
    )

    resume: bool = option("--resume", is_flag=True, help=RESUME_OUTPUT)

    def files(self, names: Sequence[str], finished: Finished) -> list[Path | None]:
        """Make the folder, and claim the file of each model; those that are finished stay as they are.

        Raises:
            OutputError: a file can't be written, or is there.
        """
        if self.output is None:
            return [None] * len(names)
        from cloakonnx.files import check_folder

        found = [
            self.output / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('.-') or 'model'}.json" for name in names
        ]
        twice = next((path for index, path in enumerate(found) if path in found[:index]), None)
        if twice is not None:
            raise OptionError(f"two models would be written to {twice}; give one of them another name = '...'")
        check_folder(self.output)
        keep_apart(self.output)
        self._make(self.output)
        self.claim(*(path for path in found if not finished.holds(path)))
        return list(found)

    @staticmethod
    def _make(folder: Path) -> None:
        """Make the folder, unless it is there; if nothing is in it at the end it goes again."""
        from cloakonnx.errors import OutputError

        try:
            folder.mkdir()
        except FileExistsError:
            return
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from None

        def tidy() -> None:
            with suppress(OSError):
                folder.rmdir()

        click.get_current_context().call_on_close(tidy)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One model to be checked.

    Attributes:
        name: What it is called.
        where: Where the settings file has it, for messages.
        context: Of click, with its options.
        asked: Its evaluation.
        allow_inconclusive: Whether inconclusive gates pass.
    """

    name: str
    where: str
    context: click.Context
    asked: Asked
    allow_inconclusive: bool

    @property
    def key(self) -> str:
        """What the numbers follow from."""
        return key_of(self.asked, self.context.params)


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """What became of a model."""

    suite: Suite
    found: Evaluation | None
    output: Path | None
    exit_code: int

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        passed, gates = self.suite.passed, [each.as_dict() for each in self.suite.decisions]
        if self.found is None:
            return {"name": self.suite.name, "passed": passed, "error": self.suite.error, "gates": gates}
        whole, judged = self.found.as_dict(), self.found.verdict
        return {
            "name": self.suite.name,
            "passed": passed,
            "error": None,
            "gates": gates,
            "model": whole["model"],
            "verdict": {"kind": judged.kind, "sentence": judged.sentence, "caveats": list(judged.caveats)},
            "clean": whole["clean"]["hardened"],
            "robust": [{"eps": each["eps"], **each["hardened"]["robust"]} for each in whole["results"]],
            "evaluation": None if self.output is None else str(self.output),
        }


@verb("check")
def command(
    *,
    results: _Results,
    junit: Annotated[Path | None, junit_option()],
    allow_inconclusive: Annotated[
        bool, option("--allow-inconclusive", is_flag=True, help="Let inconclusive gates of every model pass.")
    ],
    as_json: Json,
) -> None:
    """Evaluate every model that the settings file names, and judge each by its gates: one table, one JUnit file.

    \b
    cloakonnx check
    cloakonnx check --junit gates.xml --json
    cloakonnx --config ci.toml check -o evaluations
    cloakonnx check -o evaluations --resume

    cloakonnx.toml (or [tool.cloakonnx] of pyproject.toml) has model = "model.onnx", or a table [[models]] for each: its
    path, its name where that is to be another, its gates as require, and any option of 'cloakonnx evaluate'. What a
    table leaves out is taken from [evaluate] and from above the tables. Settings of all models are checked before any
    model is attacked. Exit code 1 if a gate does not pass.
    """
    settings = _settings()
    check_resume(results.output, resume=results.resume)
    check_junit(junit)
    with ExitStack() as closing:
        entries = _entries(settings, closing)
        entries = [_ready(each) for each in entries]
        finished = Finished(results.output, resume=results.resume)
        outputs = results.files([each.name for each in entries], finished)
        kept = [
            finished.load(output, each.key) if output is not None and finished.holds(output) else None
            for each, output in zip(entries, outputs, strict=True)
        ]
        done = []
        with nullcontext() if results.output is None else going_on(RESUMED):
            for number, (output, before) in enumerate(zip(outputs, kept, strict=True), 1):
                entry = entries.pop(0)  # its sessions go with it
                say(f"[{number}/{len(outputs)}] {entry.name}" + (" (finished before)" if before is not None else ""))
                made = _checked(
                    entry, output, allow_inconclusive=allow_inconclusive, before=before, resume=results.resume
                )
                done.append(made)
                if output is not None and before is None and made.found is not None:
                    finished.add(output, entry.key)
        finished.remove()
    _print(done, as_json=as_json)
    write_junit(junit, *(each.suite for each in done))
    code = max(each.exit_code for each in done)
    if code:
        raise click.exceptions.Exit(code)


def _settings() -> SettingsFile:
    """Return the settings file; raises OptionError where there is none, or none that names a model."""
    settings: SettingsFile | None = click.get_current_context().obj.settings
    if settings is None or (settings.model is None and not settings.models):
        where = (
            "no cloakonnx.toml here, and no [tool.cloakonnx]" if settings is None else f"{settings.name} has no model"
        )
        raise OptionError(
            f"{where}: name what to check by model = 'model.onnx' or tables [[models]] (docs/commands/check.md)"
        )
    return settings


def _entries(settings: SettingsFile, closing: ExitStack) -> list[_Entry]:
    """Open every model with its samples, and check its settings.

    Raises:
        CloakError: what is wrong with one, with the place in the settings file.
    """
    given = click.get_current_context()
    known = options(_one)
    weakened = dict.fromkeys(settings.weakened("check", given.command, given.default_map or {}))
    entries: list[_Entry] = []
    for number, table in enumerate(settings.models or ({"path": settings.model},)):
        path = str(table["path"])
        called = str(address(path) or path)
        name, where = str(table.get("name", called)), f"{settings.name} [[models]] {number + 1} ({called})"
        if not settings.models:
            where = settings.name
        if name in [each.name for each in entries]:
            raise OptionError(f"{where}: another model has that name; give one of them name = '...'")
        said = _said(settings, number)
        for line in settings.weakening(said):
            if line not in weakened:
                complain(f"cloakonnx: {line}")
            weakened[line] = None
        defaults = {str(known[each.name].name): converted(each, known[each.name]) for each in said}
        with _naming(where):
            context = _one.make_context("check", ["--", path], parent=given, default_map=defaults)
            closing.callback(context.close)
            with context.scope(cleanup=False):
                asked = _one.invoke(context)
        allow = bool(context.params["allow_inconclusive"])
        entries.append(_Entry(name=name, where=where, context=context, asked=asked, allow_inconclusive=allow))
    return entries


def _ready(entry: _Entry) -> _Entry:
    """Return an entry with its model on the provider."""
    with _naming(entry.where), entry.context.scope(cleanup=False):
        return replace(entry, asked=entry.asked.ready())


def _said(settings: SettingsFile, number: int) -> list[Setting]:
    """Return what the file says of a model's options."""
    if settings.models:
        return list(settings.of_model(number, _one))
    return list(settings.of("evaluate", _one))


@verb("check")
def _one(
    *, model: ModelFile, data: LabelledData, beside: Beside, plan: Plan, runs: Runs, require: _GatesOfModel,
    no_sanity: Annotated[bool, option("--no-sanity", is_flag=True)],
) -> Asked:  # fmt: skip
    """Open one model: its options are those of 'cloakonnx evaluate', without outputs."""
    asked = opened(model, data=data, beside=beside, plan=plan, runs=runs, require=require, sanity=not no_sanity)
    asked.check()
    return asked


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Put the place in the settings file in front of what is wrong there."""
    try:
        yield
    except click.ClickException as error:
        raise OptionError(f"{where}: {error.format_message()}") from None
    except CloakError as error:
        raise type(error)(f"{where}: {error.args[0]}", parameter=error.parameters) from error


def _checked(
    entry: _Entry, output: Path | None, *, allow_inconclusive: bool, before: Evaluation | None, resume: bool
) -> _Checked:
    """Evaluate a model, unless that was done ``before``, and judge it; an error ends this model's check alone."""
    from cloakonnx.reporting.junit import Suite

    allow = allow_inconclusive or entry.allow_inconclusive
    found: Evaluation | None = None
    decisions: tuple[Decision, ...] = ()
    error, code = "", 0
    with entry.context.scope(cleanup=False):
        try:
            found = before or entry.asked.evaluated(output=output, resume=resume)
            decisions = entry.asked.judged(found)
        except CloakError as raised:
            error, code = raised.said(option_of), raised.exit_code
            complain(one_line(f"{entry.where}: {error}"))
    suite = Suite(entry.name, decisions, allow, error)
    return _Checked(suite=suite, found=found, output=output, exit_code=code or int(not suite.passed))


def _print(done: Sequence[_Checked], *, as_json: bool) -> None:
    """Print the table, or JSON."""
    if as_json:
        print_json({"passed": all(each.suite.passed for each in done), "models": [each.as_dict() for each in done]})
        return
    from rich.console import Console

    from cloakonnx.reporting.checks import print_checks

    console = Console()
    with readers_may_leave():
        print_checks([each.suite for each in done], console if console.is_terminal else Console(width=140))
