"""An evaluation as a notebook shows it: the verdict, and the numbers behind it."""

from __future__ import annotations

from cloakonnx.evaluation.cells import difference_cells, eps_text, share_cell
from cloakonnx.evaluation.result import STATEMENT, Evaluation
from cloakonnx.evaluation.verdict import verdict
from cloakonnx.markup import line, table, title


def evaluation_html(found: Evaluation) -> str:
    """Return an evaluation as a piece of HTML."""
    judged = verdict(found)
    rows = [
        ("clean", share_cell(found.clean_baseline), share_cell(found.clean_hardened), *difference_cells(found.clean))
    ]
    for each in found.results:
        before, after = share_cell(each.baseline.robust), share_cell(each.hardened.robust)
        rows.append((f"robust at {eps_text(each.eps)} (adaptive)", before, after, *difference_cells(each.pairs)))
        rows.append((f"static at {eps_text(each.eps)} (no claim)", "", share_cell(each.static), "", ""))
    under = f"Attack: {found.attack} ({found.norm}). Data: {found.data.name}, n = {found.data.count}. Intervals: 95%."
    return "".join(
        (
            title(f"{judged.title}: {found.model.name}"),
            line(judged.sentence),
            *map(line, judged.caveats),
            table(("", "before", "after", "difference, points", "p"), rows),
            line(under),
            line(STATEMENT),
        )
    )
