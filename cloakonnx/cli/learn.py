"""``cloakonnx learn``: masks learned against attacks that see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import click

from cloakonnx.cli import options
from cloakonnx.cli._output import RESUMED, going_on, progress, say, write_json
from cloakonnx.cli._types import Number, Numbers
from cloakonnx.cli.places import granularity_option, layers_option
from cloakonnx.errors import CheckError

if TYPE_CHECKING:
    from cloakonnx.graph.masks.mask import Mask
    from cloakonnx.scoring.analysis import Analysis
    from cloakonnx.selection.learn.recipe import Recipe


_NAMED = 5
"""Masks that are named in the end."""


class RecipeOptions(TypedDict):
    """Values of the options that make the recipe."""

    eps: float
    budget: float
    norm: str
    granularity: str | None
    eps_factor: float
    inner_steps: int
    loss: str
    clean_weight: float | None
    epochs: int | None
    learning_rate: float
    warm_up: float
    batch_size: int
    flip: bool | None
    shift: int | None
    mask_bounds: tuple[float, float]
    l1: float
    zero_below: float
    foldable: bool
    seed: int


class LearnAndDataOptions(RecipeOptions, options.DataOptions):
    """Values of both groups."""


_recipe_options = options.group(
    click.option("--eps", type=Number(), required=True, help="Radius of the ball in pixel space: 2/255, say."),
    click.option("--budget", type=Number(), required=True, help="Clean accuracy that may be lost: 4% is 4 points."),
    options.norm_option,
    granularity_option,
    click.option(
        "--eps-factor",
        type=Number(),
        default=1.5,
        show_default=True,
        help="How much wider the ball of the attacks is while masks are learned.",
    ),
    click.option(
        "--inner-steps",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Steps of the inner attack from a random start: 1 is FGSM, more are PGD.",
    ),
    click.option(
        "--loss",
        type=click.Choice(["soft-ce", "ce", "trades"]),
        default="soft-ce",
        show_default=True,
        help="Cross-entropy of adversarial inputs: of the model's own scores or of labels; or divergence from the "
        "clean inputs.",
    ),
    click.option("--clean-weight", type=Number(), help="Weight of the clean cross-entropy.  [0.5, trades 1/6]"),
    click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data.  [8; few samples: up to 40]"),
    click.option(
        "--learning-rate", type=Number(), default=0.02, show_default=True, help="Top of the one-cycle schedule."
    ),
    click.option(
        "--warm-up", type=Number(), default=0.5, show_default=True, help="Share of the steps over which eps grows."
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=50, show_default=True, help="Samples a step."),
    click.option("--flip/--no-flip", default=None, help="Mirror samples at random.  [images of three channels only]"),
    click.option(
        "--shift",
        type=click.IntRange(min=0),
        help="Pixels by which images are shifted at random, at most.  [an eighth of colour images' side]",
    ),
    click.option(
        "--mask-bounds",
        type=Numbers(2, example="0,4"),
        default=(0.0, 4.0),
        help="Smallest and largest weight of a mask.  [0,4]",
    ),
    click.option("--l1", type=Number(), default=0.0, show_default=True, help="Pull of the weights towards 1."),
    click.option("--zero-below", type=Number(), default=0.0, show_default=True, help="Weights below become exactly 0."),
    click.option("--foldable", is_flag=True, help="Keep weights at or above 0.05, so that they can be folded."),
    options.seed_option,
)


@click.command("learn")
@options.model_argument
@options.data_option(required=True)
@click.option("--select-data", type=options.PATH, help="Samples for choosing (.npz, folder).  [a fifth of the data]")
@_recipe_options
@click.option("--tap", metavar="TENSOR", multiple=True, help="Where to mask.  [activations that feed linear layers]")
@click.option("--tap-pattern", metavar="GLOB", multiple=True, help="Every tap whose name fits: '*relu*', say.")
@layers_option
@click.option("--resume", is_flag=True, help="Go on where an interrupted call with the same settings stopped.")
@options.data_options
@options.input_option
@options.output_name_option
@options.provider_options
@options.workers_option
@click.option("-o", "--output", type=options.PATH, help="The analysis.  [MODEL.cloak.json]")
@click.option("--force", is_flag=True, help="Overwrite the output; write masks that miss the budget too.")
@options.json_option
def command(
    *,
    model: Path,
    data: Path | None,
    data_script: str | None,
    select_data: Path | None,
    tap: tuple[str, ...],
    tap_pattern: tuple[str, ...],
    layers: tuple[str, ...],
    resume: bool,
    input_name: str | None,
    output_name: str | None,
    provider: str | None,
    device_id: int,
    workers: int | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    **rest: Unpack[LearnAndDataOptions],
) -> None:
    """Learn masks for MODEL against attacks that see them: many taps, no weight touched.

    \b
    cloakonnx learn model.onnx --data train.npz --eps 2/255 --budget 4%
    cloakonnx learn model.onnx --data train.npz --select-data more.npz --eps 2/255 --budget 4% --foldable
    cloakonnx apply model.onnx

    Masks are chosen on samples that were not used for learning. Where the model was trained on all of --data, name
    others with --select-data: images that it knows by heart understate the clean loss.
    """
    from cloakonnx.engine.choice import engine_of
    from cloakonnx.engine.folder import forget
    from cloakonnx.files import check_output
    from cloakonnx.graph.file.model import load
    from cloakonnx.scoring.analysis import default_path, masks_path
    from cloakonnx.selection.learn.learn import learn
    from cloakonnx.selection.learn.progress import watched

    loaded = load(model)
    source = options.open_data(data, data_script, rest, option="data")
    if source is None:
        raise click.UsageError("samples are needed: --data is missing")
    classifier = options.classifier(loaded, rest, input_name=input_name, output_name=output_name)
    dataset = options.dataset(classifier, source, rest)
    select = None if select_data is None else options.part(classifier, select_data, rest)
    target = output or default_path(model)
    options.claim(target, inputs=(model, data, select_data), force=force)
    check_output(masks_path(target), force=force)
    recipe = _recipe(rest)
    classifier = classifier.on(options.choose(provider, device_id))
    options.warn_of_randomness(classifier)
    try:
        with going_on(RESUMED), watched(lambda steps: progress("learning", steps), say) as on_progress:
            result = learn(
                classifier,
                dataset,
                recipe,
                select=select,
                taps=tap,
                tap_patterns=tap_pattern,
                layers=layers,
                output=target,
                resume=resume,
                over_budget=force,
                engine=engine_of(workers),
                on_progress=on_progress,
            )
    except CheckError as error:
        raise CheckError(
            f"{error}, or write them as they are with --force (with --resume nothing is learned again)"
        ) from None
    result.save(target)
    options.say_notes(result.notes)
    forget(target)
    if as_json:
        write_json(result.to_json())
    _tell(result, target)


def _recipe(rest: LearnAndDataOptions) -> Recipe:
    from cloakonnx.selection.learn.recipe import Recipe

    fields: dict[str, Any] = {name: rest[name] for name in RecipeOptions.__annotations__ if name != "mask_bounds"}  # type: ignore[literal-required]
    return Recipe(**fields, bounds=rest["mask_bounds"])


def _tell(result: Analysis, target: Path) -> None:
    learning = cast("dict[str, Any]", result.learning)
    select, chosen, recipe = learning["select"], learning["chosen"], learning["recipe"]
    numbers = sum(mask.weights.size for mask in result.masks)
    say(
        f"{len(result.masks)} masks, {numbers:,} numbers ({result.provider}); epoch {chosen['epoch']}, "
        f"blend {chosen['blend']:g}"
    )
    say(
        f"select part ({select['source']}): clean {chosen['clean']} of {select['count']} (before: "
        f"{select['clean_before']}), PGD-{select['attack_steps']} at eps {recipe['eps']:.4g} {chosen['robust']} of "
        f"{select['attacked']} (before: {select['robust_before']})"
    )
    for line in _most_changed(result.masks):
        say(line)
    if not chosen["within_budget"]:
        say("warning: these masks miss the budget, or gain nothing")
    if select["held_out"]:
        say(
            "note: chosen on a held-out fifth of the data; if the model was trained on it, the clean loss on new "
            "samples is larger: --select-data"
        )
    say(f"wrote {target}; no claim before 'cloakonnx evaluate' on samples of its own")


def _most_changed(masks: Sequence[Mask]) -> list[str]:
    """Say of the masks that change most how much they do."""
    from cloakonnx.graph.masks.mask import most_changed
    from cloakonnx.text import shown

    found = most_changed(masks, _NAMED)
    lines = [
        f"  {shown(mask.key)}: {mask.change:.3f}; {mask.weights.size:,} numbers from {mask.weights.min():.3f} to "
        f"{mask.weights.max():.3f}"
        for mask in found
    ]
    return ["changed most, by the root mean square of (mask - 1):", *lines] if found else []
