"""``cloakonnx report``: an evaluation as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cloakonnx.cli._files import PAGE_OUTPUT, PATH, Json, Output
from cloakonnx.cli._output import print_json, say, tell
from cloakonnx.cli._verb import Group, argument, option, verb

if TYPE_CHECKING:
    from cloakonnx.evaluation.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class _Parts(Group):
    """Files beside the evaluation that the page shows."""

    analysis: Path | None = option("--analysis", type=PATH, help="Analysis of the masks: scores or learned weights.")
    sweep: Path | None = option(
        "--sweep", type=PATH, help="Sweep written by 'cloakonnx sweep -o': accuracy by share of masked features."
    )
    model: Path | None = option("--model", type=PATH, help="Hardened model, to mark the features that it masks.")
    samples: Path | None = option(
        "--samples", type=PATH, help="Samples written by 'cloakonnx evaluate --samples', to show some of them."
    )

    shipped: Path | None = option(
        "--shipped",
        type=PATH,
        help="Evaluation of the model that you deploy (quantised, say) on the same samples: a third column.",
    )

    def load(self, found: Evaluation) -> dict[str, Any]:
        """Load what is there, as :func:`cloakonnx.report_html` takes it."""
        from cloakonnx.evaluation.evaluation import load_evaluation
        from cloakonnx.evaluation.samples import load_samples
        from cloakonnx.evaluation.sweeps.record import load_sweep
        from cloakonnx.graph.file.model import load
        from cloakonnx.scoring.analysis import load_analysis

        return {
            "analysis": None
            if self.analysis is None
            else load_analysis(self.analysis, model=(found.baseline or found.model).name),
            "sweep": None if self.sweep is None else load_sweep(self.sweep),
            "model": None if self.model is None else load(self.model),
            "samples": None if self.samples is None else load_samples(self.samples),
            "shipped": None if self.shipped is None else load_evaluation(self.shipped),
        }


@dataclass(frozen=True, kw_only=True)
class _Page(Output):
    output: Path = option(
        "-o", "--output", type=PAGE_OUTPUT, required=True, help="Output file for the page: report.html."
    )


@verb("report")
def command(*, evaluation: Annotated[Path, argument(type=PATH)], parts: _Parts, page: _Page, as_json: Json) -> None:
    """Write EVALUATION, written by 'cloakonnx evaluate -o', as one HTML file that loads nothing from the network.

    \b
    cloakonnx report evaluation.json -o report.html
    cloakonnx report evaluation.json --analysis model.cloak.json --sweep sweep.json --samples samples.npz -o report.html

    Parts whose input is not given are left out.
    """
    from cloakonnx.evaluation.evaluation import load_evaluation
    from cloakonnx.files import write_text
    from cloakonnx.reporting.page import report_html

    found = load_evaluation(evaluation)
    page.claim(page.output, inputs=(evaluation, parts.analysis, parts.sweep, parts.model, parts.samples, parts.shipped))
    write_text(page.output, report_html(found, **parts.load(found)))
    say(f"wrote {page.output}")
    judged = found.verdict
    if as_json:
        print_json({"verdict": judged.kind, "sentence": judged.sentence, "caveats": judged.caveats})
        return
    tell(f"{judged.title}: {judged.sentence}")
    for caveat in judged.caveats:
        tell(caveat)
