"""``cloakonnx evaluate``: a hardened model and its baseline under attack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._data import Data, warn_of_small_eps
from cloakonnx.cli._files import PATH, RESUME_OUTPUT, Json, ModelFile, Output, check_resume
from cloakonnx.cli._gates import Gates, tell_of_gates
from cloakonnx.cli._output import (
    RESUMED,
    announce,
    going_on,
    level,
    print_json,
    progress,
    readers_may_leave,
    say,
    warn,
    write_json,
    write_out,
)
from cloakonnx.cli._plan import Plan
from cloakonnx.cli._runs import Runs, warn_of_randomness
from cloakonnx.cli._verb import Group, option, verb

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset
    from cloakonnx.evaluation.evaluation import Evaluation
    from cloakonnx.evaluation.gates import Decision, Gate
    from cloakonnx.graph.file.model import Model
    from cloakonnx.scoring.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class _Beside(Group):
    """What the model is compared with, and where its masks come from."""

    baseline: Path | None = option(
        "--baseline", type=PATH, help="Model to compare with.  [MODEL without its masks, if it has any]"
    )
    analysis: Path | None = option(
        "--analysis",
        type=PATH,
        help="Analysis of the masks: reuses its preprocessing, and warns of samples that it was made with.",
    )

    adversarial: Path | None = option(
        "--adversarial",
        type=PATH,
        help="Inputs made elsewhere, in the order of --data or with an array index: they join the worst case.",
    )

    def load(self, model: Model, gates: Sequence[Gate]) -> tuple[Analysis | None, Model | None]:
        """Load the analysis and the baseline; raises OptionError where gates compare and there is no baseline."""
        from cloakonnx.evaluation.baseline import has_baseline
        from cloakonnx.evaluation.gates import check_compared
        from cloakonnx.graph.file.model import load
        from cloakonnx.scoring.analysis import load_analysis

        known = None if self.analysis is None else load_analysis(self.analysis, model=model.name)
        baseline = None if self.baseline is None else load(self.baseline)
        check_compared(gates, has_baseline=has_baseline(model, baseline))
        return known, baseline


@dataclass(frozen=True, kw_only=True)
class _Result(Output):
    """Files and form of the result, and what an earlier run left."""

    output: Path | None = option("-o", "--output", type=PATH, help="Output file for the result as JSON.  [none]")
    save_adversarial: Path | None = option(
        "--save-adversarial",
        type=PATH,
        metavar="FILE.npz",
        help="Output file for every adversarial input that won: sample, attack, eps, predictions.",
    )
    samples: Path | None = option(
        "--samples",
        type=PATH,
        metavar="FILE.npz",
        help="Output file for a few samples gained and lost, shown by 'cloakonnx report'.",
    )
    resume: bool = option("--resume", is_flag=True, help=RESUME_OUTPUT)
    no_sanity: bool = option("--no-sanity", is_flag=True, help="Skip the sanity checks; recorded in the result.")
    markdown: bool = option("--markdown", is_flag=True, help="Print the result as Markdown.")

    def check(self, *, as_json: bool) -> None:
        """Check that options go together."""
        if as_json and self.markdown:
            raise click.UsageError("--json and --markdown exclude each other")
        check_resume(self.output, resume=self.resume)

    @property
    def paths(self) -> list[Path]:
        """The files that are written."""
        return [path for path in (self.output, self.save_adversarial, self.samples) if path is not None]

    def claim_all(self, *, inputs: Sequence[Path | None]) -> None:
        """Check the files, and hold them for this run."""
        if len({path.absolute() for path in self.paths}) < len(self.paths):
            raise click.UsageError("-o, --save-adversarial and --samples name the same file")
        self.claim(*self.paths, inputs=inputs)

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`cloakonnx.evaluate` takes of it."""
        return {
            "sanity": not self.no_sanity, "output": self.output, "keep": self.samples, "resume": self.resume,
            "save_adversarial": self.save_adversarial,
        }  # fmt: skip


@verb("evaluate")
def command(
    *, model: ModelFile, data: Data, beside: _Beside, plan: Plan, runs: Runs, result: _Result, require: Gates,
    as_json: Json,
) -> None:  # fmt: skip
    """Attack MODEL itself, so that the attacks see its masks, and its baseline too; compare them sample by sample.

    \b
    cloakonnx evaluate model.onnx --data test.npz --eps 1/255,2/255
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 1/255,2/255
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 8/255 --attack apgd-t --markdown
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 2/255 --require 'robust-gain>=5%@2/255'

    A model without masks is evaluated alone, unless --baseline names another. A sample is robust if the model is right
    on the clean input and on every input that any attack, restart or replay found.
    """
    from cloakonnx.graph.file.model import load

    result.check(as_json=as_json)
    gates = require.measured(plan.eps, sanity=not result.no_sanity)
    loaded = load(model)
    known, other = beside.load(loaded, gates)
    runs = runs if known is None else runs.as_analysed(known.preprocessing)
    classifier = runs.classifier(loaded, data)
    samples = data.samples(classifier)
    result.claim_all(inputs=(model, beside.baseline, beside.analysis, beside.adversarial, data.data))
    warn_of_small_eps(plan.eps, samples)
    classifier = runs.ready(classifier)
    if result.no_sanity:  # a flag of the sanity checks reports it otherwise
        warn_of_randomness(classifier)
    baseline = None if other is None else classifier.beside(other)
    given = {"baseline": baseline, "analysis": known, "adversarial": beside.adversarial}
    found = _evaluated(classifier, samples, runs, {**plan.settings, **result.settings, **given})
    _report(found, result, beside)
    decisions = _judged(found, gates, classifier, baseline)
    _print(found, decisions, as_json=as_json, markdown=result.markdown)
    tell_of_gates(decisions)
    require.conclude(decisions, name=found.model.name)


def _evaluated(classifier: Classifier, samples: Dataset, runs: Runs, settings: dict[str, Any]) -> Evaluation:
    """Evaluate, and show how far it is."""
    from cloakonnx.evaluation.evaluate import evaluate

    engine = runs.engine(classifier, samples)
    kept = nullcontext() if settings["output"] is None else going_on(RESUMED)
    with kept, progress(f"evaluate, {settings['attack']}", samples.count()) as advance:
        return evaluate(
            classifier,
            samples,
            **settings,
            batch_size=runs.batch_size,
            engine=engine,
            on_estimate=announce,
            on_progress=advance,
        )


def _report(found: Evaluation, result: _Result, beside: _Beside) -> None:
    """Say what was written, and what to be aware of."""
    for path in result.paths:
        say(f"wrote {path}")
    if found.data.seen:
        warn(f"{beside.analysis} has seen {found.data.seen} of the {found.data.count} samples")
    for flag in found.sanity.fired if found.sanity is not None else ():
        warn(f"sanity flag {flag.name}: {flag.measured}; {flag.meaning}")


def _judged(
    found: Evaluation, gates: Sequence[Gate], classifier: Classifier, baseline: Classifier | None
) -> tuple[Decision, ...]:
    """Judge by gates, and show how far the timing is that one asks for."""
    if not gates:
        return ()
    from cloakonnx.classifier.latency import SESSIONS
    from cloakonnx.evaluation.judging import asks_for_latency, judge

    shown = progress("latency", SESSIONS) if asks_for_latency(gates) else nullcontext(lambda pairs: None)
    with shown as advance:
        return judge(found, gates, classifier, baseline=baseline, on_progress=advance)


def _print(found: Evaluation, decisions: Sequence[Decision], *, as_json: bool, markdown: bool) -> None:
    if as_json and decisions:
        print_json({**json.loads(found.to_json()), "gates": [each.as_dict() for each in decisions]})
        return
    if as_json:
        write_json(found.to_json())
        return
    from cloakonnx.reporting.tables import evaluation_markdown, print_evaluation

    if markdown:
        write_out(evaluation_markdown(found))
        return
    from rich.console import Console

    console = Console()
    with readers_may_leave():
        wide = console if console.is_terminal else Console(width=140)
        print_evaluation(found, wide, complete=level() == "verbose")
