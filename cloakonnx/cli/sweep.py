"""``cloakonnx sweep``: many masks of one analysis in one pass."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cloakonnx.cli._data import Adversarial, CleanData, warn_of_small_eps
from cloakonnx.cli._files import JSON_OUTPUT, PATH, RESUME_OUTPUT, Json, ModelFile, Output, check_resume
from cloakonnx.cli._output import RESUMED, announce, going_on, progress, readers_may_leave, say, warn, write_json
from cloakonnx.cli._plan import Plan
from cloakonnx.cli._runs import Runs, warn_of_randomness
from cloakonnx.cli._shards import Sharding, in_shards, merges, own_samples
from cloakonnx.cli._shared import dry_run
from cloakonnx.cli._types import Amounts, Numbers
from cloakonnx.cli._verb import Group, option, verb

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import FittedPairs
    from cloakonnx.evaluation.sweeps.record import Sweep
    from cloakonnx.scoring.analysis import Analysis
    from cloakonnx.selection.topk import Amount


@dataclass(frozen=True, kw_only=True)
class _Scores(Group):
    """Where the features' scores are."""

    analysis: Path | None = option("--analysis", type=PATH, help="Analysis with the scores.  [MODEL.cloak.json]")

    def of(self, model: Path) -> Path:
        """Return the analysis's path."""
        from cloakonnx.scoring.analysis import default_path

        return self.analysis or default_path(model)


@dataclass(frozen=True, kw_only=True)
class _Amounts(Group):
    """How many features are masked, and where the hardened model is attacked."""

    remove: tuple[Amount, ...] = option(
        "--remove",
        type=Amounts(),
        default="0%..30%",
        show_default=True,
        help="Features to remove: 0%..30% (in steps of 1%), 0%..30%:5%, 5%,10% or counts, 0..8.",
    )
    adaptive_at: tuple[Amount, ...] | None = option(
        "--adaptive-at",
        type=Amounts(none=True),
        help="Amounts at which the hardened model itself is attacked: 5%,10%, or none.  [the last of --remove]",
    )


@dataclass(frozen=True, kw_only=True)
class _Plan(Plan):
    eps: tuple[float, ...] = option(
        "--eps",
        type=Numbers(example="1/255,2/255"),
        default=(),
        help="Radii of the eps ball in pixel space.  [largest difference between --data and --adversarial]",
    )


@dataclass(frozen=True, kw_only=True)
class _Result(Output):
    output: Path | None = option("-o", "--output", type=JSON_OUTPUT, help="Output file for the result as JSON.  [none]")
    resume: bool = option("--resume", is_flag=True, help=RESUME_OUTPUT)
    dry_run: bool = dry_run()


@verb("sweep")
@in_shards
def command(
    *, model: ModelFile, scores: _Scores, data: CleanData, versions: Adversarial, amounts: _Amounts, plan: _Plan,
    runs: Runs, result: _Result, sharding: Sharding, as_json: Json,
) -> None:  # fmt: skip
    """Measure MODEL under masks of several sizes: clean and static accuracy for each, adaptive accuracy at some.

    \b
    cloakonnx sweep model.onnx --data clean.npz --adversarial adversarial.npz
    cloakonnx sweep model.onnx --data clean.npz --adversarial adversarial.npz --adaptive-at 5%,10% --eps 2/255

    The network runs once per image up to the tap; for each mask only the part behind the tap runs. The preprocessing is
    that of the analysis.
    """
    from cloakonnx.graph.file.model import load
    from cloakonnx.scoring.analysis import load_analysis

    check_resume(result.output, resume=result.resume)
    source = click.get_current_context().get_parameter_source("eps")
    if amounts.adaptive_at == () and source is ParameterSource.COMMANDLINE and not merges():  # a file's is for others
        raise click.UsageError("--eps goes with adaptive accuracy, which --adaptive-at none leaves out")
    loaded, path = load(model), scores.of(model)
    known = load_analysis(path, model=model.name)
    runs = runs.as_analysed(known.preprocessing)
    classifier = runs.classifier(loaded, data)
    pairs = versions.pairs_with(data, classifier)
    if not result.dry_run:
        result.claim(result.output, inputs=(model, path, data.data, versions.adversarial))
    warn_of_small_eps(plan.eps, pairs.clean)
    classifier = runs.ready(classifier)
    warn_of_randomness(classifier)
    settings = {"amounts": amounts.remove, "adaptive_at": amounts.adaptive_at, **plan.settings}
    if result.dry_run:
        _tell_time(classifier, known, pairs, runs, settings, as_json=as_json)
        return
    found = _swept(classifier, known, pairs, runs, settings | {"output": result.output, "resume": result.resume})
    if result.output is not None:
        say(f"wrote {result.output}")
    _report(found, path)
    _print(found, as_json=as_json)


def _tell_time(
    classifier: Classifier, known: Analysis, pairs: FittedPairs, runs: Runs, settings: dict[str, Any], *, as_json: bool
) -> None:
    """Print how long the sweep takes, without making it."""
    from cloakonnx.cli._dry import tell_estimate
    from cloakonnx.evaluation.sweeps.preparation import PreparedSweep

    engine = runs.engine_for(classifier, pairs.clean)
    asked = PreparedSweep.of(classifier, known, pairs, **settings, batch_size=runs.batch_size, engine=engine)
    tell_estimate(asked.estimate(), classifier, as_json=as_json)


def _swept(classifier: Classifier, known: Analysis, pairs: FittedPairs, runs: Runs, settings: dict[str, Any]) -> Sweep:
    """Sweep, and show how far it is."""
    from cloakonnx.evaluation.sweeps.sweep import passes, sweep

    engine = runs.engine_for(classifier, pairs.clean)
    count = own_samples(pairs.clean.count(), runs.batch_size)
    total = None if count is None else count * passes(settings["adaptive_at"])
    kept = nullcontext() if settings["output"] is None else going_on(RESUMED)
    with kept, progress("sweep", total, unit="samples", engine=engine) as advance:
        return sweep(
            classifier,
            known,
            pairs,
            **settings,
            batch_size=runs.batch_size,
            engine=engine,
            on_estimate=None if merges() else partial(announce, what="adaptive accuracy: "),
            on_progress=advance,
        )


def _report(found: Sweep, analysis: Path) -> None:
    """Say what to be aware of."""
    for note in found.notes:
        warn(note)
    if found.data.seen:
        warn(f"{analysis} has seen {found.data.seen} of the {found.data.count} samples")


def _print(found: Sweep, *, as_json: bool) -> None:
    if as_json:
        write_json(found.to_json())
        return
    from rich.console import Console

    from cloakonnx.reporting.sweep_tables import print_sweep

    console = Console()
    with readers_may_leave():
        print_sweep(found, console if console.is_terminal else Console(width=140))
