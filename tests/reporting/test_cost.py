"""What a hardened model costs to ship: size, nodes and latency on the page, in Markdown and in the terminal."""

from __future__ import annotations

import dataclasses
import itertools

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.reporting.cost import cost_lines, latency_note, ratio_text
from cloakonnx.reporting.page import report_html
from cloakonnx.reporting.tables import evaluation_markdown
from tests.support.pages import Elements

from . import samples


def _with_models(found: Evaluation, model: samples.ModelRecord, baseline: samples.ModelRecord) -> Evaluation:
    return dataclasses.replace(found, model=model, baseline=baseline)


def test_size_nodes_and_latency_before_and_after() -> None:
    model, baseline = (
        samples.ModelRecord("h.onnx", "a" * 64, 21_340, 12),
        samples.ModelRecord("m.onnx", "b" * 64, 1_220_000, 9),
    )
    found = _with_models(samples.evaluation(), model, baseline)
    timed = samples.latency()
    text = Elements(report_html(found, latency=timed)).text
    how = (
        "Latency: medians of 9 pairs of new sessions, timed in turn, by ONNX Runtime alone (CPUExecutionProvider, 2 "
        "threads) on 4 cores of a processor. Times differ from run to run."
    )
    times = ("1.32 ms", "1.31 ms", "1.010 times [1.000, 1.020]")
    for said in ("What it costs to ship", "21.3 kB", "1.22 MB", *times, how):
        assert said in text
    assert "latency, one sample" not in report_html(found)
    assert "What it costs" not in report_html(samples.evaluation()), "of files that do not have it"
    assert cost_of(evaluation_markdown(found, latency=timed)) == [
        "| file size | 21.3 kB | 1.22 MB | -98.3% |",
        "| nodes | 12 | 9 | +3 |",
        "| latency, one sample | 1.32 ms | 1.31 ms | 1.010 times [1.000, 1.020] |",
    ]
    assert how in evaluation_markdown(found, latency=timed)
    assert len(cost_of(evaluation_markdown(found))) == 2
    assert list(cost_lines(found, timed)) == [
        "Size: 21.3 kB in 12 nodes; baseline: 1.22 MB in 9 nodes.",
        "Latency, one sample: 1.32 ms; baseline: 1.31 ms; 1.010 times [1.000, 1.020].",
    ]
    alone = dataclasses.replace(samples.evaluation(), model=model)
    assert list(cost_lines(alone)) == []  # a baseline whose size is not known


def test_few_pairs_of_sessions_have_no_interval() -> None:
    timed = dataclasses.replace(samples.latency(), ratios=(1.0, 1.1, 1.2), shortened=True, threads=None, batch=4)
    assert ratio_text(timed) == "1.100 times"
    note = latency_note(timed)
    for said in ("3 pairs", "as many threads as it chooses", "few were timed", "fewer than 6 pairs give no interval"):
        assert said in note
    found = samples.evaluation()
    text = Elements(report_html(found, latency=timed)).text
    assert "latency, 4 samples" in text


def cost_of(text: str) -> list[str]:
    """Return the rows of the table on costs of an evaluation as Markdown."""
    lines = text.partition("**What it costs to ship**")[2].strip().splitlines()
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines))[2:]
