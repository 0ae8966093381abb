"""``cloakonnx learn``: masks learned against attacks that see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from cloakonnx.cli._completion import taps
from cloakonnx.cli._data import Data
from cloakonnx.cli._files import PATH, RESUME, AnalysisOutput, Json, ModelFile
from cloakonnx.cli._output import RESUMED, going_on, progress, say, warn, write_json
from cloakonnx.cli._runs import Runs, warn_of_randomness
from cloakonnx.cli._shared import dry_run, granularity, layers, norm, parts, seed
from cloakonnx.cli._types import Number, Numbers
from cloakonnx.cli._verb import Group, option, verb
from cloakonnx.errors import NoGainError
from cloakonnx.text import eps_text

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset
    from cloakonnx.graph.masks.mask import Mask
    from cloakonnx.scoring.analysis import Analysis
    from cloakonnx.selection.learn.recipe import Recipe

_NAMED = 5
"""Masks that are named in the end."""


@dataclass(frozen=True, kw_only=True)
class _LearnData(Data):
    """Samples to learn on, and samples to choose on."""

    select_data: Path | None = option(
        "--select-data", type=PATH, help="Samples to choose masks on (.npz or a folder).  [a fifth of --data]"
    )

    def select(self, classifier: Classifier) -> Dataset | None:
        """Return the samples to choose on; None to take a part of the others."""
        return None if self.select_data is None else self.part(classifier, self.select_data)


@dataclass(frozen=True, kw_only=True)
class _Recipe(Group):
    """What masks are learned with: the fields of :class:`cloakonnx.Recipe`."""

    eps: float = option(
        "--eps", type=Number(), required=True, help="Radius of the eps ball in pixel space, such as 2/255."
    )
    budget: float = option(
        "--budget", type=Number(), required=True, help="Clean accuracy that may be lost: 4% is 4 percentage points."
    )
    norm: Any = norm()
    granularity: Any = granularity()
    eps_factor: float = option(
        "--eps-factor",
        type=Number(),
        default=1.5,
        show_default=True,
        help="Factor on eps in the attacks that masks are learned against.",
    )
    inner_steps: int = option(
        "--inner-steps",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Steps of the inner attack from a random start: 1 is FGSM, more are PGD.",
    )
    loss: Any = option(
        "--loss",
        type=click.Choice(["soft-ce", "ce", "trades"]),
        default="soft-ce",
        show_default=True,
        help="Loss on adversarial inputs: cross-entropy to the unmasked model's scores (soft-ce) or to labels (ce), or "
        "KL divergence from the clean inputs (trades).",
    )
    clean_weight: float | None = option(
        "--clean-weight", type=Number(), help="Weight of the clean cross-entropy.  [0.5; trades: 1/6]"
    )
    epochs: int | None = option(
        "--epochs", type=click.IntRange(min=1), help="Passes over the data.  [8; with few samples up to 40]"
    )
    learning_rate: float = option(
        "--learning-rate",
        type=Number(),
        default=0.02,
        show_default=True,
        help="Highest learning rate of the one-cycle schedule.",
    )
    warm_up: float = option(
        "--warm-up",
        type=Number(),
        default=0.5,
        show_default=True,
        help="Share of all steps during which eps grows to its full size.",
    )
    batch_size: int = option(
        "--batch-size", type=click.IntRange(min=1), default=50, show_default=True, help="Samples per step."
    )
    parts: int = parts()
    flip: bool | None = option(
        "--flip/--no-flip",
        default=None,
        help="Mirror samples at random, left to right.  [only images with three channels]",
    )
    shift: int | None = option(
        "--shift",
        type=click.IntRange(min=0),
        help="Largest random shift of images in pixels.  [an eighth of the side of images with three channels, else 0]",
    )
    mask_bounds: tuple[float, float] = option(
        "--mask-bounds",
        type=Numbers(2, example="0,4"),
        default=(0.0, 4.0),
        help="Smallest and largest weight of a mask.  [0,4]",
    )
    l1: float = option("--l1", type=Number(), default=0.0, show_default=True, help="L1 penalty on weight - 1.")
    zero_below: float = option(
        "--zero-below",
        type=Number(),
        default=0.0,
        show_default=True,
        help="Weights of a mask below this become exactly 0.",
    )
    foldable: bool = option(
        "--foldable", is_flag=True, help="Keep weights of masks at or above 0.05, so that 'apply --fold' can fold them."
    )
    seed: int = seed()

    def recipe(self) -> Recipe:
        """Return the recipe; raises OptionError for a setting that makes no sense."""
        from cloakonnx.selection.learn.recipe import Recipe

        given: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        return Recipe(bounds=given.pop("mask_bounds"), **given)


@dataclass(frozen=True, kw_only=True)
class _Places(Group):
    """Where masks are learned, and what an earlier run left."""

    tap: tuple[str, ...] = option(
        "--tap",
        metavar="TENSOR",
        multiple=True,
        shell_complete=taps,
        help="Activation to mask, instead of weights; may be repeated.",
    )
    tap_pattern: tuple[str, ...] = option(
        "--tap-pattern", metavar="GLOB", multiple=True, help="Activations to mask, by a pattern of names: '*relu*'."
    )
    layers: tuple[str, ...] = layers()
    resume: bool = option("--resume", is_flag=True, help=RESUME)
    dry_run: bool = dry_run()

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`cloakonnx.learn` takes of it."""
        return {"taps": self.tap, "tap_patterns": self.tap_pattern, "layers": self.layers}


@dataclass(frozen=True, kw_only=True)
class _Runs(Runs):
    batch_size: int = 64
    """Of no use here: the recipe has its own."""


@dataclass(frozen=True, kw_only=True)
class _Output(AnalysisOutput):
    force: bool = option(
        "--force",
        is_flag=True,
        place="last",
        help="Overwrite an existing output; write masks that miss the budget, too.",
    )


@verb("learn")
def command(
    *,
    model: ModelFile,
    data: _LearnData,
    settings: _Recipe,
    places: _Places,
    runs: _Runs,
    output: _Output,
    as_json: Json,
) -> None:
    """Learn masks for MODEL against attacks that see them; the model's own weights are not changed.

    \b
    cloakonnx learn model.onnx --data train.npz --eps 2/255 --budget 4%
    cloakonnx learn model.onnx --data train.npz --select-data more.npz --eps 2/255 --budget 4% --foldable
    cloakonnx apply model.onnx

    Masks are chosen on samples that were not used for learning. If the model was trained on all of --data, name others
    with --select-data: on samples that the model has memorised, the loss of clean accuracy looks smaller than it is.
    """
    from cloakonnx.engine.folder import forget
    from cloakonnx.graph.file.model import load

    classifier = runs.classifier(load(model), data)
    samples, select = data.samples(classifier), data.select(classifier)
    recipe = settings.recipe()
    target = None if places.dry_run else output.of(model, inputs=(data.data, data.select_data))
    classifier = runs.ready(classifier)
    warn_of_randomness(classifier)
    given = {**places.settings, "select": select}
    if target is None:
        _tell_time(classifier, samples, recipe, runs, given, as_json=as_json)
        return
    given |= {"resume": places.resume, "output": target, "over_budget": output.force}
    result = _learned(classifier, samples, recipe, runs, given)
    result.save(target)
    for note in result.notes:
        warn(note)
    forget(target)
    if as_json:
        write_json(result.to_json())
    _tell(result, target, eps_text(settings.eps))


def _tell_time(
    classifier: Classifier, samples: Dataset, recipe: Recipe, runs: Runs, given: dict[str, Any], *, as_json: bool
) -> None:
    """Print how long learning takes, without doing it."""
    from cloakonnx.cli._dry import tell_estimate
    from cloakonnx.selection.learn.duration import estimate_learning

    found = estimate_learning(classifier, samples, recipe, **given, engine=runs.asked_engine())
    tell_estimate(found, classifier, as_json=as_json)


def _learned(classifier: Classifier, samples: Dataset, recipe: Recipe, runs: Runs, given: dict[str, Any]) -> Analysis:
    """Learn, and show how far it is."""
    from cloakonnx.selection.learn.learn import learn
    from cloakonnx.selection.learn.progress import watched

    engine = runs.asked_engine()

    def bar(steps: int) -> AbstractContextManager[Callable[[float], None]]:
        return progress("learning", steps, unit="steps", engine=engine)

    try:
        with going_on(RESUMED), watched(bar, say) as on_progress:
            return learn(classifier, samples, recipe, **given, engine=engine, on_progress=on_progress)
    except NoGainError as error:
        raise NoGainError(
            f"{error.args[0]}, or write them as they are with --force (with --resume nothing is learned again)",
            parameter=error.parameters,
        ) from None


def _tell(result: Analysis, target: Path, eps: str) -> None:
    learning = cast("dict[str, Any]", result.learning)
    select, chosen = learning["select"], learning["chosen"]
    numbers = sum(mask.weights.size for mask in result.masks)
    say(
        f"{len(result.masks)} masks, {numbers:,} numbers ({result.provider}); epoch {chosen['epoch']}, "
        f"blend {chosen['blend']:g}"
    )
    say(
        f"select part ({select['source']}): clean {chosen['clean']} of {select['count']} (before: "
        f"{select['clean_before']}), PGD-{select['attack_steps']} at eps {eps} {chosen['robust']} of "
        f"{select['attacked']} (before: {select['robust_before']})"
    )
    say(_how_far(f"PGD-{select['attack_steps']}", chosen["robust"], chosen.get("converged", 0)))
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


def _how_far(attack: str, robust: int, converged: int) -> str:
    """Say whether the attack on the select part had converged, in the words of the flag ``iterations``."""
    if robust and robust == converged:
        return f"{attack} ran into an exact cycle for each of {robust} robust samples: more steps change nothing"
    return (
        f"note: {attack} has converged for {converged} of {robust} robust samples, so robust accuracy on the "
        "select part is an upper bound: 'cloakonnx evaluate' makes stronger attacks on the masks"
    )


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
