"""``cloakonnx harden``: everything in one go."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import going_on, print_json, progress, say, tell
from cloakonnx.cli._signing import sign_key_option, signing_key
from cloakonnx.cli._types import Number, Numbers
from cloakonnx.cli.gate import conclude
from cloakonnx.cli.places import granularity_option, layers_option

if TYPE_CHECKING:
    from cloakonnx.pipeline.harden import Hardened
    from cloakonnx.pipeline.stage import PlannedStage


class TaskOptions(TypedDict):
    """Values of the options that say what is to be done."""

    eps: tuple[float, ...]
    budget: float
    method: str
    preset: str
    norm: str
    attack: str
    tap: tuple[str, ...]
    granularity: str | None
    layers: tuple[str, ...]
    fold: bool
    seed: int
    batch_size: int
    no_report: bool


class TaskAndDataOptions(TaskOptions, options.DataOptions):
    """Values of both groups."""


_task_options = options.group(
    click.option(
        "--eps",
        type=Numbers(example="1/255,2/255"),
        required=True,
        help="Radii in pixel space: 2/255,4/255, say. Masks are made against the first; all are reported.",
    ),
    click.option(
        "--budget",
        type=Number(),
        default=0.04,
        help="Clean accuracy that may be lost: 4% is 4 points.  [4%]",
    ),
    click.option(
        "--method",
        type=click.Choice(["learn", "greedy", "score"]),
        default="learn",
        show_default=True,
        help="Masks that are learned; features of one tap; or DeepCloak's.",
    ),
    click.option(
        "--preset",
        type=click.Choice(["full", "quick"]),
        default="full",
        show_default=True,
        help="quick: 2,000 samples, 4 epochs, 200 samples to report on, the first eps.",
    ),
    options.norm_option,
    click.option(
        "--attack", default="quick", show_default=True, help="Of the evaluation: quick, standard, or one attack."
    ),
    click.option("--tap", metavar="TENSOR", multiple=True, help="Activations to mask.  [the method's own choice]"),
    granularity_option,
    layers_option,
    click.option("--fold", is_flag=True, help="Move masks into weights where that is exact; no Mul nodes for these."),
    options.seed_option,
)


@click.command("harden")
@options.model_argument
@options.data_option(required=True)
@click.option("--select-data", type=options.PATH, help="Samples to choose on.  [20% of the data]")
@click.option("--report-data", type=options.PATH, help="Samples to report on.  [40% of the data]")
@_task_options
@options.data_options
@options.batch_option
@options.input_option
@options.output_name_option
@options.provider_options
@options.workers_option
@options.gate_options(required=False)
@click.option("-o", "--output", type=options.PATH, help="The folder for the results.  [MODEL-hardened]")
@sign_key_option
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes, and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite results of other inputs or settings.")
@options.json_option
def command(
    *,
    model: Path,
    data: Path | None,
    data_script: str | None,
    select_data: Path | None,
    report_data: Path | None,
    input_name: str | None,
    output_name: str | None,
    provider: str | None,
    device_id: int,
    workers: int | None,
    require: tuple[str, ...],
    allow_inconclusive: bool,
    output: Path | None,
    sign_key: Path | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **rest: Unpack[TaskAndDataOptions],
) -> None:
    """Harden MODEL in one go: make masks, apply, verify, attack the result, report. Finished stages are kept.

    \b
    cloakonnx harden model.onnx --data val.npz --eps 2/255
    cloakonnx harden model.onnx --data val.npz --eps 2/255 --preset quick --dry-run
    cloakonnx harden model.onnx --data train.npz --select-data val.npz --report-data test.npz --eps 2/255,4/255
    cloakonnx harden model.onnx --data val.npz --eps 2/255 --require 'clean-drop<=5%' --require 'robust-gain>=5%@2/255'

    One file is split class by class: 40% to learn or score on, 20% to choose on, 40% to report on. A second run with
    the same inputs and settings does nothing again; one that was interrupted goes on. Exit code 1 where a gate does not
    pass, the budget can't be met, or the result fails verification.
    """
    from cloakonnx.engine.choice import engine_of
    from cloakonnx.evaluation.gates import parse_gate
    from cloakonnx.graph.file.model import load
    from cloakonnx.pipeline.harden import Task, default_folder
    from cloakonnx.pipeline.settings import HardenSettings

    named = {**rest}
    fields: dict[str, Any] = {each: named[each] for each in TaskOptions.__annotations__}
    settings = HardenSettings(
        taps=fields.pop("tap"),
        report=not fields.pop("no_report"),
        gates=tuple(map(parse_gate, require)),
        **fields,
    )
    key = signing_key(sign_key)
    loaded = load(model)
    source = options.open_data(data, data_script, rest, option="data")
    if source is None:
        raise click.UsageError("labelled samples are needed: --data is missing")
    classifier = options.classifier(loaded, rest, input_name=input_name, output_name=output_name)
    dataset = options.dataset(classifier, source, rest)
    select, report = (
        None if path is None else options.part(classifier, path, rest) for path in (select_data, report_data)
    )
    task = Task(
        classifier.on(options.choose(provider, device_id)),
        dataset,
        settings,
        select=select,
        report=report,
        output=output or default_folder(model),
        observer=_Told(),
        engine=engine_of(workers),
        command=_again(),
        sign_key=key,
    )
    if task.split is not None:
        say(task.split)
    if dry_run:
        _tell_plan(task.plan(force=force), as_json=as_json)
        return
    with going_on("the same call goes on where this stopped"):
        done = task.run(force=force)
    _tell(done, as_json=as_json)
    conclude(done.gates, allow_inconclusive=allow_inconclusive)


class _Told:
    """Tells the user how far it is."""

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        say(f"[{number}/{count}] {name}" + (": as before" if cached else ""))

    def say(self, text: str) -> None:
        say(f"      {text}")

    def progress(self, what: str, total: int | None) -> AbstractContextManager[Callable[[float], None]]:
        return progress(what, total)


def _again() -> str:
    """Return the command line without paths and without what only says where the results go."""
    context = click.get_current_context()
    words = ["cloakonnx", "harden"]
    silent = {"output", "sign_key", "force", "dry_run", "as_json", "workers"}
    for parameter in context.command.params:
        value, name = context.params.get(str(parameter.name)), str(parameter.name)
        if name in silent or context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
            continue
        if isinstance(parameter, click.Argument):
            words.append(_word(value))
        elif isinstance(parameter, click.Option) and value not in (None, (), False):
            words += _option(parameter, value)
    return shlex.join(words)


def _option(option: click.Option, value: Any) -> list[str]:
    flag = next(each for each in option.opts if each.startswith("--"))
    if option.is_flag:
        return [flag]
    values = value if option.multiple else [value]
    return [word for each in values for word in (flag, _word(each))]


def _word(value: Any) -> str:
    from cloakonnx.text import eps_exact

    if isinstance(value, Path):
        return value.name
    if isinstance(value, float):
        return eps_exact(value)
    return ",".join(map(_word, value)) if isinstance(value, tuple) else str(value)


def _tell_plan(planned: tuple[PlannedStage, ...], *, as_json: bool) -> None:
    from cloakonnx.text import spoken

    if as_json:
        print_json(
            [{"name": p.name, "cached": p.cached, "seconds": p.seconds, "files": list(p.writes)} for p in planned]
        )
        return
    for stage in planned:
        measured = "seconds" if stage.seconds is None else f"{spoken(stage.seconds)} at most"
        time = "as before" if stage.cached else measured
        tell(f"{stage.name:<10} {time:<20} {', '.join(stage.writes)}".rstrip())
    total = sum(stage.seconds or 0 for stage in planned)
    tell(f"about {spoken(total)} at most in all" if total else "seconds in all")


def _tell(done: Hardened, *, as_json: bool) -> None:
    from dataclasses import asdict

    judged = done.verdict
    if as_json:
        print_json(
            {
                "verdict": {"kind": judged.kind, "sentence": judged.sentence, "caveats": list(judged.caveats)},
                "gates": [asdict(each) for each in done.gates],
                "stages": [asdict(each) for each in done.stages],
                "files": {what: str(path) for what, path in done.files.items()},
            }
        )
    else:
        tell(f"{judged.title}: {judged.sentence}")
        for caveat in judged.caveats:
            tell(caveat)
    for decision in done.gates:
        say(str(decision))
    say(f"wrote {', '.join(path.name for path in done.files.values())} to {done.folder}")
