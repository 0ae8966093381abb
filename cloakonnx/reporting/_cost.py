"""The report page's part on what a model costs to ship: file size, nodes and latency, before and after."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.results import ModelRecord
from cloakonnx.reporting._accuracy import SHIPPED
from cloakonnx.reporting._figures import Cell, Sheet
from cloakonnx.statistics import CONFIDENCE, median_interval
from cloakonnx.text import size_text


def cost_sheet(found: Evaluation, *, shipped: Evaluation | None = None, latency: Sequence[float] = ()) -> Sheet | None:
    """Return size, nodes and latency of each model; None where nothing of them is known.

    Args:
        found: The evaluation.
        shipped: That of the model that is deployed.
        latency: Latency ratios of the model to its baseline, where they were measured.
    """
    names = found.columns if found.baseline is not None else ("model",)
    models = [found.model] if found.baseline is None else [found.baseline, found.model]
    if shipped is not None:
        names, models = (*names, SHIPPED), [*models, shipped.model]
    rows: list[tuple[Cell, ...]] = [
        (Cell("file size"), *map(_size, models)),
        (Cell("nodes"), *map(_nodes, models)),
    ]
    if latency and found.baseline is not None:
        rest = [Cell("")] * (len(models) - 2)
        rows.append((Cell("latency, one sample"), Cell("1 (baseline)", 1.0), _ratio(latency), *rest))
    known = tuple(row for row in rows if any(cell.text for cell in row[1:]))
    return Sheet("cost-table", "What it costs to ship", ("", *names), known) if known else None


def _size(model: ModelRecord) -> Cell:
    return Cell("") if model.size is None else Cell(size_text(model.size), float(model.size))


def _nodes(model: ModelRecord) -> Cell:
    return Cell("") if model.nodes is None else Cell(str(model.nodes), float(model.nodes))


def _ratio(ratios: Sequence[float]) -> Cell:
    middle, interval = statistics.median(ratios), median_interval(ratios, confidence=CONFIDENCE)
    return Cell(f"{middle:.3f} times [{interval.low:.3f}, {interval.high:.3f}]", middle)
