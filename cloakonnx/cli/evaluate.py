"""``cloakonnx evaluate``: a hardened model and its baseline under attack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._data import Data
from cloakonnx.cli._dry import tell_estimate
from cloakonnx.cli._evaluation import Beside, opened
from cloakonnx.cli._files import ARRAYS_OUTPUT, JSON_OUTPUT, RESUME_OUTPUT, Json, ModelFile, Output, check_resume
from cloakonnx.cli._gates import Gates, tell_of_gates
from cloakonnx.cli._output import (
    RESUMED,
    going_on,
    level,
    print_json,
    readers_may_leave,
    say,
    warn,
    write_json,
    write_out,
)
from cloakonnx.cli._plan import Plan
from cloakonnx.cli._runs import Runs
from cloakonnx.cli._shards import Sharding, in_shards
from cloakonnx.cli._shared import dry_run, latency
from cloakonnx.cli._verb import option, verb

if TYPE_CHECKING:
    from cloakonnx.classifier.latency import Latency
    from cloakonnx.evaluation.evaluation import Evaluation
    from cloakonnx.evaluation.gates import Decision


@dataclass(frozen=True, kw_only=True)
class _Result(Output):
    """Files and form of the result, and what an earlier run left."""

    output: Path | None = option("-o", "--output", type=JSON_OUTPUT, help="Output file for the result as JSON.  [none]")
    save_adversarial: Path | None = option(
        "--save-adversarial",
        type=ARRAYS_OUTPUT,
        metavar="FILE.npz",
        help="Output file for every adversarial input that won: sample, attack, eps, predictions.",
    )
    samples: Path | None = option(
        "--samples",
        type=ARRAYS_OUTPUT,
        metavar="FILE.npz",
        help="Output file for a few samples gained and lost, shown by 'cloakonnx report'.",
    )
    resume: bool = option("--resume", is_flag=True, help=RESUME_OUTPUT)
    dry_run: bool = dry_run()
    latency: bool = latency()
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
        self.claim(*self.paths, inputs=inputs)

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`cloakonnx.evaluate` takes of it."""
        return {
            "output": self.output, "keep": self.samples, "resume": self.resume,
            "save_adversarial": self.save_adversarial,
        }  # fmt: skip


@verb("evaluate")
@in_shards
def command(
    *, model: ModelFile, data: Data, beside: Beside, plan: Plan, runs: Runs, result: _Result, require: Gates,
    sharding: Sharding, as_json: Json,
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
    result.check(as_json=as_json)
    asked = opened(model, data=data, beside=beside, plan=plan, runs=runs, require=require, sanity=not result.no_sanity)
    if not result.dry_run and sharding.shard is None:  # the merge writes these files
        result.claim_all(inputs=(model, beside.baseline, beside.analysis, beside.adversarial, data.data))
    if result.latency:
        asked.check_latency()
    asked = asked.ready()
    if result.dry_run:
        tell_estimate(asked.estimated(), asked.classifier, as_json=as_json)
        return
    with nullcontext() if result.output is None else going_on(RESUMED):
        found = asked.evaluated(**result.settings)
    _report(found, result, beside)
    timed = asked.timed(asked=result.latency)
    decisions = asked.judged(found, timed)
    _print(found, decisions, timed, as_json=as_json, markdown=result.markdown)
    tell_of_gates(decisions)
    require.conclude(decisions, name=found.model.name)


def _report(found: Evaluation, result: _Result, beside: Beside) -> None:
    """Say what was written, and what to be aware of."""
    from cloakonnx.reporting.tables import converged_lines

    for path in result.paths:
        say(f"wrote {path}")
    for line in converged_lines(found):
        say(line)
    if found.data.seen:
        warn(f"{beside.analysis} has seen {found.data.seen} of the {found.data.count} samples")
    for flag in found.sanity.fired if found.sanity is not None else ():
        warn(f"sanity flag {flag.name}: {flag.measured}; {flag.meaning}")


def _print(
    found: Evaluation, decisions: Sequence[Decision], timed: Latency | None, *, as_json: bool, markdown: bool
) -> None:
    if as_json:
        more: dict[str, Any] = {"gates": [each.as_dict() for each in decisions]} if decisions else {}
        more |= {} if timed is None else {"latency": timed.as_dict()}
        if more:
            print_json({**json.loads(found.to_json()), **more})
        else:
            write_json(found.to_json())
        return
    from cloakonnx.reporting.tables import evaluation_markdown, print_evaluation

    if markdown:
        write_out(evaluation_markdown(found, latency=timed))
        return
    from rich.console import Console

    console = Console()
    with readers_may_leave():
        wide = console if console.is_terminal else Console(width=140)
        print_evaluation(found, wide, complete=level() == "verbose", latency=timed)
