"""The report page's parts on the masks: accuracy over how many features go, and the scores or weights themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.sweeps.record import Point, Sweep
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.reporting import _charts as charts
from cloakonnx.reporting._figures import Cell, Figure, Sheet, accuracy_cell, figure
from cloakonnx.reporting._layers import LayerPart, layer_part
from cloakonnx.scoring.analysis import Analysis, TapScores
from cloakonnx.selection.topk import ranking
from cloakonnx.statistics import Accuracy, share_cell
from cloakonnx.text import eps_text

_BINS = 24
_MOST_ROWS = 2000


def sweep_figure(found: Sweep) -> Figure:
    """Return accuracy over the share of masked features: static dashed, adaptive solid, random masks as a band."""
    features = found.scores.features
    points = [next(group) for _, group in groupby(found.points, key=lambda point: point.removed)]
    clean = charts.Series(
        "clean", "clean", "point", tuple(_bare(p.removed / features, p.mask.clean, "clean") for p in points)
    )
    static = charts.Series(
        "static (no claim)",
        "static",
        "point",
        tuple(_bare(p.removed / features, p.mask.static, "static") for p in points),
    )
    adaptive = []
    for index, first in enumerate(_unmasked(found)):
        shares = [(0.0, first), *((e.removed / features, e.results[index].hardened.robust) for e in found.adaptive)]
        name = f"adaptive at {eps_text(found.adaptive[0].results[index].eps)}"
        style, shape = ("hardened", ("circle", "square", "triangle", "diamond")[index % 4])
        adaptive.append(charts.Series(name, style, shape, tuple(_mark(x, share, name) for x, share in shares)))
    series = [clean, static, *adaptive]
    bands = [_band(points, features, "clean", "band-clean"), _band(points, features, "static", "band-static")]
    values = [value for each in series for mark in each.marks for value in (mark.y, mark.low, mark.high)]
    values += [value for band in bands if band for _, low, high in band.ends for value in (low, high)]
    widest = max(point.removed for point in points) / features
    svg = charts.lines(
        "sweep",
        f"Accuracy over the share of masked features of {found.scores.tap}: static dashed, adaptive solid",
        series,
        bands=[band for band in bands if band],
        x_label="share of features masked",
        x_ticks=[(value, f"{value:.0%}") for value in charts.ticks(0.0, widest)],
        y_range=charts.share_range([value for value in values if value is not None]),
    )
    caption = (
        "Static counts inputs that were made without the mask in sight: no claim. Bands are what masks in random "
        "places do, from the least to the most. The accuracy axis need not start at 0."
    )
    if not found.adaptive:
        caption += " Adaptive accuracy was not measured, so nothing here tells how robust any of these masks is."
    more = [("band-clean", "band", "random masks: clean"), ("band-static", "band", "random masks: static")]
    return figure(svg, caption, series, more if any(bands) else [])


def _unmasked(found: Sweep) -> list[Accuracy]:
    """Return robust accuracy without a mask at each eps: the worst of what inputs made beside each mask left."""
    beside = zip(*(each.results for each in found.adaptive), strict=True)
    return [min((at.compared().baseline.robust for at in same), key=lambda share: share.correct) for same in beside]


def sweep_sheet(found: Sweep) -> Sheet:
    """Return the sweep's numbers."""
    radii = [result.eps for result in found.adaptive[0].results] if found.adaptive else []
    robust = {each.removed: [result.hardened.robust for result in each.results] for each in found.adaptive}
    robust[0] = _unmasked(found)
    rows = []
    for _, same in groupby(found.points, key=lambda point: point.removed):
        point = next(same)
        cells = [Cell(point.remove, point.removed / found.scores.features), Cell(str(point.removed), point.removed)]
        cells += [accuracy_cell(point.mask.clean), accuracy_cell(point.mask.static)]
        attacked = robust.get(point.removed) if radii else []
        cells += [Cell("", -1.0)] * len(radii) if attacked is None else [accuracy_cell(share) for share in attacked]
        rows.append(tuple(cells))
    columns = ("remove", "features", "clean", "static (no claim)", *(f"adaptive at {eps_text(eps)}" for eps in radii))
    caption = f"Accuracy by how many of the {found.scores.features} features are masked, n = {found.data.count}"
    return Sheet("sweep-table", caption, columns, tuple(rows), sortable=True)


def _bare(x: float, share: Accuracy, name: str) -> charts.Mark:
    return charts.Mark(x, share.value, None, None, f"{name}, {x:.1%} masked: {share_cell(share)}")


def _mark(x: float, share: Accuracy, name: str) -> charts.Mark:
    interval = share.interval
    return charts.Mark(x, share.value, interval.low, interval.high, f"{name}, {x:.1%} masked: {share_cell(share)}")


def _band(points: Sequence[Point], features: int, kind: str, style: str) -> charts.Band | None:
    ends = []
    for point in points:
        values = [getattr(mask, kind).value for mask in point.random_masks]
        if values:
            ends.append((point.removed / features, min(values), max(values)))
    return charts.Band(f"random masks: {kind}", style, tuple(ends)) if len(ends) > 1 else None


@dataclass(frozen=True)
class MaskPart:
    """What the page says of scores or weights.

    Attributes:
        intro: A sentence or two.
        chart: Their distribution.
        sheets: Tables.
        layers: Pictures of the masks one by one; None where there are scores.
    """

    intro: str
    chart: Figure
    sheets: tuple[Sheet, ...]
    layers: LayerPart | None = None


def mask_part(analysis: Analysis | None, masks: Sequence[Mask] | None, found: Evaluation) -> MaskPart | None:
    """Return scores with the masked features marked, or the weights of masks that were learned or read.

    Args:
        analysis: With scores or masks.
        masks: Of the hardened model, where its file was given.
        found: The evaluation; how many features went is taken from it where the model was not given.
    """
    if analysis is not None and analysis.scores is not None:
        return _scores(analysis.scores, masks, found)
    given = masks if masks is not None else analysis.masks if analysis is not None else ()
    return _weights(given) if given else None


def _scores(scores: TapScores, masks: Sequence[Mask] | None, found: Evaluation) -> MaskPart:
    count = len(scores.scores)
    order = ranking(scores)
    if masks:
        removed = {i for mask in masks if mask.tap == scores.tap and mask.weights.size == count for i in mask.removed}
        origin = "as read from the hardened model"
    else:
        records = [each for each in found.masks if each.tap == scores.tap and each.features == count]
        removed = set(order[: records[0].removed]) if records else set()
        origin = "the highest scores, as 'cloakonnx apply' takes them; give --model to mark what the model really masks"
        if not records:
            origin = "the evaluated model carries no mask at this tap"
    gone = np.zeros(count, np.bool_)
    gone[sorted(removed)] = True
    rows = []
    for rank, feature in enumerate(order[:_MOST_ROWS]):
        score = float(scores.scores[feature])
        state = "masked" if gone[feature] else "kept, dead" if score == 0 else "kept"
        rows.append(
            (
                Cell(str(feature), feature),
                Cell(f"{score:.4g}", score),
                Cell(str(rank + 1), rank + 1),
                Cell(state, style="masked" if gone[feature] else ""),
            )
        )
    sheet = Sheet(
        "scores-table",
        f"Scores of the features of {scores.tap}{_cut(count)}",
        ("feature", "score", "rank", "state"),
        tuple(rows),
        sortable=True,
        words=frozenset({3}),
    )
    intro = (
        f"{int(gone.sum())} of {count} features of {scores.tap} are masked ({origin}). Scored by {scores.criterion}: "
        f"higher means more worth masking."
    )
    svg = charts.histogram(
        "scores",
        f"How the scores of {count} features are distributed; masked ones hatched",
        _bars(scores.scores, gone),
        x_label=f"score ({scores.criterion})",
        y_label="features",
    )
    return MaskPart(intro, figure(svg, "Hatched: masked. Plain: kept.", more=_LEGEND), (sheet,))


_LEGEND = (("masked", "bar", "masked"), ("kept", "bar", "kept"))


def _weights(masks: Sequence[Mask]) -> MaskPart:
    weights = np.concatenate([mask.weights.ravel() for mask in masks]).astype(np.float64)
    rows = tuple(
        (
            Cell(mask.key),
            Cell(str(mask.weights.size), mask.weights.size),
            Cell(str(len(mask.removed)), len(mask.removed)),
            *(Cell(f"{value:.3f}", value) for value in (*_spread(mask.weights), mask.change)),
        )
        for mask in masks
    )
    columns = (
        "mask on",
        "numbers",
        "of them 0",
        "least",
        "10%",
        "mean",
        "90%",
        "most",
        "root mean square of the change",
    )
    sheets = [Sheet("taps-table", "Masks, one by one", columns, rows, sortable=True)]
    numbers = ((mask.key, i, float(w)) for mask in masks for i, w in enumerate(mask.weights.flat))
    listed = islice(numbers, _MOST_ROWS)
    lines = tuple(
        (Cell(tap), Cell(str(i), i), Cell(f"{w:.3f}", w), Cell("masked" if w == 0 else "scaled" if w != 1 else "kept"))
        for tap, i, w in listed
    )
    caption = f"Numbers of the masks, one by one{_cut(len(weights))}"
    sheets.append(
        Sheet(
            "weights-table",
            caption,
            ("mask on", "place", "number", "state"),
            lines,
            sortable=True,
            words=frozenset({0, 3}),
        )
    )
    gone, scaled = int((weights == 0).sum()), int(((weights != 0) & (weights != 1)).sum())
    removes = bool(gone)
    svg = charts.histogram(
        "scores",
        f"Distribution of {len(weights):,} mask values" + ("; those of 0 hatched" if removes else ""),
        _bars(weights, weights == 0),
        x_label="mask value (1 changes nothing)",
        y_label="values",
    )
    caption = "Hatched: removed (0). Plain: kept or scaled." if removes else "Below 1: weakened. Above 1: amplified."
    chart = figure(svg, caption, more=_LEGEND if removes else ())
    return MaskPart(_intro(masks, gone, scaled, len(weights)), chart, tuple(sheets), layer_part(masks))


def _intro(masks: Sequence[Mask], gone: int, scaled: int, count: int) -> str:
    """Say what masks multiply and how many of their values remove, scale or leave it."""
    on_weights = sum(mask.on_weight for mask in masks)
    what = "weights" if on_weights == len(masks) else "activations" if not on_weights else "weights and activations"
    removed = (
        "none removes anything"
        if not gone
        else f"{gone:,} remove{'s' * (gone == 1)} what {'it multiplies' if gone == 1 else 'they multiply'}"
    )
    return (
        f"{len(masks)} mask{'s' * (len(masks) > 1)} on {what} with {count:,} values: {removed}, {scaled:,} scale it, "
        f"{count - gone - scaled:,} leave it unchanged."
    )


def _spread(weights: NDArray[np.float32]) -> tuple[float, ...]:
    """Return least, 10%, mean, 90% and most."""
    wide = weights.astype(np.float64)
    low, high = np.quantile(wide, (0.1, 0.9))
    return float(wide.min()), float(low), float(wide.mean()), float(high), float(wide.max())


def _bars(values: NDArray[np.float64], gone: NDArray[np.bool_]) -> list[charts.Bar]:
    low, high = float(min(values.min(), 0.0)), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    masked, kept = (np.histogram(values[which], edges)[0] for which in (gone, ~gone))
    return [charts.Bar(float(edges[i]), float(edges[i + 1]), int(kept[i]), int(masked[i])) for i in range(_BINS)]


def _cut(count: int) -> str:
    return f" (the first {_MOST_ROWS} of {count})" if count > _MOST_ROWS else ""
