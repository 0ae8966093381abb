"""``cloakonnx attack``: adversarial inputs from an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloakonnx.cli._attacks import Attacks
from cloakonnx.cli._completion import targets as known_targets
from cloakonnx.cli._data import Data, warn_of_small_eps
from cloakonnx.cli._files import ARRAYS_OUTPUT, RESUME, Json, ModelFile, Output
from cloakonnx.cli._output import RESUMED, going_on, print_json, progress, say, warn
from cloakonnx.cli._runs import Runs, warn_of_randomness
from cloakonnx.cli._shards import Sharding, in_shards, own_samples
from cloakonnx.cli._shared import dry_run
from cloakonnx.cli._verb import Group, option, verb
from cloakonnx.text import eps_text

if TYPE_CHECKING:
    from cloakonnx.attacks.attack import Attacked
    from cloakonnx.attacks.base import Attack
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset
    from cloakonnx.engine.batches import Engine


@dataclass(frozen=True, kw_only=True)
class _Judging(Group):
    """What counts as success, and what an earlier run left."""

    targets: str | None = option(
        "--targets",
        shell_complete=known_targets,
        metavar="CLASS|random|least-likely|labels|FILE.npy",
        help="Targeted attack: the class to reach, one chosen for each sample, the labels of the data, or a file.",
    )
    targeted: bool = option("--targeted", is_flag=True, help="Short for --targets labels.")
    round_levels: bool = option(
        "--round",
        is_flag=True,
        help="Round inputs to levels of 1/255, towards the clean input, before they are judged.",
    )
    dry_run: bool = dry_run()
    resume: bool = option("--resume", is_flag=True, help=RESUME)

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`cloakonnx.attack` takes of it."""
        return {"round_levels": self.round_levels, "resume": self.resume, "targets": self.aim}

    @property
    def aim(self) -> str | None:
        """What the attack is to reach; None where it is untargeted."""
        if self.targeted and self.targets not in {None, "labels"}:
            raise click.UsageError("--targeted is --targets labels; leave out one of them")
        return "labels" if self.targeted else self.targets


@dataclass(frozen=True, kw_only=True)
class _AdversarialFile(Output):
    output: Path | None = option(
        "-o", "--output", type=ARRAYS_OUTPUT, required=True, help="Output file (.npz) for the adversarial inputs."
    )

    def of(self, attacks: Attacks, *, inputs: Sequence[Path | None]) -> list[Path] | None:
        """Return the file for each eps, and claim them; None in a shard, which has a file of its own."""
        from cloakonnx.attacks.naming import outputs_by_eps

        if self.output is None:
            return None
        outputs = outputs_by_eps(self.output, attacks.texts)
        self.claim(*outputs, inputs=inputs)
        return outputs

    def check_suffix(self) -> None:
        """Check the suffix; raises BadParameter."""
        if self.output is not None and self.output.suffix != ".npz":
            raise click.BadParameter(
                f"{self.output.name} is to hold x, y and success: give it the suffix .npz", param_hint="'-o'"
            )


@verb("attack")
@in_shards
def command(
    *, model: ModelFile, data: Data, chosen: Attacks, judging: _Judging, runs: Runs, output: _AdversarialFile,
    sharding: Sharding, as_json: Json,
) -> None:  # fmt: skip
    """Make adversarial inputs for MODEL: by gradients, or (square, noise) from its scores alone.

    \b
    cloakonnx attack model.onnx --data test.npz --attack pgd --eps 8/255 -o adversarial.npz
    cloakonnx attack model.onnx --data test.npz --attack square --eps 8/255 --max-iter 1000 -o square.npz
    cloakonnx attack model.onnx --data test.npz --attack apgd-ce --eps 1/255,2/255 -o apgd.npz

    The file holds x, y and success for each sample, and the settings. Several --eps give a file each, such as
    apgd.eps1_255.npz. If the data has no labels, the model's own predictions are used instead.
    """
    from cloakonnx.graph.file.model import load

    output.check_suffix()
    classifier = runs.classifier(load(model), data)
    samples = data.samples(classifier)
    attacks = chosen.attacks(targeted=judging.aim is not None)
    targets = [] if judging.dry_run else output.of(chosen, inputs=(model, data.data))
    warn_of_small_eps([each.eps for each in attacks], samples)
    classifier = runs.ready(classifier)
    warn_of_randomness(classifier)
    engine = runs.engine_for(classifier, samples)
    if judging.dry_run:
        _tell_time(classifier, samples, attacks, judging, engine=engine, batch_size=runs.batch_size, as_json=as_json)
        return
    settings = {**judging.settings, "batch_size": runs.batch_size, "engine": engine}
    found = _attacked(classifier, samples, attacks, targets, settings)
    _print(classifier, attacks, found, engine, as_json=as_json)


def _tell_time(
    classifier: Classifier, samples: Dataset, attacks: Sequence[Attack], judging: _Judging, *, engine: Engine,
    batch_size: int, as_json: bool,
) -> None:  # fmt: skip
    """Print how long the attacks take, without making them."""
    from cloakonnx.cli._dry import tell_estimate
    from cloakonnx.evaluation.attack_estimate import estimate_attacks

    found = estimate_attacks(
        classifier,
        samples,
        attacks,
        targets=judging.aim,
        round_levels=judging.round_levels,
        batch_size=batch_size,
        engine=engine,
    )
    tell_estimate(found, classifier, as_json=as_json)


def _attacked(
    classifier: Classifier,
    samples: Dataset,
    attacks: Sequence[Attack],
    targets: list[Path] | None,
    settings: dict[str, Any],
) -> tuple[Attacked, ...]:
    """Attack, and show how far it is."""
    from cloakonnx.attacks.attack import attack

    count = own_samples(samples.count(), settings["batch_size"])
    total = None if count is None else count * len(attacks)
    shown = progress(f"attack, {attacks[0].name}", total, unit="samples", engine=settings["engine"])
    with going_on(RESUMED), shown as advance:
        return attack(classifier, samples, attacks, **settings, output=targets, on_progress=advance)


def _print(
    classifier: Classifier, attacks: Sequence[Attack], found: Sequence[Attacked], engine: Engine, *, as_json: bool
) -> None:
    say(found[0].taken_for)
    for settings, attacked in zip(attacks, found, strict=True):
        _tell(classifier, settings, attacked)
    if as_json:
        records = [
            {**_record(settings, attacked), "workers": engine.workers}
            for settings, attacked in zip(attacks, found, strict=True)
        ]
        print_json(records[0] if len(records) == 1 else records)


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


def _tell(classifier: Classifier, settings: Attack, attacked: Attacked) -> None:
    from cloakonnx.classifier.doubts import of_gradients, of_ties

    before, after = f"{attacked.correct} of {attacked.count} correct", "still correct"
    if settings.is_targeted:
        before, after = f"{attacked.correct} of {attacked.count} not the target", "still not"
    elif not attacked.has_labels:
        before, after = f"{attacked.count} samples", "keep their class"
    say(
        f"{classifier.model.name}: {before}, {attacked.robust} {after} under {settings.name} "
        f"({settings.norm}, eps {eps_text(settings.eps)}; {classifier.provider.name})"
    )
    if attacked.converged:
        say(f"converged for {attacked.converged} of {attacked.robust} robust samples: more steps change nothing")
    if not attacked.has_labels:
        say("the data has no labels: the model's own predictions stand in, as y in the file, too")
    for each in attacked.notes:
        warn(each)
    if attacked.unscored:
        warn(f"the scores of {attacked.unscored} samples are no numbers (NaN); they count as not correct")
    for doubt in (*of_ties(attacked.seen.tied), *of_gradients(attacked.seen)):
        warn(doubt)
    if attacked.is_at_chance:
        warn(
            "chance would get as many right; are preprocessing (--scale, --mean, --std) and labels those of the model?"
        )
    if attacked.labels_hint is not None:
        warn(attacked.labels_hint)
    if attacked.target_hint is not None:
        warn(attacked.target_hint)
    say(f"{attacked.gradients} gradients and {attacked.queries} queries; wrote {attacked.path}")
