"""What a hardening leaves for people: the latency, summaries, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloakonnx.classifier.latency import MOST_SECONDS, SESSIONS, Latency, measured_latency
from cloakonnx.entries import written
from cloakonnx.errors import OutputError
from cloakonnx.evaluation.evaluation import Evaluation, load_evaluation
from cloakonnx.evaluation.gates import Decision
from cloakonnx.evaluation.samples import load_samples
from cloakonnx.files import write_text
from cloakonnx.graph.file.model import Model
from cloakonnx.json_files import converted
from cloakonnx.pipeline._hardening import Hardening
from cloakonnx.reporting.page import report_html
from cloakonnx.reporting.tables import summary_markdown
from cloakonnx.scoring.analysis import Analysis

SAMPLES = "samples.npz"
SOURCE_EVALUATION, SOURCE_REPORT, SOURCE_SUMMARY = "source-evaluation.json", "source-report.html", "source-summary.md"
REPORT, SUMMARY = "report.html", "summary.md"
TIMED = "latency"
"""The stage that measures the latency; its record holds it, so that no other file has times."""


def measure(work: Hardening, hardened: Model) -> Mapping[str, Any]:
    """Time the hardened model beside its source; where no gate asks for that, not for long."""
    most = None if work.settings.is_latency_judged else MOST_SECONDS
    with work.observer.progress("latency", SESSIONS) as advance:
        found = measured_latency(
            work.classifier.beside(hardened), work.classifier, most_seconds=most, on_progress=advance
        )
    return {TIMED: written(found)}


def latency(work: Hardening) -> Latency | None:
    """Return what was measured; None where it was not asked for.

    Raises:
        OutputError: the record is damaged.
    """
    if not work.settings.latency:
        return None
    try:
        return converted(work.folder.left(TIMED).get(TIMED), Latency)
    except ValueError as error:
        path = work.folder.file(work.folder.record(TIMED))
        raise OutputError(
            f"{path} is damaged: {error}; remove it, and measure again with {{force}}", parameter="force"
        ) from None


def write_views(
    work: Hardening, found: Evaluation, decisions: Sequence[Decision], *, analysis: Analysis, hardened: Model
) -> None:
    """Write the summary and, where it is asked for, the page."""
    timed = latency(work)
    summary = summary_markdown(found, decisions, split=work.parts.split, command=work.command, latency=timed)
    write_text(work.folder.file(SUMMARY), summary)
    if work.settings.report:
        page = report_html(
            found,
            analysis=analysis,
            model=hardened,
            samples=load_samples(work.folder.file(SAMPLES)),
            command=work.command,
            latency=timed,
        )
        write_text(work.folder.file(REPORT), page)


def write_source_views(work: Hardening, tried: Sequence[str]) -> None:
    """Write summary and page of the source alone, with what was tried."""
    found = load_evaluation(work.folder.file(SOURCE_EVALUATION))
    summary = summary_markdown(found, (), split=work.parts.split, command=work.command, tried=tried)
    write_text(work.folder.file(SOURCE_SUMMARY), summary)
    if work.settings.report:
        page = report_html(found, command=work.command, tried=tried)
        write_text(work.folder.file(SOURCE_REPORT), page)
