"""``cloakonnx attack``: adversarial inputs from an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from cloakonnx.cli import attack_options, options
from cloakonnx.cli._output import RESUMED, going_on, print_json, progress, say

if TYPE_CHECKING:
    from cloakonnx.attacks.attack import Attacked
    from cloakonnx.attacks.base import Attack
    from cloakonnx.graph.file.model import Model


@click.command("attack")
@options.model_argument
@options.data_option(required=True)
@attack_options.attack_options(required=True)
@click.option("--targeted", is_flag=True, help="The labels of the data are the classes to reach.")
@click.option(
    "--round",
    "round_levels",
    is_flag=True,
    help="Round inputs to levels of 1/255, inward, before they are judged.",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted call with the same settings stopped.")
@options.data_options
@options.batch_option
@options.input_option
@options.output_name_option
@options.provider_options
@options.workers_option
@click.option("-o", "--output", type=options.PATH, required=True, help="The adversarial file (.npz).")
@options.force_option
@options.json_option
def command(
    *,
    model: Path,
    data: Path | None,
    data_script: str | None,
    targeted: bool,
    round_levels: bool,
    resume: bool,
    batch_size: int,
    input_name: str | None,
    output_name: str | None,
    provider: str | None,
    device_id: int,
    workers: int | None,
    output: Path,
    force: bool,
    as_json: bool,
    **rest: Unpack[attack_options.AttackAndDataOptions],
) -> None:
    """Make adversarial inputs for MODEL: through its backward graph, or (square, noise) from its scores alone.

    \b
    cloakonnx attack model.onnx --data test.npz --attack pgd --eps 8/255 -o adversarial.npz
    cloakonnx attack model.onnx --data test.npz --attack square --eps 8/255 --max-iter 1000 -o square.npz
    cloakonnx attack model.onnx --data test.npz --attack apgd-ce --eps 1/255,2/255 -o apgd.npz

    The file holds x, y, success for each sample, and the settings. Several --eps give a file each (apgd.eps1_255.npz
    and so on). Without labels the model's own predictions stand in.
    """
    from cloakonnx.attacks.attack import attack
    from cloakonnx.graph.file.model import load

    if output.suffix != ".npz":
        raise click.BadParameter(
            f"{output.name} is to hold x, y and success: give it the suffix .npz", param_hint="'-o'"
        )
    loaded = load(model)
    source = options.open_data(data, data_script, rest, option="data")
    if source is None:
        raise click.UsageError("samples are needed: --data is missing")
    classifier = options.classifier(loaded, rest, input_name=input_name, output_name=output_name)
    dataset = options.dataset(classifier, source, rest)
    plans = [
        (s, _target(output, text, rest["eps"])) for s, text in attack_options.attack_settings(rest, targeted=targeted)
    ]
    for _, target in plans:
        options.claim(target, inputs=(model, data), force=force)
    options.warn_of_small_eps([settings.eps for settings, _ in plans], dataset)
    classifier = classifier.on(options.choose(provider, device_id))
    options.warn_of_randomness(classifier)
    count = dataset.count()
    total = None if count is None else count * len(plans)
    engine = options.engine(workers, classifier, dataset, batch_size)
    with going_on(RESUMED), progress(f"attack, {rest['attack']}", total) as advance:
        found = attack(
            classifier,
            dataset,
            [target for _, target in plans],
            attack=[attack for attack, _ in plans],
            batch_size=batch_size,
            round_levels=round_levels,
            resume=resume,
            engine=engine,
            on_progress=advance,
        )
    say(found[0].taken_for)
    for (settings, _), attacked in zip(plans, found, strict=True):
        _tell(loaded, settings, attacked, classifier.provider.name)
    if as_json:
        records = [
            {**_record(settings, attacked), "workers": engine.workers}
            for (settings, _), attacked in zip(plans, found, strict=True)
        ]
        print_json(records[0] if len(records) == 1 else records)


def _target(output: Path, text: str, eps: str) -> Path:
    """Return the output for one eps of several: its text goes into the name."""
    if "," not in eps:
        return output
    return output.with_name(f"{output.stem}.eps{text.replace('/', '_')}{output.suffix}")


def _record(settings: Attack, attacked: Attacked) -> dict[str, Any]:
    return {
        "output": str(attacked.path),
        "settings": {**settings.record(), "labels": attacked.settings["labels"]},
        "samples": attacked.count,
        "correct": attacked.correct,
        "robust": attacked.robust,
        "queries": attacked.queries,
        "gradients": attacked.gradients,
        "unscored": attacked.unscored,
        "tied": attacked.seen.tied,
        "converged": attacked.converged,
    }


def _tell(model: Model, settings: Attack, attacked: Attacked, provider: str) -> None:
    from cloakonnx.classifier.doubts import of_gradients, of_ties

    before, after = f"{attacked.correct} of {attacked.count} correct", "still correct"
    if settings.is_targeted:
        before, after = f"{attacked.correct} of {attacked.count} not the target", "still not"
    elif not attacked.has_labels:
        before, after = f"{attacked.count} samples", "keep their class"
    say(
        f"{model.name}: {before}, {attacked.robust} {after} under {settings.name} "
        f"({settings.norm}, eps {settings.eps:.4g}; {provider})"
    )
    if attacked.converged:
        say(f"converged for {attacked.converged} of {attacked.robust} samples that hold: more steps change nothing")
    if not attacked.has_labels:
        say("the data has no labels: the model's own predictions stand in, as y in the file, too")
    options.say_notes(attacked.notes)
    if attacked.unscored:
        say(
            f"cloakonnx: warning: the scores of {attacked.unscored} samples are no numbers (NaN); they count as "
            "not correct"
        )
    for doubt in (*of_ties(attacked.seen.tied), *of_gradients(attacked.seen)):
        options.warn(doubt)
    if attacked.is_at_chance:
        say(
            "cloakonnx: warning: chance would get as many right; are preprocessing (--scale, --mean, --std) and labels "
            "those of the model?"
        )
    if attacked.labels_hint is not None:
        say(f"cloakonnx: warning: {attacked.labels_hint}")
    if attacked.target_hint is not None:
        say(f"cloakonnx: warning: {attacked.target_hint}")
    say(f"{attacked.gradients} gradients and {attacked.queries} queries; wrote {attacked.path}")
