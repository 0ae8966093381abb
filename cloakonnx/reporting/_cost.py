"""The report page's part on what a model costs to ship: file size, nodes and latency, before and after."""

from __future__ import annotations

from cloakonnx.classifier.latency import Latency
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.results import ModelRecord
from cloakonnx.reporting._accuracy import SHIPPED
from cloakonnx.reporting._figures import Cell, Sheet
from cloakonnx.reporting.cost import TITLE, ratio_text, timed_text
from cloakonnx.text import brief, size_text


def cost_sheet(found: Evaluation, *, shipped: Evaluation | None = None, latency: Latency | None = None) -> Sheet | None:
    """Return size, nodes and latency of each model; None where nothing of them is known.

    Args:
        found: The evaluation.
        shipped: That of the model that is deployed.
        latency: Of the model and its baseline, where it was measured.
    """
    names = found.columns if found.baseline is not None else ("model",)
    models = [found.model] if found.baseline is None else [found.baseline, found.model]
    if shipped is not None:
        names, models = (*names, SHIPPED), [*models, shipped.model]
    rows: list[tuple[Cell, ...]] = [
        (Cell("file size"), *map(_size, models)),
        (Cell("nodes"), *map(_nodes, models)),
    ]
    if latency is not None and found.baseline is not None:
        rest = [Cell("")] * (len(models) - 2)
        times = (latency.baseline_seconds, latency.seconds)
        rows.append((Cell(timed_text(latency)), *(Cell(brief(each), each) for each in times), *rest))
        rows.append((Cell("latency, ratio"), Cell("1", 1.0), Cell(ratio_text(latency), latency.ratio), *rest))
    known = tuple(row for row in rows if any(cell.text for cell in row[1:]))
    return Sheet("cost-table", TITLE, ("cost", *names), known) if known else None


def _size(model: ModelRecord) -> Cell:
    return Cell("") if model.size is None else Cell(size_text(model.size), float(model.size))


def _nodes(model: ModelRecord) -> Cell:
    return Cell("") if model.nodes is None else Cell(str(model.nodes), float(model.nodes))
