"""The report page's parts that an evaluation gives: accuracies, the curve over eps, flags, controls, settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloakonnx.attacks.base import registered
from cloakonnx.attacks.presets import PRESETS, names_of
from cloakonnx.evaluation.coverage import Covered, coverage
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.results import AtEps
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.reporting import _charts as charts
from cloakonnx.reporting._figures import Cell, Figure, Sheet, accuracy_cell, figure, text_rows
from cloakonnx.reporting.tables import amount, bound, controls, model_word, stages, status
from cloakonnx.statistics import Accuracy, Paired, difference_cells, share_cell
from cloakonnx.text import eps_exact, eps_text

SHIPPED = "shipped"
"""Name of the third column: the model that is deployed, quantised, say."""

_NO_CLAIM = "(no claim)"
_NORMS = {"linf": "L∞: no pixel value moves by more than eps", "l2": "L2: the whole change has length eps at most"}


def accuracy_figure(found: Evaluation, shipped: Evaluation | None = None) -> Figure:
    """Return clean and robust accuracy of the model, of its baseline where there is one, and of what is shipped."""
    before, after = found.columns if found.clean is not None else ("", "model")
    groups: list[tuple[str, Accuracy | None, Accuracy]] = [("Clean", found.clean_baseline, found.clean_hardened)]
    groups += [
        (f"Robust at {eps_text(r.eps)}", r.baseline.robust if r.baseline is not None else None, r.hardened.robust)
        for r in found.results
    ]
    thirds = [None] * len(groups) if shipped is None else shares_at(shipped, found)
    rows = []
    for (name, first, second), third in zip(groups, thirds, strict=True):
        beside = () if first is None else (_row(before, "baseline", "square", first),)
        last = () if third is None else (_row(SHIPPED, "shipped", "diamond", third),)
        rows.append((name, (*beside, _row(after, "hardened", "circle", second), *last)))
    svg = charts.intervals("accuracy", "Clean and robust accuracy, with 95% intervals", rows)
    more = [("hardened", "circle", after)]
    if found.clean is not None:
        more.insert(0, ("baseline", "square", before))
    if shipped is not None:
        more.append(("shipped", "diamond", f"{SHIPPED}: {shipped.model.name}"))
    caption = (
        "Robust is the worst case: right on the clean input and on every input that any attack found. "
        "Bars are Wilson's 95% intervals."
    )
    return figure(svg, caption, more=more)


def shares_at(shipped: Evaluation, found: Evaluation) -> list[Accuracy]:
    """Return clean accuracy of what is shipped, and its robust accuracy at each eps of another evaluation."""
    robust = {each.eps: each.hardened.robust for each in shipped.results}
    return [shipped.clean_hardened, *(robust[each.eps] for each in found.results)]


def accuracy_sheet(found: Evaluation, shipped: Evaluation | None = None) -> Sheet:
    """Return the same in numbers, with the paired differences, and with what is shipped as the third column."""
    sheet = _sheet_of_two(found)
    if shipped is None:
        return sheet
    at = len(sheet.columns) - 2 if found.clean is not None else len(sheet.columns)  # before the differences
    left = iter(shares_at(shipped, found))
    rows = []
    for row in sheet.rows:
        is_static = row[0].text.endswith(_NO_CLAIM)
        cell = Cell("", -1.0) if is_static else accuracy_cell(next(left))
        rows.append((*row[:at], cell, *row[at:]))
    columns = (*sheet.columns[:at], SHIPPED, *sheet.columns[at:])
    return replace(sheet, columns=columns, rows=tuple(rows))


def _sheet_of_two(found: Evaluation) -> Sheet:
    if found.clean is None or found.clean_baseline is None:
        return _sheet_of_one(found)
    rows = [_accuracy_row("clean", found.clean_baseline, found.clean_hardened, found.clean)]
    for each in found.results:
        if each.beside is not None:
            static, baseline, pairs = each.beside
            name = f"robust at {eps_text(each.eps)} (adaptive)"
            rows.append(_accuracy_row(name, baseline.robust, each.hardened.robust, pairs))
            empty = Cell("", -1.0)
            cell = accuracy_cell(static)
            said = f"{found.replayed} at {eps_text(each.eps)} {_NO_CLAIM}"
            rows.append((Cell(said), empty, cell, empty, Cell("", 2.0)))
    columns = ("accuracy", *found.columns, "difference, points", "McNemar p")
    return Sheet("accuracy-table", "The same in numbers", columns, tuple(rows), sortable=True)


def _sheet_of_one(found: Evaluation) -> Sheet:
    shares = [("clean", found.clean_hardened)]
    shares += [(f"robust at {eps_text(each.eps)}", each.hardened.robust) for each in found.results]
    rows = tuple((Cell(name), accuracy_cell(share)) for name, share in shares)
    return Sheet("accuracy-table", "The same in numbers", ("accuracy", "model"), rows, sortable=True)


def _row(name: str, style: str, shape: str, share: Accuracy) -> charts.Row:
    return charts.Row(name, style, shape, share.value, share.interval.low, share.interval.high)


def _accuracy_row(name: str, before: Accuracy, after: Accuracy, pairs: Paired) -> tuple[Cell, ...]:
    difference, p = difference_cells(pairs)
    return (
        Cell(name),
        accuracy_cell(before),
        accuracy_cell(after),
        Cell(difference, pairs.difference),
        Cell(p, 0.0 if p.startswith("<") else float(p)),
    )


def curve_figure(found: Evaluation) -> Figure:
    """Return accuracy over eps: adaptive solid, static dashed."""
    results = sorted(found.results, key=lambda each: each.eps)
    series = _series_beside(found, results)
    name = f"{found.columns[1]}, attacked itself" if found.clean is not None else "model"
    points = [(0.0, found.clean_hardened), *((r.eps, r.hardened.robust) for r in results)]
    series.append(_series(name, "hardened", "circle", points))
    svg = charts.lines(
        "curve",
        f"Accuracy over eps under {found.attack}"
        + (f": {found.replayed} and adaptive" if found.clean is not None else ""),
        series,
        x_label=f"eps ({found.norm}, pixel space)",
        x_ticks=[(0.0, "0"), *((r.eps, eps_text(r.eps)) for r in results)],
    )
    caption = "Whiskers are 95% intervals, set side by side where they would hide each other."
    if found.clean is not None:
        own, replayed = ("Solid", "Dashed") if len(results) > 1 else ("Squares and circles", "Triangles")
        caption = (
            f"{own}: attacks made on each model itself. {replayed}: inputs made on the baseline, replayed; what they "
            f"promise beyond that is not robustness. {caption}"
        )
    return figure(svg, caption, series)


def _series_beside(found: Evaluation, results: Sequence[AtEps]) -> list[charts.Series]:
    """Return the baseline's curve, and the model's on inputs that were made on the baseline."""
    beside = [(each.eps, each.beside) for each in results if each.beside is not None]
    if found.clean_baseline is None:
        return []
    before, after = found.columns
    own = [(0.0, found.clean_baseline), *((eps, each.baseline.robust) for eps, each in beside)]
    replayed = [(0.0, found.clean_hardened), *((eps, each.static) for eps, each in beside)]
    return [
        _series(f"{before}, attacked itself", "baseline", "square", own),
        _series(f"{after}, on the baseline's inputs ({found.replayed}, no claim)", "static", "triangle", replayed),
    ]


def _series(name: str, style: str, shape: str, points: Sequence[tuple[float, Accuracy]]) -> charts.Series:
    return charts.Series(name, style, shape, tuple(_mark(name, eps, share) for eps, share in points))


def _mark(name: str, eps: float, share: Accuracy) -> charts.Mark:
    interval = share.interval
    said = f"{name}, eps {eps_text(eps)}: {share_cell(share)}"
    return charts.Mark(eps, share.value, interval.low, interval.high, said)


def sanity_sheet(found: Evaluation, sanity: Sanity) -> Sheet:
    """Return the flags with numbers and thresholds; those that fired first."""
    order = {True: 0, None: 1, False: 2}
    rows = []
    for flag in sorted(sanity.flags, key=lambda each: order[each.fired]):
        said = status(flag)
        meaning = f"{flag.measured}. It means: {flag.meaning}." if flag.fired else flag.measured
        rows.append(
            (
                Cell(flag.name),
                Cell(said, style="fired" if flag.fired else "quiet" if flag.fired is False else "missing"),
                Cell("—" if flag.value is None else amount(flag.value, flag.unit), flag.value),
                Cell(bound(flag), flag.threshold),
                Cell("—" if flag.eps is None else eps_text(found.as_written(flag.eps)), flag.eps),
                Cell(meaning),
            )
        )
    columns = ("flag", "state", "number", "fires", "eps", "what was measured")
    caption = f"Sanity flags, on the first {sanity.samples} samples that the model gets right"
    return Sheet("sanity-table", caption, columns, tuple(rows), sortable=True, words=frozenset({0, 1, 5}))


def control_sheets(found: Evaluation) -> list[Sheet]:
    """Return the controls and how the worst case came about, for each eps."""
    sheets = []
    for index, each in enumerate(found.results):
        for kind, grid in (("controls", controls(found, each)), ("stages", stages(found, each))):
            words = frozenset({0, 1}) if kind == "stages" else frozenset({0})
            columns = ("model", *grid.columns[1:])
            sheets.append(Sheet(f"{kind}-{index}", grid.title, columns, text_rows(grid.rows), words=words))
    return sheets


def settings_lines(found: Evaluation) -> list[tuple[str, str]]:
    """Return settings and hashes as names and values."""
    pre = {key: value for key, value in found.preprocessing.items() if value is not None}
    return [
        (f"{model_word(found)} model".replace("model model", "model"), found.model.name),
        ("its sha256", found.model.sha256),
        *_baseline_lines(found),
        *((f"mask {i + 1}", f"{m.tap}: {m.removed} of {m.features} weights 0") for i, m in enumerate(found.masks)),
        ("samples", f"{found.data.name}, n = {found.data.count}"),
        ("samples' sha256", found.data.sha256),
        *_seen_lines(found),
        ("attack", found.attack),
        ("eps", ", ".join(eps_text(each.eps) for each in found.results)),
        ("norm", found.norm),
        ("seed", str(found.seed)),
        ("batch size", str(found.batch_size)),
        ("provider", found.provider),
        ("control attack", _plain(found.control)),
        ("preprocessing", _plain({name: _values(each) for name, each in pre.items()})),
        *(("note", note) for note in found.notes),
        *((f"{each.framework} {each.id}", _covered(each)) for each in coverage(found)),
        *((f"version of {name}", value) for name, value in found.versions.items()),
    ]


def _covered(each: Covered) -> str:
    return f"{each.name}: {'' if each.tried else 'not tried, '}{each.how}"


def _baseline_lines(found: Evaluation) -> list[tuple[str, str]]:
    if found.baseline is None:
        return []
    name = f"{found.model.name} without its masks" if found.baseline_is_stripped else found.baseline.name
    return [("baseline", name), ("baseline's sha256", found.baseline.sha256)]


def _seen_lines(found: Evaluation) -> list[tuple[str, str]]:
    if not found.masks and found.data.seen is None:
        return []
    seen = "not known (no --analysis)" if found.data.seen is None else f"{found.data.seen}"
    return [("samples that the masks were made from", seen)]


def attack_lines(found: Evaluation) -> list[str]:
    """Return the attacks of the worst case with their settings, once each."""
    stages_of = found.results[0].hardened.stages if found.results else ()
    hidden = {"attack", "eps", "norm", "seed"}
    lines = []
    for stage in stages_of:
        chosen = {k: v for k, v in (stage.settings or {}).items() if k not in hidden and v not in (None, False)}
        text = stage.name if not chosen else f"{stage.name} ({_plain(chosen)})"
        if text not in lines:
            lines.append(text)
    return lines


def norm_text(norm: str) -> str:
    """Return what a norm's ball is, in words."""
    return _NORMS.get(norm, norm)


def command(found: Evaluation) -> str:
    """Return the command that makes the evaluation again, from what its file records."""
    words = ["cloakonnx", "evaluate", found.model.name]
    script = ".py:" in found.data.name
    words += ["--data-script" if script else "--data", found.data.name]
    if found.baseline is not None and not found.baseline_is_stripped:
        words += ["--baseline", found.baseline.name]
    words += ["--attack", found.attack, "--eps", ",".join(eps_exact(each.eps) for each in found.results)]
    words += ["--norm", found.norm, *_of_attacks(found)]
    words += ["--seed", str(found.seed), "--batch-size", str(found.batch_size)]
    words += ["--provider", found.provider.removesuffix("ExecutionProvider").lower(), *_preprocessing(found)]
    words += ["--no-sanity"] if found.sanity is None else []
    return shlex.join([*words, "-o", "again.json"])


def _of_attacks(found: Evaluation) -> list[str]:
    """Return the steps and restarts of a single attack, and of several where they are not their own."""
    stages = found.results[0].hardened.stages if found.results else ()
    made = {each.name: each.settings for each in stages if each.settings is not None}
    words: list[str] = []
    for name in ("max_iter", "restarts"):
        own = made.get(found.attack)
        value = _changed(found.attack, made, name) if own is None else own.get(name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    every = [
        stage.settings or {}
        for each in found.results
        for side in (each.hardened, each.baseline)
        if side is not None
        for stage in side.stages
    ]
    return [*words, "--straight-through"] if any(each.get("straight_through") for each in every) else words


def _changed(attack: str, made: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    """Return what was set for the attacks by gradients of presets and lists; None where each has its own."""
    entries = [each for part in names_of(attack) for each in PRESETS.get(part, ({"name": part},))]
    for each in entries:
        cls = registered().get(each["name"])
        if cls is None or not cls.by_gradient or name not in cls.settings():
            continue
        value = made.get(each["name"], {}).get(name)
        if value is not None and value != each.get(name, cls.settings()[name].default):
            return value
    return None


def _preprocessing(found: Evaluation) -> list[str]:
    words = []
    for name in ("scale", "mean", "std", "layout", "bounds"):
        value = found.preprocessing.get(name)
        if value is None or value == [] or (name, value) in (("scale", 1.0), ("bounds", [0.0, 1.0])):
            continue
        text = ",".join(map(repr, value)) if isinstance(value, (list, tuple)) else str(value)
        words += [
            f"--{name}={text}" if text.startswith("-") else f"--{name}",
            *([] if text.startswith("-") else [text]),
        ]
    return words


def _values(of: Any) -> Any:
    """Return a list as its values, one for each channel, and a number without a needless point."""
    if isinstance(of, (list, tuple)):
        return " ".join(f"{each:g}" for each in of) or "none"
    return f"{of:g}" if isinstance(of, float) else of


def _plain(values: Mapping[str, Any]) -> str:
    shown = (f"{k} {v if isinstance(v, str) else json.dumps(v)}" for k, v in values.items() if v is not None)
    return ", ".join(shown)
