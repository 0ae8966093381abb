"""``cloakonnx gate``: judges an evaluation that was made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import print_json, tell

if TYPE_CHECKING:
    from cloakonnx.evaluation.gates import Decision


@click.command("gate")
@click.argument("evaluation", type=options.PATH)
@options.gate_options(required=True)
@options.json_option
def command(*, evaluation: Path, require: tuple[str, ...], allow_inconclusive: bool, as_json: bool) -> None:
    """Judge EVALUATION, which 'cloakonnx evaluate -o' wrote: a line a gate, exit code 1 where one does not pass.

    \b
    cloakonnx gate evaluation.json --require 'clean-drop<=1%' --require 'robust-gain>=5%@2/255'

    Gates are clean>=, clean-drop<=, robust>=, robust-gain>= (of the last two with @EPS), and flags==0.
    latency-ratio<= needs 'cloakonnx evaluate --require', which measures.
    """
    from cloakonnx.evaluation.evaluation import load_evaluation
    from cloakonnx.evaluation.gates import check_gates, parse_gate

    gates = [parse_gate(text) for text in require]
    decisions = check_gates(load_evaluation(evaluation), gates)
    if as_json:
        print_json([asdict(decision) for decision in decisions])
    else:
        for decision in decisions:
            tell(str(decision))
    conclude(decisions, allow_inconclusive=allow_inconclusive)


def conclude(decisions: Sequence[Decision], *, allow_inconclusive: bool) -> None:
    """End with exit code 1 where a gate failed, or is inconclusive and that is not allowed."""
    allowed = {"pass", "inconclusive"} if allow_inconclusive else {"pass"}
    if any(decision.verdict not in allowed for decision in decisions):
        raise click.exceptions.Exit(1)
