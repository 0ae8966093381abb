"""The report page's part on classes and single samples: accuracy by class, and what became of each sample."""

from __future__ import annotations

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.per_sample import PerSample
from cloakonnx.reporting._figures import Cell, Sheet, accuracy_cell
from cloakonnx.text import eps_text

_MOST = 1000
"""Samples that are listed, at most: a page of more is slow to open, and the JSON file has them all."""


def class_sheet(found: Evaluation) -> Sheet | None:
    """Return accuracy by class; None where the file does not have it."""
    if found.samples is None:
        return None
    rows = []
    for each in found.samples.per_class:
        name = Cell(str(each.label) if each.name is None else f"{each.label} {each.name}", float(each.label))
        count = Cell(str(each.clean.count), float(each.clean.count))
        rows.append((name, count, *map(accuracy_cell, (each.clean, *each.robust))))
    columns = ("class", "samples", "clean", *(f"robust at {eps_text(each.eps)}" for each in found.results))
    return Sheet("class-table", "Accuracy by class", columns, tuple(rows), sortable=True)


def outcome_sheet(found: Evaluation) -> Sheet | None:
    """Return what became of the first samples; None where the file does not have it."""
    samples = found.samples
    if samples is None:
        return None
    count = min(len(samples.labels), _MOST)
    named = bool(samples.names)
    rows = [_outcome_row(samples, row, named=named) for row in range(count)]
    columns = ("sample", *(("file",) if named else ()), "label", "predicted")
    columns += tuple(f"at {eps_text(each.eps)}" for each in found.results)
    which = "each sample" if count == len(samples.labels) else f"the first {count} of {len(samples.labels)} samples"
    words = frozenset(range(1 if named else 3, len(columns)))
    return Sheet("outcome-table", f"What became of {which}", columns, tuple(rows), sortable=True, words=words)


def _outcome_row(samples: PerSample, row: int, *, named: bool) -> tuple[Cell, ...]:
    cells = [Cell(str(row), float(row)), *((Cell(samples.names[row]),) if named else ())]
    cells += [_class_cell(samples, each[row]) for each in (samples.labels, samples.predicted)]
    return (*cells, *(Cell(each[row]) for each in samples.outcomes))


def _class_cell(samples: PerSample, label: int) -> Cell:
    name = f" {samples.classes[label]}" if label < len(samples.classes) else ""
    return Cell(f"{label}{name}", float(label))
