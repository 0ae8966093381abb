"""The report page's part on how masks were learned: clean and robust samples of the select part, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloakonnx.errors import DataError
from cloakonnx.records import Entries
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
        return _part(Entries(learning, "learning."))
    except ValueError as error:
        raise DataError(f"the analysis is damaged: {error}; make it again with cloakonnx learn") from None


def _part(learning: Entries) -> LearningPart:
    select, chosen = learning.object("select"), learning.object("chosen")
    count, attacked, steps = (select.whole(key, 1) for key in ("count", "attacked", "attack_steps"))

    def shares(found: Entries, clean: str, robust: str) -> tuple[Accuracy, Accuracy]:
        return _share(found, clean, count), _share(found, robust, attacked)

    before = _Tried("without masks", 0, *shares(select, "clean_before", "robust_before"))
    epochs = [
        _Tried(f"epoch {number}", number, *shares(each, "select_clean", "select_robust"), each.number("loss"))
        for each in learning.objects("curve")
        for number in [each.whole("epoch", 1)]
    ]
    epoch, blend = chosen.whole("epoch", 1), chosen.number("blend")
    name = f"chosen: epoch {epoch}" + (f", drawn to {blend:g} of the way" if blend < 1 else "")
    taken = _Tried(name, epoch, *shares(chosen, "clean", "robust"))
    return LearningPart(_chart(before, epochs, taken, steps), _sheet(before, epochs, taken, steps))


def _share(found: Entries, key: str, count: int) -> Accuracy:
    correct = found.whole(key)
    if correct > count:
        raise ValueError(f"{key} is {correct} of {count} samples")
    return Accuracy(correct, count)


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
        "masks that were taken. Whiskers are 95% intervals. Masks were chosen by these counts: they flatter."
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
