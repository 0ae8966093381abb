"""Gates on the command line: what a result must show, and the exit code where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._files import JUNIT_OUTPUT, keep_apart
from cloakonnx.cli._output import complain, say
from cloakonnx.cli._parameters import option_of
from cloakonnx.cli._verb import Group, option

if TYPE_CHECKING:
    from cloakonnx.errors import CloakError
    from cloakonnx.evaluation.gates import Decision, Gate
    from cloakonnx.reporting.junit import Suite

_HEAD = 1000
"""Bytes by which a JUnit file is known."""

_HELP = (
    "Gate that must pass, or exit code 1: clean-drop<=1%, robust-gain>=5%@2/255, robust>=40%@2/255, flags==0, ... "
    "(docs/gates.md). May be repeated."
)


def junit_option() -> Any:
    """Declare --junit."""
    return option(
        "--junit", type=JUNIT_OUTPUT, help="Write the gates as JUnit XML, which CI systems show; replaces such a file."
    )


@dataclass(frozen=True, kw_only=True)
class Gates(Group):
    """Gates, and whether an inconclusive one fails."""

    require: tuple[str, ...] = option("--require", metavar="GATE", multiple=True, help=_HELP)
    allow_inconclusive: bool = option(
        "--allow-inconclusive", is_flag=True, help="Let inconclusive gates pass: only a clear failure fails."
    )

    junit: Path | None = junit_option()

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates; raises OptionError for one that is none, OutputError for a JUnit file that can't be written."""
        from cloakonnx.evaluation.gates import parse_gate

        if self.junit is not None and not self.require:
            raise click.UsageError("--junit needs gates: --require 'robust>=60%', say")
        check_junit(self.junit)
        return tuple(map(parse_gate, self.require))

    def measured(self, eps: Sequence[float], *, sanity: bool) -> tuple[Gate, ...]:
        """Return the gates of an evaluation at some eps; raises OptionError for one on what it does not measure."""
        from cloakonnx.evaluation.gates import check_measured

        gates = self.gates  # which looks at the JUnit file
        check_measured(gates, eps=eps, sanity=sanity, latency=True)
        return gates

    def write_error(self, error: CloakError, *, name: str) -> None:
        """Write the JUnit file of a check that failed before the gates were judged: one case with the error."""
        from cloakonnx.reporting.junit import Suite

        write_junit(self.junit, Suite(name, (), error=error.said(option_of)))

    def conclude(self, decisions: Sequence[Decision], *, name: str) -> None:
        """Write the JUnit file; exit code 1 where a gate failed, or is inconclusive and that is not allowed."""
        from cloakonnx.reporting.junit import Suite

        suite = Suite(name, decisions, self.allow_inconclusive)
        write_junit(self.junit, suite)
        if not suite.passed:
            raise click.exceptions.Exit(1)


@dataclass(frozen=True, kw_only=True)
class SomeGates(Gates):
    """At least one gate."""

    require: tuple[str, ...] = option("--require", metavar="GATE", multiple=True, required=True, help=_HELP)


def check_junit(path: Path | None) -> None:
    """Check that a JUnit file can be written; raises OutputError, also where a file of another kind is there."""
    if path is None:
        return
    from cloakonnx.errors import OutputError
    from cloakonnx.files import check_output
    from cloakonnx.remote import fetched

    check_output(path, force=True)
    keep_apart(path)
    if fetched(path).exists():
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head and b"<testsuite" not in head:
            raise OutputError(f"{path} exists and is no JUnit file, so --junit does not replace it; name another")


def write_junit(path: Path | None, *suites: Suite) -> None:
    """Write a JUnit file, if there is to be one."""
    if path is None:
        return
    from cloakonnx.files import write_text
    from cloakonnx.reporting.junit import junit_xml

    write_text(path, junit_xml(*suites))


def tell_of_gates(decisions: Sequence[Decision]) -> None:
    """Say on stderr what became of gates; with --quiet only of those that do not pass."""
    for decision in decisions:
        (say if decision.verdict == "pass" else complain)(str(decision))
