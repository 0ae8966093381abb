"""A hardening in Markdown, for the summary of a build: the verdict, the gates, the table."""

from __future__ import annotations

from collections.abc import Sequence

from cloakonnx.evaluation import Decision, Evaluation, verdict
from cloakonnx.report.evaluation import evaluation_markdown

_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def summary_markdown(
    found: Evaluation, decisions: Sequence[Decision], *, split: str | None = None, command: str | None = None
) -> str:
    """Return the summary.

    Args:
        found: The evaluation.
        decisions: What became of the gates.
        split: How the data was split, in words.
        command: The command line that does it again.
    """
    judged = verdict(found)
    parts = [f"## {judged.title}", judged.sentence, *judged.caveats]
    if decisions:
        rows = [f"| {_SIGNS[each.verdict]} | `{each.gate}` | {_cell(each.detail)} |" for each in decisions]
        parts.append("\n".join(["| | gate | measured |", "|---|---|---|", *rows]))
    parts.append(evaluation_markdown(found).rstrip("\n"))
    if split is not None:
        parts.append(f"Data: {split}.")
    if command is not None:
        parts.append(f"Made by:\n\n```sh\n{command}\n```")
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
