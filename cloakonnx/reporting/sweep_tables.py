"""A sweep as tables: the curve with adaptive accuracy in it, then what stands behind the adaptive numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from cloakonnx.evaluation.evaluation import STATEMENT
from cloakonnx.evaluation.sweeps.record import Point, Sweep
from cloakonnx.reporting.terminal import add_row, is_narrow, print_line, print_table, titled_table
from cloakonnx.statistics import Accuracy, difference_cells, share_cell
from cloakonnx.text import ended, eps_text, shown


def print_sweep(found: Sweep, console: Console) -> None:
    """Print a sweep to a terminal or a file."""
    for line in _facts(found):
        print_line(line, console)
    print_table(_curve(found, narrow=is_narrow(console)), console)
    if found.adaptive:
        print_table(_adaptive(found, narrow=is_narrow(console)), console)
    print_line(STATEMENT, console)


def _facts(found: Sweep) -> list[str]:
    scores, seen = found.scores, found.data.seen
    warning = f" WARNING: the analysis has seen {seen} of the samples; the numbers are too good." if seen else ""
    widest = eps_text(found.twins.largest_difference)
    data, adversarial = shown(found.data.name), shown(found.twins.name)
    lines = [
        f"{shown(found.model.name)}: {scores.features} features of {shown(scores.tap)}, removed by {scores.criterion}",
        f"Data: {data} and {adversarial}, which differ by {widest} at most; n = {found.data.count}.{warning} "
        f"Seed {found.seed}, batch size {found.batch_size}, {found.provider}. "
        "Intervals: 95%, Wilson; differences: Newcombe's paired interval, McNemar's exact test.",
        "Static: on the given adversarial samples, made without the mask in sight. It is no claim of robustness.",
    ]
    if found.attacks is None:
        lines.append("Adaptive accuracy was not measured, so nothing here tells how robust any of these masks is.")
        return lines
    origin = " (the largest difference of the adversarial samples)" if found.attacks.eps_is_of_twins else ""
    radii = ", ".join(map(eps_text, found.attacks.eps))
    lines.append(
        f"Adaptive: {found.attacks.attack} ({found.attacks.norm}) at {radii}{origin}, made on the model with the mask; "
        "the worst case of each sample."
    )
    return [*lines, *(f"Note: {ended(note)}" for note in found.attacks.notes)]


def _curve(found: Sweep, *, narrow: bool) -> Table:
    radii = () if found.attacks is None else found.attacks.eps
    columns = ["remove", "features", "clean", "random: clean", "static (no claim)", "random: static"]
    table = titled_table("Accuracy", [*columns, *(f"adaptive at {eps_text(eps)}" for eps in radii)], narrow=narrow)
    robust = {each.removed: [share_cell(at.hardened.robust) for at in each.results] for each in found.adaptive}
    if found.adaptive:
        beside = zip(*(each.results for each in found.adaptive), strict=True)
        robust[0] = [
            share_cell(min((at.compared().baseline.robust for at in of_eps), key=lambda a: a.correct))
            for of_eps in beside
        ]
    for removed, points in groupby(found.points, key=lambda point: point.removed):
        same = list(points)
        add_row(
            table,
            _amounts(same),
            str(removed),
            share_cell(same[0].mask.clean),
            _random([mask.clean for mask in same[0].random_masks]),
            share_cell(same[0].mask.static),
            _random([mask.static for mask in same[0].random_masks]),
            *robust.get(removed, [""] * len(radii)),
            narrow=narrow,
        )
    return table


def _amounts(points: Sequence[Point]) -> str:
    first, last = points[0].remove, points[-1].remove
    return first if first == last else f"{first}..{last}"


def _random(shares: Sequence[Accuracy]) -> str:
    """Return the mean of some random masks, and the least and the most of them."""
    if not shares:
        return ""
    values = sorted(share.value * 100 for share in shares)
    return f"{sum(values) / len(values):.1f}% ({values[0]:.1f} to {values[-1]:.1f})"


def _adaptive(found: Sweep, *, narrow: bool) -> Table:
    attacks = found.attacks
    control = "" if attacks is None else f"{attacks.control.get('attack')}-{attacks.control.get('max_iter')} alone"
    columns = ["remove", "eps", "masked", "without mask", "difference, points", "p", control, "random masks"]
    table = titled_table("Adaptive accuracy, beside the model without a mask", columns, narrow=narrow)
    for each in found.adaptive:
        for at in each.results:
            beside = at.compared()
            add_row(
                table,
                each.remove,
                eps_text(at.eps),
                share_cell(at.hardened.robust),
                share_cell(beside.baseline.robust),
                *difference_cells(beside.pairs),
                share_cell(at.hardened.control),
                _random([mask.control for mask in at.random_masks]),
                narrow=narrow,
            )
    return table
