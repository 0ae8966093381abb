"""``cloakonnx harden``: everything in one go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._again import command_line
from cloakonnx.cli._completion import plans
from cloakonnx.cli._completion import taps as known_taps
from cloakonnx.cli._data import LabelledData
from cloakonnx.cli._files import FOLDER_OUTPUT, PATH, Json, ModelFile, keep_apart
from cloakonnx.cli._gates import Gates, tell_of_gates
from cloakonnx.cli._output import going_on, print_json, progress, say, tell
from cloakonnx.cli._runs import Runs
from cloakonnx.cli._shared import granularity, layers, norm, parts, seed
from cloakonnx.cli._signing import sign_key_option, signing_key
from cloakonnx.cli._types import Names, Number, Numbers, Steps
from cloakonnx.cli._verb import Group, option, verb
from cloakonnx.errors import CheckError

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset
    from cloakonnx.engine.batches import Engine
    from cloakonnx.pipeline.harden import Hardened, Task
    from cloakonnx.pipeline.settings import HardenSettings
    from cloakonnx.pipeline.stage import PlannedStage

_SILENT = (
    *("output", "sign_key", "force", "dry_run", "as_json", "junit"),
    *("workers", "engine", "gpus_per_worker", "cpus_per_worker"),
)
"""Options that do not decide the result."""

_UNITS = {"learning": "steps", "latency": None}
"""What the bars of some stages count; the others count samples."""


@dataclass(frozen=True, kw_only=True)
class _PartsOfData(LabelledData):
    """Labelled samples, in one file or in one for each purpose."""

    select_data: Path | None = option("--select-data", type=PATH, help="Samples to choose masks on.  [20% of --data]")
    report_data: Path | None = option("--report-data", type=PATH, help="Samples to report on.  [40% of --data]")

    def parts(self, classifier: Classifier) -> dict[str, Dataset | None]:
        """Return the samples that have files of their own."""
        paths = {"select": self.select_data, "report": self.report_data}
        return {name: None if path is None else self.part(classifier, path) for name, path in paths.items()}


@dataclass(frozen=True, kw_only=True)
class _Task(Group):
    """What is to be done: fields of :class:`~cloakonnx.pipeline.settings.HardenSettings`."""

    eps: tuple[float, ...] = option(
        "--eps",
        type=Numbers(example="1/255,2/255"),
        required=True,
        help="Radii of the eps ball in pixel space, such as 2/255,4/255. Masks are made against the first; all are "
        "reported.",
    )
    budget: float = option(
        "--budget",
        type=Number(),
        default=0.04,
        help="Clean accuracy that may be lost: 4% is 4 percentage points.  [4%]",
    )
    method: Any = option(
        "--method",
        type=click.Choice(["learn", "greedy", "score"]),
        default="learn",
        show_default=True,
        help="How masks are made: learned; features of one tap removed one by one; or those of the highest DeepCloak "
        "scores removed.",
    )
    preset: str = option(
        "--preset",
        type=click.Choice(["full", "quick"]),
        default="full",
        show_default=True,
        help="Amount of work. quick: 2,000 samples, 4 epochs, 200 samples to report on, the first eps only.",
    )
    norm: Any = norm()
    attack: str = option(
        "--attack",
        type=Names(),
        shell_complete=plans,
        default="quick",
        show_default=True,
        help="Attacks of the evaluation: presets (quick, standard) or attacks by name, such as pgd,square.",
    )
    max_iter: int | str | None = option(
        "--max-iter",
        type=Steps(),
        help="Steps of --attack, or of the gradient attacks of a preset or list.  [their own]",
    )
    taps: tuple[str, ...] = option(
        "--tap",
        metavar="TENSOR",
        multiple=True,
        shell_complete=known_taps,
        help="Activation to mask; may be repeated.  [chosen by the method]",
    )
    granularity: Any = granularity()
    layers: tuple[str, ...] = layers()
    parts: int = parts()
    fold: bool = option(
        "--fold", is_flag=True, help="Multiply masks into weights where that is exact, instead of adding Mul nodes."
    )
    seed: int = seed()

    def settings(self, runs: Runs, require: Gates, folder: _Folder) -> HardenSettings:
        """Return the settings; raises OptionError for one that makes no sense."""
        from cloakonnx.pipeline.settings import HardenSettings

        given: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        shown: dict[str, Any] = {"report": not folder.no_report, "latency": not folder.no_latency}
        return HardenSettings(**given, **shown, batch_size=runs.batch_size, gates=require.gates)


@dataclass(frozen=True, kw_only=True)
class _Folder(Group):
    """The folder for the results, and what is written to it."""

    output: Path | None = option("-o", "--output", type=FOLDER_OUTPUT, help="Folder for the results.  [MODEL-hardened]")
    sign_key: Path | None = sign_key_option()
    no_report: bool = option("--no-report", is_flag=True, help="Do not write report.html.")
    no_latency: bool = option(
        "--no-latency",
        is_flag=True,
        help="Do not time the hardened model beside MODEL; every file then has the same bytes on every run.",
    )
    dry_run: bool = option(
        "--dry-run", is_flag=True, help="Print the stages and how long they take, and write nothing."
    )
    force: bool = option("--force", is_flag=True, place="last", help="Overwrite results of other inputs or settings.")

    def of(self, model: Path) -> Path:
        """Return the folder."""
        from cloakonnx.pipeline.harden import default_folder

        return self.output or default_folder(model)


@verb("harden")
def command(
    *, model: ModelFile, data: _PartsOfData, task: _Task, runs: Runs, require: Gates, folder: _Folder, as_json: Json
) -> None:
    """Harden MODEL in one go: make masks, apply them, verify, attack the result, report. Finished stages are kept.

    \b
    cloakonnx harden model.onnx --data val.npz --eps 2/255
    cloakonnx harden model.onnx --data val.npz --eps 2/255 --preset quick --dry-run
    cloakonnx harden model.onnx --data train.npz --select-data val.npz --report-data test.npz --eps 2/255,4/255
    cloakonnx harden model.onnx --data val.npz --eps 2/255 --require 'clean-drop<=5%' --require 'robust-gain>=5%@2/255'

    One file is split within each class: 40% to learn or score on, 20% to choose on, 40% to report on. A second run with
    the same inputs and settings repeats nothing, and continues one that was interrupted. Exit code 1 if a gate does not
    pass, the budget cannot be met, or the result fails verification.
    """
    from cloakonnx.graph.file.model import load

    settings = task.settings(runs, require, folder)
    key = signing_key(folder.sign_key)
    classifier = runs.classifier(load(model), data)
    samples, parts = data.samples(classifier), data.parts(classifier)
    given = {**parts, "sign_key": key, "output": folder.of(model)}
    plan = _planned(runs.ready(classifier), samples, settings, runs, given)
    for each in plan.outputs:
        keep_apart(each)
    if plan.split is not None:
        say(plan.split)
    if folder.dry_run:
        _tell_plan(plan.plan(force=folder.force), as_json=as_json)
        return
    try:
        with going_on("the same call goes on where this stopped"):
            done = plan.run(force=folder.force)
    except CheckError as error:
        require.write_error(error, name=model.name)
        raise
    _tell(done, as_json=as_json)
    require.conclude(done.gates, name=model.name)


def _planned(
    classifier: Classifier, samples: Dataset, settings: HardenSettings, runs: Runs, given: dict[str, Any]
) -> Task:
    """Return the task, which says how far it is."""
    from cloakonnx.pipeline.harden import Task

    engine = runs.asked_engine()
    return Task(
        classifier,
        samples,
        settings,
        **given,
        observer=_Progress(engine),
        engine=engine,
        command=command_line(silent=_SILENT),
    )


class _Progress:
    """Tells the user how far it is.

    Args:
        engine: Where batches are handled; None where each stage chooses.
    """

    def __init__(self, engine: Engine | None) -> None:
        self._engine = engine

    def stage(self, name: str, number: int, count: int, *, cached: bool) -> None:
        say(f"[{number}/{count}] {name}" + (": as before" if cached else ""))

    def say(self, text: str) -> None:
        say(f"      {text}")

    def progress(self, what: str, total: int | None) -> AbstractContextManager[Callable[[float], None]]:
        unit = _UNITS.get(what, "samples")
        return progress(what, total, unit=unit, engine=None if unit is None else self._engine)


def _tell_plan(planned: tuple[PlannedStage, ...], *, as_json: bool) -> None:
    from cloakonnx.text import spoken

    if as_json:
        print_json(
            [
                {
                    "name": p.name,
                    "cached": p.cached,
                    "seconds": p.seconds,
                    "expected": p.expected,
                    "files": list(p.writes),
                }
                for p in planned
            ]
        )
        return
    for stage in planned:
        measured = "seconds" if stage.seconds is None else f"{spoken(stage.seconds)} at most"
        expected = "" if stage.expected is None else f"{spoken(stage.expected)}, "
        time = "as before" if stage.cached else f"{expected}{measured}"
        tell(f"{stage.name:<10} {time:<24} {', '.join(stage.writes)}".rstrip())
    total = sum(stage.seconds or 0 for stage in planned)
    expected_total = sum((stage.seconds if stage.expected is None else stage.expected) or 0 for stage in planned)
    in_all = f"about {spoken(total)} at most in all"
    if expected_total < total:
        in_all = f"about {spoken(expected_total)}, {spoken(total)} at most in all"
    tell(in_all if total else "seconds in all")


def _tell(done: Hardened, *, as_json: bool) -> None:
    from dataclasses import asdict

    from cloakonnx.reporting.cost import cost_lines, latency_note

    judged = done.verdict
    if as_json:
        print_json(
            {
                "verdict": {"kind": judged.kind, "sentence": judged.sentence, "caveats": list(judged.caveats)},
                "cost": _cost(done),
                "gates": [each.as_dict() for each in done.gates],
                "stages": [asdict(each) for each in done.stages],
                "files": {what: str(path) for what, path in done.files.items()},
            }
        )
    else:
        tell(f"{judged.title}: {judged.sentence}")
        for caveat in judged.caveats:
            tell(caveat)
        for line in cost_lines(done.evaluation, done.latency):
            tell(line)
        if done.latency is not None:
            say(latency_note(done.latency))
    tell_of_gates(done.gates)
    say(f"wrote {', '.join(path.name for path in done.files.values())} to {done.folder}")


def _cost(done: Hardened) -> dict[str, Any]:
    """Return size and nodes of both models, and the latency where it was measured."""
    found = done.evaluation
    named = {"model": found.model, "baseline": found.baseline}
    sizes = {who: {"size": each.size, "nodes": each.nodes} for who, each in named.items() if each is not None}
    return {**sizes, "latency": None if done.latency is None else done.latency.as_dict()}
