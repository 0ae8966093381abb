"""What a model costs to ship in words: file size, nodes and latency, beside its baseline's."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cloakonnx.classifier.latency import Latency
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.text import brief, size_text

TITLE = "What it costs to ship"


def cost_rows(found: Evaluation, latency: Latency | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield rows of a table: what it is, of the model, of its baseline, and the change; none without a baseline."""
    model, baseline = found.model, found.baseline
    if baseline is None:
        return
    if model.size is not None and baseline.size is not None:
        change = f"{model.size / baseline.size - 1:+.1%}" if baseline.size else ""
        yield "file size", size_text(model.size), size_text(baseline.size), change
    if model.nodes is not None and baseline.nodes is not None:
        yield "nodes", str(model.nodes), str(baseline.nodes), f"{model.nodes - baseline.nodes:+d}"
    if latency is not None:
        times = brief(latency.seconds), brief(latency.baseline_seconds)
        yield timed_text(latency), *times, ratio_text(latency)


def cost_lines(found: Evaluation, latency: Latency | None = None) -> Iterator[str]:
    """Yield a sentence on size and nodes, and one on latency, where they are known."""
    both = [each for each in (found.model, found.baseline) if each is not None]
    sizes = [
        f"{size_text(each.size)} in {each.nodes} nodes"
        for each in both
        if each.size is not None and each.nodes is not None
    ]
    if sizes and len(sizes) == len(both):
        yield f"Size: {'; baseline: '.join(sizes)}."
    if latency is not None:
        times = f"{brief(latency.seconds)}; baseline: {brief(latency.baseline_seconds)}"
        yield f"{timed_text(latency).capitalize()}: {times}; {ratio_text(latency)}."


def latency_note(latency: Latency) -> str:
    """Say how and where the latency was measured."""
    chosen = "as many threads as it chooses" if latency.threads is None else _many(latency.threads, "thread")
    pairs = _many(len(latency.ratios), "pair")
    said = (
        f"Latency: medians of {pairs} of new sessions, timed in turn, by ONNX Runtime alone ({latency.provider}, "
        f"{chosen}) on {_many(latency.cores, 'core')} of {latency.processor}. Times differ from run to run"
    )
    if latency.shortened:
        said += "; calls take long, so few were timed: a gate, latency-ratio<=1.02 say, takes the time it needs"
    if not math.isfinite(latency.interval.low):
        said += "; fewer than 6 pairs give no interval"
    return f"{said}."


def ratio_text(latency: Latency) -> str:
    """Return the ratio with its interval."""
    interval = latency.interval
    known = f" [{interval.low:.3f}, {interval.high:.3f}]" if math.isfinite(interval.low) else ""
    return f"{latency.ratio:.3f} times{known}"


def timed_text(latency: Latency) -> str:
    """Return what was timed, as the name of a row."""
    return "latency, one sample" if latency.batch == 1 else f"latency, {latency.batch} samples"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
