"""``cloakonnx analyze``: scores the features of a tap, or selects them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from cloakonnx.cli._attacks import MaybeAttack
from cloakonnx.cli._completion import criteria, taps
from cloakonnx.cli._data import Adversarial, CleanData, Data
from cloakonnx.cli._files import PATH, AnalysisOutput, Json, ModelFile
from cloakonnx.cli._output import progress, say, warn, write_json
from cloakonnx.cli._runs import Runs, warn_of_randomness
from cloakonnx.cli._shards import Sharding, in_shards, own_samples
from cloakonnx.cli._types import Number
from cloakonnx.cli._verb import Group, option, verb

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset, FittedPairs
    from cloakonnx.data.sources import Source
    from cloakonnx.scoring.analysis import Analysis
    from cloakonnx.scoring.analyze import PairSource
    from cloakonnx.selection.greedy.select import GreedyProgress


@dataclass(frozen=True, kw_only=True)
class _Versions(Adversarial):
    def check(self, source: Source | None, attack: MaybeAttack) -> None:
        """Check that the adversarial samples come from a file or from one attack."""
        if source is not None and attack.attack is not None:
            raise click.UsageError("--adversarial and --attack exclude each other")
        if source is None and attack.attack is None:
            raise click.UsageError(
                "adversarial samples are needed: either --adversarial names them or --attack makes them"
            )
        if (attack.attack is None) != (attack.eps is None):
            raise click.UsageError("--attack and --eps go together")
        if len(attack.texts) > 1:
            raise click.UsageError("analyze takes one --eps")
        if attack.attack is None:
            attack.check_unneeded()


@dataclass(frozen=True, kw_only=True)
class _Tap(Group):
    """Which features are scored, and how."""

    tap: str | None = option(
        "--tap",
        metavar="TENSOR",
        shell_complete=taps,
        help="Activation whose features are scored.  [the default of 'cloakonnx inspect']",
    )
    feature_axis: int | None = option(
        "--feature-axis", type=int, help="Axis of the tensor that counts features.  [inferred from the graph]"
    )
    criterion: str | None = option(
        "--criterion",
        shell_complete=criteria,
        metavar="NAME",
        help="How features are scored. deepcloak: sum of |delta|; relative: divided by the sum of |clean|; "
        "standardised: divided by the deviation of clean; with labels also discriminability, margin, evidence and "
        "gradient-x-activation (docs/how-it-works.md).  [deepcloak]",
    )

    @property
    def place(self) -> dict[str, Any]:
        """Where features are, as the library takes it."""
        return {"tap": self.tap, "feature_axis": self.feature_axis}

    @property
    def scores(self) -> dict[str, Any]:
        """How they are scored, as :func:`cloakonnx.analyze` takes it."""
        return {"criterion": self.criterion or "deepcloak"}


@dataclass(frozen=True, kw_only=True)
class _Selection(Group):
    """Selection of features within a budget, instead of scoring."""

    select: Literal["greedy"] | None = option(
        "--select", type=click.Choice(["greedy"]), help="Select features within --budget, instead of scoring them."
    )
    budget: float | None = option(
        "--budget", type=Number(), help="Clean accuracy that --select may lose: 1% is 1 percentage point."
    )
    rounds: int | None = option(
        "--rounds", type=click.IntRange(min=1), help="Rounds in which --select attacks the masked model again.  [3]"
    )
    select_data: Path | None = option(
        "--select-data", type=PATH, help="Samples that --select chooses a round on.  [a fifth of --data]"
    )

    def settings(self, classifier: Classifier, data: Data) -> dict[str, Any]:
        """Return what :func:`cloakonnx.select_greedy` takes of it."""
        part = None if self.select_data is None else data.part(classifier, self.select_data)
        return {"budget": self.budget, "rounds": self.rounds, "select": part}

    def check(self, criterion: str | None) -> None:
        """Check that options go together."""
        if self.select is None:
            given = {"--budget": self.budget, "--rounds": self.rounds, "--select-data": self.select_data}
            name = next((name for name, value in given.items() if value is not None), None)
            if name is not None:
                raise click.UsageError(f"{name} goes with --select greedy")
            return
        if criterion is not None:
            raise click.UsageError("--criterion and --select exclude each other")
        if self.budget is None:
            raise click.UsageError("--select greedy needs --budget: how much clean accuracy it may lose, 1% say")


@dataclass(frozen=True, kw_only=True)
class _Output(AnalysisOutput):
    force: bool = option(
        "--force",
        is_flag=True,
        place="last",
        help="Overwrite an existing output; write a selection that gains nothing, too.",
    )


@dataclass(frozen=True, kw_only=True)
class _Sharding(Sharding):
    resume: bool = option("--resume", is_flag=True, help="Continue an interrupted run of a --shard.")

    def check(self, select: str | None) -> None:
        """Check that options go together."""
        if self.shard is not None and select is not None:
            raise click.UsageError("--select takes all samples: leave out --shard")
        if self.resume and self.shard is None:
            raise click.UsageError("--resume goes with --shard: a run of all batches keeps none")


@verb("analyze")
@in_shards
def command(
    *, model: ModelFile, data: CleanData, versions: _Versions, attack: MaybeAttack, tap: _Tap, selection: _Selection,
    runs: Runs, output: _Output, sharding: _Sharding, as_json: Json,
) -> None:  # fmt: skip
    """Score the features of a tap of MODEL, an activation: one that differs most under attack scores highest.

    \b
    cloakonnx analyze model.onnx --data clean.npz --adversarial adversarial.npz
    cloakonnx analyze model.onnx --data clean.npz --attack fgsm --eps 4/255
    cloakonnx analyze model.onnx --data clean.npz --attack pgd --eps 2/255 --select greedy --budget 1%

    Samples are in pixel space: uint8 is divided by 255, floats must lie within --bounds. The preprocessing that the
    model was trained with (--scale, --mean, --std) turns them into its input.
    """
    from cloakonnx.graph.file.model import load
    from cloakonnx.graph.masks.insert import check_opset

    selection.check(tap.criterion)
    sharding.check(selection.select)
    loaded = load(model)
    check_opset(loaded)
    classifier = runs.classifier(loaded, data)
    clean, others = data.needed(), versions.source(data)
    versions.check(others, attack)
    inputs = data.data, versions.adversarial, selection.select_data
    target = None if sharding.shard is not None else output.of(model, inputs=inputs)
    classifier = runs.ready(classifier)
    samples = data.fitted(classifier, clean)
    given = None if others is None else versions.pairs(samples, data.fitted(classifier, others))
    settings = {**tap.place, "batch_size": runs.batch_size, "engine": runs.engine_for(classifier, samples)}
    if selection.budget is None:
        result = _scored(classifier, _pairs(classifier, samples, given, attack), settings | tap.scores)
    else:
        settings |= selection.settings(classifier, data) | {"without_gain": output.force}
        result = _selected(classifier, samples, given, attack, settings)
    assert target is not None  # a shard has ended before
    result.save(target)
    for note in result.notes:
        warn(note)
    if as_json:
        write_json(result.to_json())
    (_tell if selection.budget is None else _tell_selection)(result, target)


def _pairs(classifier: Classifier, clean: Dataset, given: FittedPairs | None, attack: MaybeAttack) -> PairSource:
    """Return pairs of files, or pairs whose adversarial samples an attack makes on the fly."""
    from cloakonnx.attacks.pairs import AttackedPairs

    return given if given is not None else AttackedPairs(clean, classifier, attack.attack_of(clean))


def _scored(classifier: Classifier, pairs: PairSource, settings: dict[str, Any]) -> Analysis:
    """Score features, and show how far it is."""
    from cloakonnx.scoring.analyze import analyze

    count = own_samples(pairs.clean.count(), settings["batch_size"])
    with progress("scoring", count, unit="samples", engine=settings["engine"]) as advance:
        return analyze(classifier, pairs, **settings, on_progress=advance, on_doubt=warn)


def _selected(
    classifier: Classifier, clean: Dataset, given: FittedPairs | None, attack: MaybeAttack, settings: dict[str, Any]
) -> Analysis:
    """Select features, and show how far it is."""
    from cloakonnx.selection.greedy.select import select_greedy

    warn_of_randomness(classifier)
    with progress("adversarial inputs", None, unit="samples", engine=settings["engine"]) as advance:
        return select_greedy(
            classifier,
            clean,
            attack=attack.attacks(early_stop=False)[0] if given is None else None,
            adversarial=None if given is None else given.adversarial,
            seed=attack.seed,
            **settings,
            on_progress=_tell_round,
            on_samples=advance,
        )


def _tell_round(now: GreedyProgress) -> None:
    step = now.step
    say(
        f"round {now.round}: {len(step.removed)} removed, last {step.removed[-1]}; clean {step.correct} of "
        f"{now.count}, objective {step.objective:.4f}"
    )


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


def _tell_selection(result: Analysis, target: Path) -> None:
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
