"""An attack on a whole set of samples, batch by batch: files of adversarial inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import Attack, make
from cloakonnx.attacks.pairs import labels_of
from cloakonnx.attacks.presets import passing
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import PASSES, Seen
from cloakonnx.classifier.reading import describe_scores, reading
from cloakonnx.classifier.relabelled import data_doubt
from cloakonnx.classifier.task import at_chance
from cloakonnx.data.arrays import LABELS_KEY, PREDICTED, SETTINGS_KEY
from cloakonnx.data.batch import Batch
from cloakonnx.data.layout import Arrangement
from cloakonnx.data.levels import as_levels
from cloakonnx.data.samples import Dataset
from cloakonnx.engine.batches import Engine, Tell, map_batches
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.trees import joined
from cloakonnx.errors import DataError, OptionError
from cloakonnx.files import Parts, check_output, write_npz


def attack(
    classifier: Classifier,
    dataset: Dataset,
    output: str | Path | Sequence[str | Path],
    *,
    attack: str | Attack | Sequence[Attack],
    eps: float | Sequence[float] = (),
    batch_size: int = 64,
    round_levels: bool = False,
    resume: bool = False,
    engine: Engine | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
    **settings: Any,
) -> tuple[Attacked, ...]:
    """Make adversarial inputs for a model, and write an ``.npz`` file for each eps.

    A file holds ``x`` in the layout of the data (uint8 where every value is a level of 1/255), ``y`` (the labels, or
    the model's own predictions where there are none), ``success`` and ``settings`` (JSON).

    Args:
        classifier: The classifier.
        dataset: The samples, fitted to it.
        output: The file, or one for each eps.
        attack: An attack (:class:`cloakonnx.attacks.PGD`, say), one for each output, or the name of one.
        eps: With a name: radius of the ball in pixel space, or several.
        batch_size: Samples at a time.
        round_levels: Whether to round to levels of 1/255, inward, before the model judges an input.
        resume: Whether to go on where an interrupted call with the same settings stopped.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_progress: Called with the number of samples that are done, those of every eps added up.
        settings: With a name: settings of the attack (``max_iter=20``).

    Returns:
        What became of it, one for each eps.

    Raises:
        OptionError: settings that the attack does not take, or that don't fit pixel space.
        DataError: no samples, no labels for a targeted attack, or other samples than those of the resumed call.
        DifferentiationError: an op without a gradient, under an attack that needs one.
        OutputError: a file that can't be written, or what is to be resumed was left by other settings.
    """
    attacks = _attacks(attack, eps, settings)
    paths = [Path(each) for each in ((output,) if isinstance(output, (str, Path)) else output)]
    if len(paths) != len(attacks) or len(set(attacks)) < len(attacks) or len(set(paths)) < len(paths):
        raise OptionError(f"{len(attacks)} eps need as many outputs, all different; there are {len(paths)}")
    for path in paths:
        check_output(path, force=True)
    engine = engine or default_engine(classifier.provider, dataset, batch_size)
    classifier = classifier.shipped().with_threads(engine.threads)
    sample = dataset.fitted_to(classifier)
    asked = [AttackWork.of(classifier, dataset, each, round_levels=round_levels) for each in attacks]
    classifier, notes = reading(classifier, dataset)
    classifier.prepare(sample)
    dataset.check_classes(classifier.classes)
    works = [replace(each, classifier=classifier) for each in asked]
    if any(each.by_gradient and not each.passes_straight for each in attacks) and Victim(classifier).must_pass:
        works = [replace(work, settings=each) for work, each in zip(works, passing(attacks), strict=True)]
        notes += (PASSES,)
    folders = [
        Folder(path, {**work.record, "batch_size": batch_size}, run="an attack")
        for work, path in zip(works, paths, strict=True)
    ]
    made: list[list[AttackedBatch]] = []
    done = 0
    for work, folder in zip(works, folders, strict=True):
        with (
            folder.opened(resume=resume),
            map_batches(
                work,
                dataset.batches(batch_size),
                engine=engine,
                folder=folder,
                name=dataset.source.name,
                on_progress=lambda samples, before=done: on_progress(before + samples),  # type: ignore[misc]
            ) as handled,
        ):
            made.append([replace(found, x=found.x[:0]) for _, found in handled])
            classifier.model.check_unchanged()
        done += sum(len(found.y) for found in made[-1])
        if work.settings.is_targeted and not any(found.correct.any() for found in made[-1]):
            for each in folders:
                each.remove()
            raise DataError(
                f"{dataset.source.name}: all {sum(len(found.y) for found in made[-1])} samples are classified as their "
                "label, so --targeted has no class left to reach; the labels must be the classes to reach, not the "
                "true ones"
            )
    taken_for = describe_scores(classifier)
    written = tuple(
        _written(
            folder,
            joined(parts),
            len(parts),
            classifier=classifier,
            dataset=dataset,
            notes=notes,
            taken_for=taken_for,
        )
        for folder, parts in zip(folders, made, strict=True)
    )
    for folder in folders:
        folder.remove()
    return written


@dataclass(frozen=True, eq=False)
class AttackedBatch:
    """What an attack makes of a batch.

    Attributes:
        x: Adversarial inputs in the layout of the data: uint8 where all are levels of 1/255, else float32.
        y: (N,) labels, or the model's own predictions.
        success: (N,) which fool the model (targeted: reach the target).
        unscored: (N,) for which the model gave scores that are NaN before the attack.
        correct: (N,) classified as labelled before (targeted: not as the target).
        decided: (N,) the model's classes before.
        is_predicted: Whether the labels are predictions.
        queries: Forward passes asked for, in samples.
        gradients: Gradients asked for, in samples.
        seen: Ties before the attack, and whether gradients gave a direction.
        converged: Samples that hold and for which more steps change nothing.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    success: NDArray[np.bool_]
    unscored: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    decided: NDArray[np.int64]
    is_predicted: bool
    queries: int
    gradients: int
    seen: Seen
    converged: int


@dataclass(frozen=True)
class AttackWork:
    """One attack on every batch.

    Attributes:
        classifier: The classifier.
        settings: The attack.
        round_levels: Whether to round to levels of 1/255, inward, before success is judged.
        name: The samples' source.
        arrangement: How its samples are laid out for the model.
        stored_shape: Shape of a stored sample.
    """

    classifier: Classifier
    settings: Attack
    round_levels: bool
    name: str
    arrangement: Arrangement
    stored_shape: tuple[int, ...]

    @classmethod
    def of(cls, classifier: Classifier, dataset: Dataset, settings: Attack, *, round_levels: bool) -> AttackWork:
        """Return the work on a dataset's samples; raises OptionError for settings that don't fit pixel space."""
        bounds = dataset.preprocessing.bounds
        ball(settings.norm, settings.eps).check(bounds, prod(dataset.stored_shape))
        if round_levels and bounds != (0.0, 1.0):
            raise OptionError("--round takes levels of 1/255, so pixel space must be [0, 1]: leave out --bounds")
        return cls(classifier, settings, round_levels, dataset.source.name, dataset.arrangement, dataset.stored_shape)

    @property
    def result(self) -> type[AttackedBatch]:
        """The type of a batch's result."""
        return AttackedBatch

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        known = self.classifier.probabilities
        return {
            **self.settings.record(),
            "model_sha256": self.classifier.model.sha256,
            "input": self.classifier.input_name,
            "output": self.classifier.output_name,
            "preprocessing": asdict(self.classifier.preprocessing),
            "round": self.round_levels,
            **({} if known is None else {"scores": "probabilities" if known else "logits"}),
            **self.classifier.record,
        }

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], AttackedBatch]:
        """Return what attacks a batch."""
        classifier = self.classifier.for_worker(worker)
        victim = Victim(classifier, self.arrangement.sample_shape(self.stored_shape))
        return lambda batch, tell: self._attack(victim, batch)

    def _attack(self, victim: Victim, batch: Batch) -> AttackedBatch:
        targeted = self.settings.is_targeted
        if batch.y is None and targeted:
            raise DataError(f"{self.name} has no labels; a targeted attack takes the classes to reach from them")
        x = batch.x
        before = victim.counts.queries, victim.counts.gradients
        predicted, tied = victim.decided(x)
        y = labels_of(batch, predicted, victim.task, name=self.name)
        found = self.settings.run(victim, x, y, samples=batch.indices, in_levels=self.round_levels)
        adversarial, success = found.x, found.success
        stored = self.arrangement.undo(adversarial, self.stored_shape)
        levels = as_levels(stored) if self.classifier.bounds == (0.0, 1.0) else None
        if levels is not None:
            read_back = np.divide(np.rint(adversarial * 255), 255, dtype=np.float32)
            success = victim.confirmed(read_back, success, y, targeted=targeted)
        return AttackedBatch(
            x=stored if levels is None else levels,
            y=y,
            success=success,
            unscored=victim.task.undecided(predicted),
            correct=victim.task.agrees(predicted, y) ^ targeted,
            decided=predicted,
            is_predicted=batch.y is None,
            queries=victim.counts.queries - before[0],
            gradients=victim.counts.gradients - before[1],
            seen=Seen(int(tied.sum()), *victim.directions.taken(len(x))),
            converged=int((found.converged & ~success).sum()),
        )


def _attacks(
    attack: str | Attack | Sequence[Attack], eps: float | Sequence[float], settings: Mapping[str, Any]
) -> list[Attack]:
    """Return the attacks: those given, or one of the name for each eps."""
    if isinstance(attack, str):
        radii = (eps,) if isinstance(eps, (int, float)) else tuple(eps)
        return [make(attack, eps=radius, **settings) for radius in radii]
    if settings or eps:
        raise OptionError("an attack that is given as such has its own eps and settings")
    return [attack] if isinstance(attack, Attack) else list(attack)


@dataclass(frozen=True)
class Attacked:
    """What an attack on a set of samples came to.

    Attributes:
        path: The adversarial file.
        settings: What it holds of them.
        count: Samples.
        correct: Classified as labelled before (targeted: not as the target).
        robust: Still so under the attack.
        queries: Forward passes asked for, in samples.
        gradients: Gradients asked for, in samples.
        classes: Of the model.
        unscored: Samples for which the model gave scores that are no numbers before; they count as wrong.
        notes: How the model was run, where that is not as usual, in words.
        seen: Ties before the attack, and whether gradients gave a direction.
        taken_for: What the model's scores were taken for, in words.
        labels_hint: What other labels would be right for far more samples, or that none may be, in words.
        converged: Samples that hold and for which more steps of the attack change nothing.
    """

    path: Path
    settings: Mapping[str, Any]
    count: int
    correct: int
    robust: int
    queries: int
    gradients: int
    classes: int
    unscored: int
    taken_for: str
    labels_hint: str | None = None
    notes: tuple[str, ...] = ()
    seen: Seen = field(default_factory=Seen)
    converged: int = 0

    @property
    def is_at_chance(self) -> bool:
        """Whether no more samples were classified as labelled than by chance."""
        return self.has_labels and not self.settings["targeted"] and at_chance(self.correct, self.count, self.classes)

    @property
    def target_hint(self) -> str | None:
        """That the classes to reach seem to be the true ones, in words, where most samples have them already."""
        there = self.count - self.correct
        if not self.settings["targeted"] or not there:
            return None
        true = ": are the labels the true classes, not the classes to reach?" if 2 * there > self.count else ""
        return f"{there} of {self.count} samples are classified as the target already, and are not attacked{true}"

    @property
    def has_labels(self) -> bool:
        """Whether the data had labels; the model's own predictions stand in otherwise."""
        return str(self.settings[LABELS_KEY]) != PREDICTED


def _written(
    folder: Folder,
    found: AttackedBatch,
    batches: int,
    *,
    classifier: Classifier,
    dataset: Dataset,
    notes: tuple[str, ...],
    taken_for: str,
) -> Attacked:
    """Write the batches of a folder as one file, holding the images of one of them at a time, and count.

    Args:
        folder: The finished batches.
        found: All of them joined, without images.
        batches: How many there are.
        classifier: The model.
        dataset: The samples.
        notes: What became of the model before the attack, in words.
        taken_for: What its scores were taken for.

    Raises:
        OutputError: the file can't be written.
    """
    dtype = found.x.dtype  # float32 where one batch has it

    def images() -> Iterator[NDArray[Any]]:
        for number in range(batches):
            x = folder.column(number, "x")
            yield x if x.dtype == dtype else np.divide(x, np.float32(255), dtype=np.float32)

    settings = {**folder.record, LABELS_KEY: PREDICTED if found.is_predicted else "given"}
    x = Parts((len(found.y), *found.x.shape[1:]), dtype, images())
    text = np.array(json.dumps(settings, sort_keys=True))
    hint = None
    correct = int(found.correct.sum())
    if not (found.is_predicted or settings["targeted"]):
        hint = data_doubt(classifier, dataset, found.decided, found.y)
    write_npz(folder.output, {"x": x, "y": found.y, "success": found.success, SETTINGS_KEY: text})
    return Attacked(
        path=folder.output,
        settings=json.loads(str(text)),
        count=len(found.y),
        correct=correct,
        robust=int((found.correct & ~found.success).sum()),
        queries=found.queries,
        gradients=found.gradients,
        classes=classifier.classes,
        unscored=int(found.unscored.sum()),
        notes=notes,
        seen=found.seen,
        converged=found.converged,
        taken_for=taken_for,
        labels_hint=hint,
    )
