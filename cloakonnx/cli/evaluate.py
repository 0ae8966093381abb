"""``cloakonnx evaluate``: a hardened model and its baseline under attack."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import RESUMED, announce, going_on, progress, readers_may_leave, say, write_json, write_out
from cloakonnx.cli._types import Numbers, Steps
from cloakonnx.cli.gate import conclude

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.evaluation.evaluation import Evaluation
    from cloakonnx.evaluation.gates import Decision, Gate


@click.command("evaluate")
@options.model_argument
@options.data_option(required=True)
@click.option("--baseline", type=options.PATH, help="What to compare with.  [MODEL without its masks]")
@click.option(
    "--analysis", type=options.PATH, help="The masks' analysis: takes its preprocessing, warns of samples that it saw."
)
@click.option("--attack", default="quick", show_default=True, help="quick, standard, or one attack: pgd, ...")
@click.option(
    "--eps", type=Numbers(example="1/255,2/255"), required=True, help="Radii in pixel space: 1/255,2/255, say."
)
@options.norm_option
@click.option("--max-iter", type=Steps(), help="Steps of a single attack; converged: pgd until nothing changes.")
@click.option("--restarts", type=click.IntRange(min=1), help="Random starts of a single attack.")
@options.straight_through_option
@options.seed_option
@options.data_options
@options.batch_option
@options.input_option
@options.output_name_option
@options.provider_options
@options.workers_option
@click.option("-o", "--output", type=options.PATH, help="Write the result as JSON, too.")
@click.option(
    "--samples", type=options.PATH, metavar="FILE.npz", help="Write a few samples gained and lost, for the report."
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted call with the same settings and -o stopped.")
@click.option("--no-sanity", is_flag=True, help="Leave out the sanity checks; the result says so.")
@click.option("--markdown", is_flag=True, help="Print the result as Markdown.")
@options.gate_options(required=False)
@options.force_option
@options.json_option
def command(
    *,
    model: Path,
    data: Path | None,
    data_script: str | None,
    baseline: Path | None,
    analysis: Path | None,
    attack: str,
    eps: tuple[float, ...],
    norm: str,
    max_iter: int | str | None,
    restarts: int | None,
    straight_through: bool,
    seed: int,
    batch_size: int,
    input_name: str | None,
    output_name: str | None,
    provider: str | None,
    device_id: int,
    workers: int | None,
    output: Path | None,
    samples: Path | None,
    resume: bool,
    no_sanity: bool,
    markdown: bool,
    require: tuple[str, ...],
    allow_inconclusive: bool,
    force: bool,
    as_json: bool,
    **rest: Unpack[options.DataOptions],
) -> None:
    """Attack MODEL with its masks in sight, and its baseline in the same way; compare them sample by sample.

    \b
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 1/255,2/255
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 8/255 --attack apgd-t --markdown
    cloakonnx evaluate model.hardened.onnx --data test.npz --eps 2/255 --require 'robust-gain>=5%@2/255'

    Robust means correct on the clean input and on every input that any attack, restart or replay came up with.
    """
    from cloakonnx.evaluation.evaluate import evaluate
    from cloakonnx.evaluation.gates import check_measured, parse_gate
    from cloakonnx.graph.file.model import load
    from cloakonnx.scoring.analysis import load_analysis

    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    if resume and output is None:
        raise click.UsageError("--resume needs -o: finished batches are kept beside the output")
    gates = [parse_gate(text) for text in require]
    check_measured(gates, eps=eps, sanity=not no_sanity, latency=True)
    loaded = load(model)
    known = None if analysis is None else load_analysis(analysis, model=model.name)
    if known is not None:
        rest = options.as_analysed(rest, known.preprocessing)
    other = None if baseline is None else load(baseline)
    source = options.open_data(data, data_script, rest, option="data")
    if source is None:
        raise click.UsageError("samples are needed: --data is missing")
    classifier = options.classifier(loaded, rest, input_name=input_name, output_name=output_name)
    dataset = options.dataset(classifier, source, rest)
    outputs = [path for path in (output, samples) if path is not None]
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise click.UsageError("-o and --samples name the same file")
    for path in outputs:
        options.claim(path, inputs=(model, baseline, analysis, data), force=force)
    options.warn_of_small_eps(eps, dataset)
    classifier = classifier.on(options.choose(provider, device_id))
    if no_sanity:  # a flag of the sanity checks says so otherwise
        options.warn_of_randomness(classifier)
    beside = None if other is None else classifier.beside(other)
    engine = options.engine(workers, classifier, dataset, batch_size)
    kept = nullcontext() if output is None else going_on(RESUMED)
    with kept, progress(f"evaluate, {attack}", dataset.count()) as advance:
        found = evaluate(
            classifier,
            dataset,
            eps=eps,
            attack=attack,
            baseline=beside,
            norm=cast(Any, norm),
            max_iter=max_iter,
            restarts=restarts,
            straight_through=straight_through,
            seed=seed,
            batch_size=batch_size,
            analysis=known,
            sanity=not no_sanity,
            output=output,
            samples=samples,
            resume=resume,
            engine=engine,
            on_estimate=announce,
            on_progress=advance,
        )
    for path in outputs:
        say(f"wrote {path}")
    if found.data.seen:
        say(f"cloakonnx: warning: {analysis} has seen {found.data.seen} of the {found.data.count} samples")
    for flag in found.sanity.fired if found.sanity is not None else ():
        say(f"cloakonnx: warning: sanity flag {flag.name}: {flag.measured}; {flag.meaning}")
    decisions: tuple[Decision, ...] = ()
    if gates:
        decisions = _judge(found, gates, classifier, beside)
    _print(found, as_json=as_json, markdown=markdown)
    for decision in decisions:
        say(str(decision))
    conclude(decisions, allow_inconclusive=allow_inconclusive)


def _judge(
    found: Evaluation, gates: Sequence[Gate], classifier: Classifier, baseline: Classifier | None
) -> tuple[Decision, ...]:
    """Judge by gates; the latency is measured where one asks for it."""
    from cloakonnx.classifier.latency import SESSIONS as LATENCY_SESSIONS
    from cloakonnx.classifier.latency import latency_ratios
    from cloakonnx.evaluation.gates import check_gates
    from cloakonnx.graph.masks.strip import stripped

    latency = None
    if any(gate.name == "latency-ratio" for gate in gates):
        with progress("latency", LATENCY_SESSIONS) as advance:
            other = baseline or classifier.beside(stripped(classifier.model))
            latency = latency_ratios(classifier, other, on_progress=advance)
    return check_gates(found, gates, latency=latency)


def _print(found: Evaluation, *, as_json: bool, markdown: bool) -> None:
    if as_json:
        write_json(found.to_json())
        return
    from cloakonnx.reporting.tables import evaluation_markdown, print_evaluation

    if markdown:
        write_out(evaluation_markdown(found))
        return
    from rich.console import Console

    console = Console()
    with readers_may_leave():
        print_evaluation(found, console if console.is_terminal else Console(width=140))
