"""``cloakonnx analyze``: scores the features of a tap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import click

from cloakonnx.cli import attack_options, options
from cloakonnx.cli._output import progress, say, write_json
from cloakonnx.cli._types import Number

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset
    from cloakonnx.data.sources import Source
    from cloakonnx.scoring.analysis import Analysis
    from cloakonnx.scoring.analyze import PairSource
    from cloakonnx.selection.greedy.select import GreedyProgress


@click.command("analyze")
@options.model_argument
@options.data_option(required=True)
@click.option("--adversarial", type=options.PATH, help="Their adversarial twins, in the same order.")
@click.option("--adversarial-script", metavar="FILE.py:FUNCTION", help="Run a script that yields the twins instead.")
@attack_options.attack_options(required=False)
@click.option("--tap", metavar="TENSOR", help="The tensor whose features are scored.  [see 'cloakonnx inspect']")
@click.option("--feature-axis", type=int, help="The axis that counts features.  [told from the graph]")
@click.option(
    "--criterion",
    metavar="NAME",
    help="deepcloak: sum of |delta|; relative: over the sum of |clean|; standardised: over clean's deviation; with "
    "labels also discriminability, margin, evidence and gradient-x-activation (docs/how-it-works.md).  [deepcloak]",
)
@click.option(
    "--select", type=click.Choice(["greedy"]), help="Select features within --budget instead of scoring them."
)
@click.option("--budget", type=Number(), help="Clean accuracy that --select may lose: 1% is 1 point.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often --select attacks the masked model again.  [3]")
@click.option("--select-data", type=options.PATH, help="Samples for choosing.  [a fifth of the data is held out]")
@options.data_options
@options.batch_option
@options.input_option
@options.output_name_option
@options.provider_options
@options.workers_option
@click.option("-o", "--output", type=options.PATH, help="The analysis.  [MODEL.cloak.json]")
@click.option("--force", is_flag=True, help="Overwrite the output; write a selection that gains nothing too.")
@options.json_option
def command(
    *,
    model: Path,
    data: Path | None,
    data_script: str | None,
    adversarial: Path | None,
    adversarial_script: str | None,
    tap: str | None,
    feature_axis: int | None,
    criterion: str | None,
    select: str | None,
    budget: float | None,
    rounds: int | None,
    select_data: Path | None,
    batch_size: int,
    input_name: str | None,
    output_name: str | None,
    provider: str | None,
    device_id: int,
    workers: int | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    **rest: Unpack[attack_options.AttackAndDataOptions],
) -> None:
    """Score the features of a tap of MODEL: those that move most between clean and adversarial inputs score highest.

    \b
    cloakonnx analyze model.onnx --data clean.npz --adversarial adversarial.npz
    cloakonnx analyze model.onnx --data clean.npz --attack fgsm --eps 4/255
    cloakonnx analyze model.onnx --data clean.npz --attack pgd --eps 2/255 --select greedy --budget 1%

    Samples are read in pixel space: uint8 is divided by 255, floats must lie within --bounds. The same preprocessing
    (--scale, --mean, --std) that the model was trained with leads from there to its input.
    """
    from cloakonnx.files import check_output
    from cloakonnx.graph.file.model import load
    from cloakonnx.graph.masks.insert import check_opset
    from cloakonnx.scoring.analysis import default_path, masks_path
    from cloakonnx.scoring.analyze import analyze

    _check_selection(select, criterion, budget, rounds, select_data)
    loaded = load(model)
    check_opset(loaded)
    clean = options.open_data(data, data_script, rest, option="data")
    twins = options.open_data(adversarial, adversarial_script, rest, option="adversarial")
    if clean is None:
        raise click.UsageError("clean samples are needed: --data is missing")
    _check_twins(twins, rest["attack"], rest["eps"])
    target = output or default_path(model)
    options.claim(target, inputs=(model, data, adversarial, select_data), force=force)
    check_output(masks_path(target), force=force)
    chosen = options.choose(provider, device_id)
    classifier = options.classifier(loaded, rest, input_name=input_name, output_name=output_name).on(chosen)
    dataset = options.dataset(classifier, clean, rest)
    engine = options.engine(workers, classifier, dataset, batch_size)
    if budget is not None:
        options.warn_of_randomness(classifier)
        found = _select_greedily(
            classifier,
            dataset,
            rest,
            budget=budget,
            twins=None
            if twins is None
            else options.pairs(dataset, options.dataset(classifier, twins, rest)).adversarial,
            select_data=select_data,
            without_gain=force,
            tap=tap,
            feature_axis=feature_axis,
            rounds=rounds,
            batch_size=batch_size,
            engine=engine,
        )
        found.save(target)
        options.say_notes(found.notes)
        if as_json:
            write_json(found.to_json())
        _tell_greedy(found, target)
        return
    pairs = _pairs(classifier, dataset, twins, rest)
    with progress("scoring", pairs.clean.count()) as advance:
        result = analyze(
            classifier,
            pairs,
            tap=tap,
            feature_axis=feature_axis,
            criterion_name=criterion or "deepcloak",
            batch_size=batch_size,
            engine=engine,
            on_progress=advance,
            on_doubt=options.warn,
        )
    result.save(target)
    options.say_notes(result.notes)
    if as_json:
        write_json(result.to_json())
    _tell(result, target)


def _check_selection(
    select: str | None, criterion: str | None, budget: float | None, rounds: int | None, select_data: Path | None
) -> None:
    if select is None:
        given = {"--budget": budget, "--rounds": rounds, "--select-data": select_data}
        name = next((name for name, value in given.items() if value is not None), None)
        if name is not None:
            raise click.UsageError(f"{name} goes with --select greedy")
        return
    if criterion is not None:
        raise click.UsageError("--criterion and --select exclude each other")
    if budget is None:
        raise click.UsageError("--select greedy needs --budget: how much clean accuracy it may lose, 1% say")


def _check_twins(twins: Source | None, attack: str | None, eps: str | None) -> None:
    if twins is not None and attack is not None:
        raise click.UsageError("--adversarial and --attack exclude each other: the twins are given, or made here")
    if twins is None and attack is None:
        raise click.UsageError("adversarial twins are needed: either --adversarial names them or --attack makes them")
    if (attack is None) != (eps is None):
        raise click.UsageError("--attack and --eps go together")
    if eps is not None and "," in eps:
        raise click.UsageError("analyze takes one --eps")


def _pairs(
    classifier: Classifier, dataset: Dataset, twins: Source | None, rest: attack_options.AttackAndDataOptions
) -> PairSource:
    """Return pairs of files, or pairs whose twins an attack makes on the fly."""
    from cloakonnx.attacks.pairs import AttackedPairs

    if twins is not None:
        return options.pairs(dataset, options.dataset(classifier, twins, rest))
    ((settings, _),) = attack_options.attack_settings(rest, early_stop=False)
    options.warn_of_small_eps([settings.eps], dataset)
    return AttackedPairs(dataset, classifier, settings)


def _tell(result: Analysis, target: Path) -> None:
    from cloakonnx.selection.topk import ranking

    scores = result.scores
    if scores is None:
        return
    top = ", ".join(f"{i} ({scores.scores[i]:.4g})" for i in ranking(scores)[:5])
    say(
        f"{scores.tap}: {len(scores.scores)} features, {scores.criterion} on {result.samples.count} pairs "
        f"({result.provider}, largest difference {result.samples.largest_difference:.4g})"
    )
    say(f"highest: {top}")
    if scores.dead:
        say(f"dead: {len(scores.dead)} features score 0; they are removed after all that score higher")
    if result.samples.largest_difference == 0:
        say("warning: clean and adversarial samples are the same; every score is 0")
    say(f"wrote {target}")


def _select_greedily(
    classifier: Classifier,
    dataset: Dataset,
    rest: attack_options.AttackAndDataOptions,
    *,
    budget: float,
    twins: Dataset | None,
    select_data: Path | None,
    without_gain: bool,
    **settings: Any,
) -> Analysis:
    """Select features as the options say."""
    from cloakonnx.selection.greedy.select import select_greedy

    attack = None
    if twins is not None:
        options.pairs(dataset, twins)  # warns where they seem to be in another order
    else:
        ((attack, _),) = attack_options.attack_settings(rest, early_stop=False)

    def on_progress(now: GreedyProgress) -> None:
        step = now.step
        say(
            f"round {now.round}: {len(step.removed)} removed, last {step.removed[-1]}; clean {step.correct} of "
            f"{now.count}, objective {step.objective:.4f}"
        )

    with progress("adversarial inputs", None) as advance:
        return select_greedy(
            classifier,
            dataset,
            budget=budget,
            attack=attack,
            twins=twins,
            select=None if select_data is None else options.part(classifier, select_data, rest),
            seed=rest["seed"],
            without_gain=without_gain,
            on_progress=on_progress,
            on_samples=advance,
            **settings,
        )


def _tell_greedy(result: Analysis, target: Path) -> None:
    """Say what was selected, and what it is worth on the select part."""
    found = cast("dict[str, Any]", result.selection)
    part, (mask,) = found["select"], result.masks
    best = next(each for each in found["rounds"] if each["round"] == found["chosen_round"])
    say(
        f"{mask.tap}: {len(mask.removed)} of {len(mask.weights)} features removed (round {best['round']} of "
        f"{len(found['rounds'])}, {result.provider}): {', '.join(map(str, best['removed']))}"
    )
    made = "the attack made again" if found["attack_made_again"] else "the same adversarial inputs (static)"
    say(
        f"select part ({part['source']}, {part['count']} samples): clean {best['select_clean']} (before: "
        f"{part['clean_before']}), robust under {made} {best['select_robust']} (before: {part['robust_before']})"
    )
    if best["select_robust"] <= part["robust_before"]:
        say("warning: no more samples hold than without the mask")
    say(f"wrote {target}")
