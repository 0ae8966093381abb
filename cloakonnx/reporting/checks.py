"""Gates of several models as one table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from cloakonnx.reporting.junit import Suite
from cloakonnx.reporting.terminal import add_row, print_line, print_table

_STYLES = {"pass": "green", "fail": "red", "error": "red", "inconclusive": "yellow"}


def print_checks(suites: Sequence[Suite], console: Console) -> None:
    """Print what became of the gates of several models: the sentence first, then a row for each gate."""
    failed = [each for each in suites if not each.passed]
    if failed:
        print_line(f"{len(failed)} of {len(suites)} models fail: {', '.join(each.name for each in failed)}.", console)
    else:
        print_line(f"{len(suites)} of {len(suites)} models pass.", console)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "gate", "", "measured"):
        table.add_column(name, overflow="fold")
    for suite in suites:
        rows: list[tuple[str, str, str]] = [(each.gate, each.verdict, each.detail) for each in suite.decisions]
        rows += [("", "error", suite.error)] if suite.error else []
        for index, (gate, verdict, measured) in enumerate(rows):
            name = "" if index else suite.name
            add_row(table, name, gate, verdict, measured, style=_STYLES[verdict])
    print_table(table, console)
