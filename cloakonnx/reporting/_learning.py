"""The report page's part on how masks were learned: clean and robust samples of the select part, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloakonnx.entries import Number, Positive, Whole
from cloakonnx.errors import DataError
from cloakonnx.json_files import converted
from cloakonnx.reporting import _charts as charts
from cloakonnx.reporting._figures import Cell, Figure, Sheet, figure
from cloakonnx.statistics import Accuracy, share_cell


@dataclass(frozen=True)
class LearningPart:
    """What the page says of the learning.

    Attributes:
        chart: Clean and robust accuracy over the epochs.
        sheet: The same in numbers.
    """

    chart: Figure
    sheet: Sheet


@dataclass(frozen=True)
class _Select:
    count: Positive
    attacked: Positive
    attack_steps: Positive
    clean_before: Whole
    robust_before: Whole


@dataclass(frozen=True)
class _Chosen:
    epoch: Positive
    blend: Number
    clean: Whole
    robust: Whole


@dataclass(frozen=True)
class _Epoch:
    epoch: Positive
    loss: Number
    select_clean: Whole
    select_robust: Whole


@dataclass(frozen=True)
class _Learning:
    """What the page needs of the analysis' record of the learning."""

    select: _Select
    chosen: _Chosen
    curve: tuple[_Epoch, ...]


@dataclass(frozen=True)
class _Tried:
    """Masks that were tried on the select part."""

    name: str
    epoch: int
    clean: Accuracy
    robust: Accuracy
    loss: float | None = None


def learning_part(learning: Mapping[str, Any]) -> LearningPart:
    """Return the curve of a learning with its choice.

    Args:
        learning: As the analysis has it.

    Raises:
        DataError: an entry is missing or is not what it should be.
    """
    try:
        return _part(converted(learning, _Learning, "learning."))
    except ValueError as error:
        raise DataError(f"the analysis is damaged: {error}; make it again with cloakonnx learn") from None


def _part(learning: _Learning) -> LearningPart:
    select, chosen = learning.select, learning.chosen

    def shares(clean: int, robust: int, where: str) -> tuple[Accuracy, Accuracy]:
        counts = ((clean, select.count), (robust, select.attacked))
        wrong = next((f"{right} of {count}" for right, count in counts if right > count), None)
        if wrong is not None:
            raise ValueError(f"learning.{where} has {wrong} samples right")
        return Accuracy(clean, select.count), Accuracy(robust, select.attacked)

    before = _Tried("without masks", 0, *shares(select.clean_before, select.robust_before, "select"))
    epochs = [
        _Tried(
            f"epoch {each.epoch}", each.epoch, *shares(each.select_clean, each.select_robust, f"curve[{i}]"), each.loss
        )
        for i, each in enumerate(learning.curve)
    ]
    name = f"chosen: epoch {chosen.epoch}" + (f", drawn to {chosen.blend:g} of the way" if chosen.blend < 1 else "")
    taken = _Tried(name, chosen.epoch, *shares(chosen.clean, chosen.robust, "chosen"))
    steps = select.attack_steps
    return LearningPart(_chart(before, epochs, taken, steps), _sheet(before, epochs, taken, steps))


def _chart(before: _Tried, epochs: list[_Tried], taken: _Tried, steps: int) -> Figure:
    shown = [before, *epochs]
    clean = charts.Series("clean", "clean", "square", tuple(_mark("clean", each, each.clean) for each in shown))
    robust = charts.Series(
        f"robust under PGD-{steps}", "hardened", "circle", tuple(_mark("robust", each, each.robust) for each in shown)
    )
    both = (("robust", taken.robust), ("clean", taken.clean))
    marks = tuple(charts.Mark(taken.epoch, share.value, None, None, _said(what, taken, share)) for what, share in both)
    chosen = charts.Series(taken.name, "chosen", "diamond", marks)
    series = [clean, chosen, robust]
    svg = charts.lines(
        "learning",
        f"Clean and robust accuracy on the select part over the epochs of learning; {taken.name}",
        series,
        x_label="epoch",
        x_ticks=[(0.0, "0"), *((float(each.epoch), str(each.epoch)) for each in epochs)],
    )
    caption = (
        f"{before.clean.count} select samples, {before.robust.count} of them attacked by PGD-{steps} on the masks of "
        "each epoch that was tried; 0: without masks. The dotted line leads from clean to robust accuracy of the "
        "masks that were taken. Whiskers are 95% intervals. Masks were chosen by these counts, so they are optimistic."
    )
    return figure(svg, caption, series)


def _mark(what: str, tried: _Tried, share: Accuracy) -> charts.Mark:
    interval = share.interval
    return charts.Mark(tried.epoch, share.value, interval.low, interval.high, _said(what, tried, share))


def _said(what: str, tried: _Tried, share: Accuracy) -> str:
    return f"{what}, {tried.name}: {share.correct} of {share.count}, {share_cell(share)}"


def _sheet(before: _Tried, epochs: list[_Tried], taken: _Tried, steps: int) -> Sheet:
    rows = []
    for each in (before, *epochs, taken):
        loss = Cell("", -1.0) if each.loss is None else Cell(f"{each.loss:.4f}", each.loss)
        counts = (f"{share.correct} of {share.count}, {share_cell(share)}" for share in (each.clean, each.robust))
        sorts = (each.clean.value, each.robust.value)
        rows.append((Cell(each.name), loss, *(Cell(text, at) for text, at in zip(counts, sorts, strict=True))))
    columns = ("masks", "loss while learning", "clean", f"robust under PGD-{steps}")
    return Sheet("learning-table", "The select part, epoch by epoch", columns, tuple(rows))
