"""Gates on the command line: what a result must show, and the exit code where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloakonnx.cli._files import PATH
from cloakonnx.cli._output import complain, say
from cloakonnx.cli._verb import Group, option

if TYPE_CHECKING:
    from cloakonnx.evaluation.gates import Decision, Gate

_HELP = (
    "Gate that must pass, or exit code 1: clean-drop<=1%, robust-gain>=5%@2/255, robust>=40%@2/255, flags==0, ... "
    "(docs/gates.md). May be repeated."
)


@dataclass(frozen=True, kw_only=True)
class Gates(Group):
    """Gates, and whether an inconclusive one fails."""

    require: tuple[str, ...] = option("--require", metavar="GATE", multiple=True, help=_HELP)
    allow_inconclusive: bool = option(
        "--allow-inconclusive", is_flag=True, help="Let inconclusive gates pass: only a clear failure fails."
    )

    junit: Path | None = option(
        "--junit", type=PATH, help="Write the gates as JUnit XML, which CI systems show; overwrites the file."
    )

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates; raises OptionError for one that is none, OutputError for a JUnit file that can't be written."""
        from cloakonnx.evaluation.gates import parse_gate
        from cloakonnx.files import check_output

        if self.junit is not None and not self.require:
            raise click.UsageError("--junit needs gates: --require 'robust>=60%', say")
        if self.junit is not None:
            check_output(self.junit, force=True)
        return tuple(map(parse_gate, self.require))

    def measured(self, eps: Sequence[float], *, sanity: bool) -> tuple[Gate, ...]:
        """Return the gates of an evaluation at some eps; raises OptionError for one on what it does not measure."""
        from cloakonnx.evaluation.gates import check_measured

        check_measured(self.gates, eps=eps, sanity=sanity, latency=True)
        return self.gates

    def conclude(self, decisions: Sequence[Decision], *, name: str) -> None:
        """Write the JUnit file; exit code 1 where a gate failed, or is inconclusive and that is not allowed."""
        if self.junit is not None:
            from cloakonnx.files import write_text
            from cloakonnx.reporting.junit import junit_xml

            write_text(self.junit, junit_xml(decisions, name=name, allow_inconclusive=self.allow_inconclusive))
        allowed = {"pass", "inconclusive"} if self.allow_inconclusive else {"pass"}
        if any(decision.verdict not in allowed for decision in decisions):
            raise click.exceptions.Exit(1)


@dataclass(frozen=True, kw_only=True)
class SomeGates(Gates):
    """At least one gate."""

    require: tuple[str, ...] = option("--require", metavar="GATE", multiple=True, required=True, help=_HELP)


def tell_of_gates(decisions: Sequence[Decision]) -> None:
    """Say on stderr what became of gates; with --quiet only of those that do not pass."""
    for decision in decisions:
        (say if decision.verdict == "pass" else complain)(str(decision))
