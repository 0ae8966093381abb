"""``cloakonnx sweep``: many masks of one analysis in one pass."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import RESUMED, announce, going_on, progress, readers_may_leave, say, write_json
from cloakonnx.cli._types import Amounts, Numbers, Steps

if TYPE_CHECKING:
    from cloakonnx.selection.topk import Amount


@click.command("sweep")
@options.model_argument
@click.option("--analysis", type=options.PATH, help="The analysis.  [MODEL.cloak.json]")
@options.data_option(required=True)
@click.option("--adversarial", type=options.PATH, help="Their adversarial twins, in the same order.")
@click.option("--adversarial-script", metavar="FILE.py:FUNCTION", help="Run a script that yields the twins instead.")
@click.option(
    "--remove",
    type=Amounts(),
    default="0%..30%",
    show_default=True,
    help="How many features: 0%..30% (by 1%), 0%..30%:5%, 5%,10% or 0..8.",
)
@click.option(
    "--adaptive-at", type=Amounts(none=True), help="Where to attack the hardened model itself: 5%,10%, or none.  [last]"
)
@click.option("--attack", default="quick", show_default=True, help="quick, standard, or one attack: pgd, ...")
@click.option(
    "--eps",
    type=Numbers(example="1/255,2/255"),
    default=(),
    help="Radii in pixel space.  [the twins' largest difference]",
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
@click.option("--resume", is_flag=True, help="Go on where an interrupted call with the same settings and -o stopped.")
@options.force_option
@options.json_option
def command(
    *,
    model: Path,
    analysis: Path | None,
    data: Path | None,
    data_script: str | None,
    adversarial: Path | None,
    adversarial_script: str | None,
    remove: tuple[Amount, ...],
    adaptive_at: tuple[Amount, ...] | None,
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
    resume: bool,
    force: bool,
    as_json: bool,
    **rest: Unpack[options.DataOptions],
) -> None:
    """Measure MODEL under the masks of many amounts: clean and static accuracy for each, adaptive accuracy where asked.

    \b
    cloakonnx sweep model.onnx --data clean.npz --adversarial adversarial.npz
    cloakonnx sweep model.onnx --data clean.npz --adversarial adversarial.npz --adaptive-at 5%,10% --eps 2/255

    The network runs once for each image up to the tap, then only what comes after it, for each mask. The preprocessing
    is the analysis's.
    """
    from cloakonnx.evaluation.sweeps.sweep import sweep
    from cloakonnx.graph.file.model import load
    from cloakonnx.scoring.analysis import default_path, load_analysis

    if resume and output is None:
        raise click.UsageError("--resume needs -o: finished batches are kept beside the output")
    if adaptive_at == () and eps:
        raise click.UsageError("--eps goes with adaptive accuracy, which --adaptive-at none leaves out")
    loaded = load(model)
    scores = analysis or default_path(model)
    known = load_analysis(scores, model=model.name)
    rest = options.as_analysed(rest, known.preprocessing)
    clean = options.open_data(data, data_script, rest, option="data")
    twins = options.open_data(adversarial, adversarial_script, rest, option="adversarial")
    if clean is None:
        raise click.UsageError("clean samples are needed: --data is missing")
    if twins is None:
        raise click.UsageError("adversarial twins are needed: --adversarial is missing ('cloakonnx attack' makes them)")
    if output is not None:
        options.claim(output, inputs=(model, scores, data, adversarial), force=force)
    classifier = options.classifier(loaded, rest, input_name=input_name, output_name=output_name)
    pairs = options.pairs(*(options.dataset(classifier, source, rest) for source in (clean, twins)))
    options.warn_of_small_eps(eps, pairs.clean)
    classifier = classifier.on(options.choose(provider, device_id))
    options.warn_of_randomness(classifier)
    count, rounds = pairs.clean.count(), 2 if adaptive_at is None else 1 + len(adaptive_at)
    engine = options.engine(workers, classifier, pairs.clean, batch_size)
    kept = nullcontext() if output is None else going_on(RESUMED)
    with kept, progress("sweep", None if count is None else count * rounds) as advance:
        found = sweep(
            classifier,
            known,
            pairs,
            amounts=remove,
            adaptive_at=adaptive_at,
            eps=eps,
            attack=attack,
            norm=cast(Any, norm),
            max_iter=max_iter,
            restarts=restarts,
            straight_through=straight_through,
            seed=seed,
            batch_size=batch_size,
            output=output,
            resume=resume,
            engine=engine,
            on_estimate=partial(announce, what="adaptive accuracy: "),
            on_progress=advance,
        )
    if output is not None:
        say(f"wrote {output}")
    options.say_notes(found.notes)
    if found.data.seen:
        say(f"cloakonnx: warning: {scores} has seen {found.data.seen} of the {found.data.count} samples")
    if as_json:
        write_json(found.to_json())
        return
    from rich.console import Console

    from cloakonnx.reporting.sweep_tables import print_sweep

    console = Console()
    with readers_may_leave():
        print_sweep(found, console if console.is_terminal else Console(width=140))
