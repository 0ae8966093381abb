"""An evaluation as tables: the worst case first, static numbers never without it, then how it came about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from cloakonnx.classifier.latency import Latency
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import Decision
from cloakonnx.evaluation.results import AtEps, Stage
from cloakonnx.evaluation.sanity.flags import Flag, Sanity
from cloakonnx.reporting.cost import TITLE as COST_TITLE
from cloakonnx.reporting.cost import cost_lines, cost_rows, latency_note
from cloakonnx.reporting.terminal import add_row, is_narrow, print_line, print_table, titled_table
from cloakonnx.statistics import difference_cells as _difference
from cloakonnx.statistics import share_cell as _share
from cloakonnx.text import ended, eps_text, escaped, harmless, markdown, shown, shown_line

_NAMED = 3
"""Masks that are named, at most."""

_NO_CLAIM = "made on the baseline, replayed (no claim)"


@dataclass(frozen=True)
class Grid:
    """A table: its title, the names of its columns, and its rows; the first column holds words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def evaluation_markdown(found: Evaluation, *, latency: Latency | None = None) -> str:
    """Return an evaluation as Markdown, with the latency of its models where it was measured."""
    parts = [f"### {markdown(_headline(found))}", *map(markdown, _facts(found, latency))]
    for grid in _grids(found, latency):
        head = [
            " | ".join(["", *map(markdown, grid.columns), ""]).strip(),
            "|" + "---|" + "---:|" * (len(grid.columns) - 1),
        ]
        rows = ["| " + " | ".join(markdown(shown(cell)) for cell in row) + " |" for row in grid.rows]
        parts.append("\n".join([f"**{grid.title}**", "", *head, *rows]))
    return "\n\n".join([*parts, f"> {found.statement}"]) + "\n"


def print_evaluation(
    found: Evaluation, console: Console, *, complete: bool = True, latency: Latency | None = None
) -> None:
    """Print an evaluation to a terminal or a file: what it shows in a sentence, and then the numbers.

    Args:
        found: The evaluation.
        console: Where it is printed.
        complete: Whether to print controls, stages, and the table of sanity flags where none was raised.
        latency: Of the models, where it was measured.
    """
    judged = found.verdict
    said = (f"{judged.title}: {judged.sentence}", *judged.caveats)
    for line in (*said, _headline(found), *_facts(found, latency)):
        print_line(line, console)
    for grid in _grids(found, latency, complete=complete):
        table = titled_table(grid.title, grid.columns)
        for row in grid.rows:
            add_row(table, *row, narrow=is_narrow(console))
        print_table(table, console)
    print_line(found.statement, console)


def _headline(found: Evaluation) -> str:
    return f"{shown(found.model.name)} under {shown(found.attack)} ({shown(found.norm)})"


def _facts(found: Evaluation, latency: Latency | None) -> tuple[str, ...]:
    seen = found.data.seen
    warning = f" WARNING: the analysis has seen {seen} of the samples; the numbers are too good." if seen else ""
    paired = "" if found.clean is None else "; differences: Newcombe's paired interval, McNemar's exact test"
    return (
        _compared(found),
        f"Data: {shown(found.data.name)}, n = {found.data.count}.{warning} Seed {found.seed}, "
        f"batch size {found.batch_size}, {found.provider}. Intervals: 95%, Wilson{paired}.",
        *(() if _costs(found, latency) else cost_lines(found)),
        *(() if latency is None else (latency_note(latency),)),
        *(f"Note: {ended(note)}" for note in found.notes),
        *_flags(found.sanity),
    )


def _compared(found: Evaluation) -> str:
    """Say what the model carries, and what it is compared with."""
    if found.baseline is None:
        return f"One model, without a baseline. Masks: {_masks(found)}." if found.masks else "One model, no baseline."
    without = f"{shown(found.model.name)} without its masks"
    return f"Masks: {_masks(found)}. Baseline: {without if found.baseline_is_stripped else shown(found.baseline.name)}."


def _masks(found: Evaluation) -> str:
    """Name few masks one by one, and add many up."""
    if len(found.masks) > _NAMED:
        weights, removed = sum(m.features for m in found.masks), sum(m.removed for m in found.masks)
        return f"{len(found.masks)} taps, {weights} weights, {removed} of them 0"
    return "; ".join(_mask(m.tap, m.features, m.removed) for m in found.masks) or "no masks"


def _mask(tap: str, features: int, removed: int) -> str:
    name = shown(tap)
    return f"{removed} of {features} features of {name} removed" if removed else f"{features} features of {name} scaled"


def _flags(sanity: Sanity | None) -> tuple[str, ...]:
    if sanity is None:
        return ("Sanity: not checked.",)
    missing = sum(flag.fired is None for flag in sanity.flags)
    said = f"Sanity: {len(sanity.fired)} of {len(sanity.flags)} flags fired"
    said += f", {missing} could not be measured" if missing else ""
    flags = (f"FLAG {flag.name}: {flag.measured}. That is: {flag.meaning}." for flag in sanity.fired)
    return (f"{said}; first {sanity.samples} samples that the model gets right.", *flags)


def _sanity(found: Evaluation, sanity: Sanity) -> Grid:
    rows = tuple(
        (
            flag.name,
            status(flag),
            "" if flag.value is None else amount(flag.value, flag.unit),
            bound(flag),
            "" if flag.eps is None else eps_text(found.as_written(flag.eps)),
        )
        for flag in sanity.flags
    )
    return Grid("Sanity flags: attacks that fail for reasons of their own", ("", "", "number", "fires", "eps"), rows)


def status(flag: Flag) -> str:
    """Return what became of a flag, in a word or two."""
    if flag.fired is None:
        return "not measured"
    if flag.fired:
        return "FIRED"
    if flag.name == "static-gain":
        # Nothing is left, but there was nothing sure to lose either.
        return "ok" if flag.value is not None and flag.value > flag.threshold else "ok: no sure static gain"
    # Beyond the threshold, but with too few samples to tell: the file's "measured" says so.
    beyond = flag.value is not None and flag.value > flag.threshold
    return "ok, may be chance" if beyond else "ok"


def bound(flag: Flag) -> str:
    """Return from where on a flag fires."""
    word = {"zero-gradients": "from", "static-gain": "up to"}.get(flag.name, "above")
    never = ", or never falls" if flag.name == "eps-curve" else ""
    return f"{word} {amount(flag.threshold, flag.unit)}{never}"


def amount(value: float, unit: str) -> str:
    """Return a flag's number as people write it."""
    if unit == "points":
        return f"{value:.1f} points"
    known = {"share": f"{value:.1%}", "ops": f"{value:.0f}", "relative": f"{value:.1e}"}
    return known.get(unit, f"{value:.4g} {unit}")


def _grids(found: Evaluation, latency: Latency | None, *, complete: bool = True) -> list[Grid]:
    sanity = found.sanity
    checks = [] if sanity is None or not (complete or sanity.fired) else [_sanity(found, sanity)]
    always = [_summary(found), *_costs(found, latency), *checks]
    if not complete:
        return always
    beside = [controls(found, each) for each in found.results]
    return [*always, *beside, *(stages(found, each) for each in found.results)]


def _costs(found: Evaluation, latency: Latency | None) -> tuple[Grid, ...]:
    """Return what both models cost to ship, where that is known."""
    rows = tuple(cost_rows(found, latency))
    return (Grid(COST_TITLE, ("", model_word(found), "baseline", "change"), rows),) if rows else ()


def _summary(found: Evaluation) -> Grid:
    if found.clean is None or found.clean_baseline is None:
        alone = [("clean", _share(found.clean_hardened))]
        alone += [
            (f"robust at {eps_text(each.eps)}: worst case", _share(each.hardened.robust)) for each in found.results
        ]
        return Grid("Accuracy", ("", "model"), tuple(alone))
    rows = [("clean", _share(found.clean_hardened), _share(found.clean_baseline), *_difference(found.clean))]
    for each in found.results:
        if each.beside is not None:
            eps, (static, baseline, pairs) = eps_text(each.eps), each.beside
            robust = f"robust at {eps}: worst case, adaptive"
            rows.append((robust, _share(each.hardened.robust), _share(baseline.robust), *_difference(pairs)))
            rows.append((f"at {eps}, {found.replayed}: {_NO_CLAIM}", _share(static), "", "", ""))
    return Grid("Accuracy", ("", model_word(found), "baseline", "difference, points", "p"), tuple(rows))


def model_word(found: Evaluation) -> str:
    """Return what tables call the model: hardened where it carries masks."""
    return "hardened" if found.masks or found.baseline_is_stripped else "model"


def controls(found: Evaluation, each: AtEps) -> Grid:
    """Return random noise, random masks and the control attack at one eps."""
    control = f"{found.control.get('attack')}-{found.control.get('max_iter')} alone"
    of_models = [(model_word(found), found.clean_hardened, each.hardened)]
    if found.clean_baseline is not None and each.baseline is not None:
        of_models.append(("baseline", found.clean_baseline, each.baseline))
    rows = [(who, _share(clean), _share(at.noise), _share(at.control)) for who, clean, at in of_models]
    rows += [
        (f"random mask {index + 1}, as many features", _share(mask.clean), "", _share(mask.control))
        for index, mask in enumerate(each.random_masks)
    ]
    return Grid(f"Controls at {eps_text(each.eps)}", ("", "clean", "random noise", control), tuple(rows))


def _left(stage: Stage) -> str:
    return f"{stage.robust}, {stage.converged} converged" if stage.converged else str(stage.robust)


def converged_lines(found: Evaluation) -> Iterator[str]:
    """Yield for how many robust samples each attack has converged, for each model."""
    for each in found.results:
        for who, stage in _stages_of(found, each):
            if stage.converged:
                yield (
                    f"{stage.name} at {eps_text(each.eps)}, {who}: converged for {stage.converged} of {stage.robust} "
                    "robust samples"
                )


def _stages_of(found: Evaluation, each: AtEps) -> Iterator[tuple[str, Stage]]:
    """Yield the stages of the model and of its baseline, each with the model's word."""
    yield from ((model_word(found), stage) for stage in each.hardened.stages)
    yield from (("baseline", stage) for stage in (() if each.baseline is None else each.baseline.stages))


def stages(found: Evaluation, each: AtEps) -> Grid:
    """Return how the worst case at one eps came about."""
    rows = [
        (who, stage.name, str(stage.attacked), _left(stage), str(stage.queries), str(stage.gradients))
        for who, stage in _stages_of(found, each)
    ]
    columns = ("", "stage", "attacked", "left (cumulative)", "queries", "gradients")
    return Grid(
        f"How the worst case at {eps_text(each.eps)} came about: each stage on the survivors of those before",
        columns,
        tuple(rows),
    )


_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def summary_markdown(
    found: Evaluation,
    decisions: Sequence[Decision],
    *,
    split: str | None = None,
    command: str | None = None,
    tried: Sequence[str] = (),
    latency: Latency | None = None,
) -> str:
    """Return the summary.

    Args:
        found: The evaluation.
        decisions: What became of the gates.
        split: How the data was split, in words.
        command: The command line that does it again.
        tried: What was tried to harden the model without a gain, a sentence each.
        latency: Of the models, where it was measured.
    """
    judged = found.verdict
    parts = [f"## {judged.title}", *map(markdown, (judged.sentence, *judged.caveats))]
    if decisions:
        rows = [f"| {_SIGNS[each.verdict]} | `{_code(each.gate)}` | {markdown(each.detail)} |" for each in decisions]
        parts.append("\n".join(["| | gate | measured |", "|---|---|---|", *rows]))
    if tried:
        parts.append("\n".join(["**What was tried, without a gain**", "", *(f"- {markdown(each)}" for each in tried)]))
    parts.append(evaluation_markdown(found, latency=latency).rstrip("\n"))
    if split is not None:
        parts.append(markdown(f"Data: {split}."))
    if command is not None:
        fence = _fence(command)
        parts.append(f"Made by:\n\n{fence}sh\n{harmless(escaped(command))}\n{fence}")
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    """Return a text as written in a code span of a table."""
    return shown_line(text).replace("`", "'").replace("|", "\\|")


def _fence(code: str) -> str:
    """Return what a block of code is set between: more backticks than it has itself."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
