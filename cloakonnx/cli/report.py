"""``cloakonnx report``: an evaluation as a page."""

from __future__ import annotations

from pathlib import Path

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import print_json, say, tell


@click.command("report")
@click.argument("evaluation", type=options.PATH)
@click.option("--analysis", type=options.PATH, help="What the masks come from: scores or learned weights.")
@click.option("--sweep", type=options.PATH, help="What 'cloakonnx sweep -o' wrote: accuracy over the share masked.")
@click.option("--model", type=options.PATH, help="The hardened model, to mark the features that it really masks.")
@click.option("--samples", type=options.PATH, help="What 'cloakonnx evaluate --samples' wrote: single samples.")
@click.option("-o", "--output", type=options.PATH, required=True, help="The page: report.html, say.")
@options.force_option
@options.json_option
def command(
    *,
    evaluation: Path,
    analysis: Path | None,
    sweep: Path | None,
    model: Path | None,
    samples: Path | None,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Write EVALUATION, which 'cloakonnx evaluate -o' wrote, as one HTML file that loads nothing from anywhere.

    \b
    cloakonnx report evaluation.json -o report.html
    cloakonnx report evaluation.json --analysis model.cloak.json --sweep sweep.json --samples samples.npz -o report.html

    Parts whose input is not given are left out.
    """
    from cloakonnx.evaluation.evaluation import load_evaluation, verdict
    from cloakonnx.evaluation.samples import load_samples
    from cloakonnx.evaluation.sweeps.record import load_sweep
    from cloakonnx.files import write_text
    from cloakonnx.graph.file.model import load
    from cloakonnx.reporting.page import report_html
    from cloakonnx.scoring.analysis import load_analysis

    found = load_evaluation(evaluation)
    options.claim(output, inputs=(evaluation, analysis, sweep, model, samples), force=force)
    page = report_html(
        found,
        analysis=None if analysis is None else load_analysis(analysis, model=found.baseline.name),
        sweep=None if sweep is None else load_sweep(sweep),
        model=None if model is None else load(model),
        samples=None if samples is None else load_samples(samples),
    )
    write_text(output, page)
    say(f"wrote {output}")
    judged = verdict(found)
    if as_json:
        print_json({"verdict": judged.kind, "sentence": judged.sentence, "caveats": judged.caveats})
        return
    tell(f"{judged.title}: {judged.sentence}")
    for caveat in judged.caveats:
        tell(caveat)
