"""An attack on a whole set of samples, batch by batch: adversarial inputs in memory or in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.base import Attack, attacks_of
from cloakonnx.attacks.naming import outputs_by_eps
from cloakonnx.attacks.targets import Targets, TargetsLike
from cloakonnx.attacks.work import AttackedBatch, AttackWork, checked_works
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import Seen
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.reading import describe_scores
from cloakonnx.classifier.relabelled import data_doubt
from cloakonnx.classifier.task import at_chance
from cloakonnx.data.arrays import LABELS_KEY, PREDICTED, SETTINGS_KEY, load_npz
from cloakonnx.data.levels import as_pixels
from cloakonnx.data.samples import Dataset, SamplesLike
from cloakonnx.engine.batches import Engine, InTurn, map_batches
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.folder import Folder
from cloakonnx.engine.shards.part import end_of_part, engine_or, own_batches
from cloakonnx.engine.trees import joined
from cloakonnx.errors import DataError, OptionError
from cloakonnx.files import Parts, check_output, write_npz
from cloakonnx.remote import local
from cloakonnx.text import eps_exact


@overload
def attack(model: ModelLike, samples: SamplesLike, attack: Attack, **options: Any) -> Attacked: ...


@overload
def attack(model: ModelLike, samples: SamplesLike, attack: str, *, eps: float, **options: Any) -> Attacked: ...


@overload
def attack(
    model: ModelLike,
    samples: SamplesLike,
    attack: str | Sequence[Attack],
    *,
    eps: Sequence[float] = ...,
    **options: Any,
) -> tuple[Attacked, ...]: ...


def attack(
    model: ModelLike,
    samples: SamplesLike,
    attack: str | Attack | Sequence[Attack],
    *,
    eps: float | Sequence[float] = (),
    output: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    batch_size: int = 64,
    targets: TargetsLike | None = None,
    round_levels: bool = False,
    resume: bool = False,
    engine: Engine | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
    **settings: Any,
) -> Attacked | tuple[Attacked, ...]:
    """Make adversarial inputs for a model, in memory or as an ``.npz`` file for each eps.

    A file holds ``x`` in the layout of the data (uint8 where every value is a level of 1/255), ``y`` (the labels, or
    the model's own predictions where there are none), ``success`` and ``settings`` (JSON).

    Args:
        model: The classifier, or a model or path that stands for one.
        samples: The samples (:class:`cloakonnx.Samples`), with labels, or without for the model's own predictions.
        attack: An attack (:class:`cloakonnx.attacks.PGD`, say) or several, or the name of one.
        eps: With a name: radius of the ball in pixel space, or several.
        output: The file; for several attacks one each, or one name, to which each eps is added (``adv.eps1_255.npz``).
            None keeps the adversarial inputs in memory.
        batch_size: Samples per batch.
        targets: Makes the attack targeted: the class to reach, ``random`` (another than the label, by seed),
            ``least-likely``, ``labels`` (those of the data), an array (N,) of classes, or an ``.npy`` file of them.
        round_levels: Whether to round to levels of 1/255, inward, before the model judges an input.
        resume: Whether to continue an interrupted call with the same output and settings.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_progress: Called with the number of samples that are done, those of every eps added up.
        settings: With a name: settings of the attack (``max_iter=20``).

    Returns:
        The result; a tuple of results where several attacks or several eps are given.

    Raises:
        OptionError: settings that the attack does not take, or that don't fit pixel space.
        DataError: no samples, no labels for a targeted attack, or other samples than those of the resumed call.
        DifferentiationError: an op without a gradient, under an attack that needs one.
        OutputError: a file that can't be written, or what is to be resumed was left by other settings.

    Examples:
        >>> import numpy as np
        >>> import cloakonnx as ck
        >>> x, y = np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1])
        >>> adv = ck.attack("samples/digits_cnn.onnx", (x, y), ck.attacks.PGD(eps=1 / 16, max_iter=2))
        >>> adv.x.shape, adv.x.dtype, adv.success.shape
        ((2, 1, 8, 8), dtype('float32'), (2,))
    """
    attacks = attacks_of(attack, eps, settings)
    aims = Targets.of("labels" if targets is None else targets)
    if targets is not None:
        attacks = [_targeted(each) for each in attacks]
    paths = _outputs(output, attacks)
    if len(set(attacks)) < len(attacks):
        raise OptionError(f"{len(attacks)} attacks are asked for, and two of them are the same")
    if resume and output is None:
        raise OptionError(
            "{resume} needs {output}: finished batches are kept beside it", parameter=("resume", "output")
        )
    for path in paths:
        if path is not None:
            check_output(path, force=True)
    classifier = classifier_of(model)
    dataset = Dataset.of(samples, classifier)
    engine = engine_or(engine, lambda: default_engine(classifier.provider, dataset, batch_size))
    classifier = classifier.shipped().with_threads(engine.threads)
    works, notes = checked_works(classifier, dataset, attacks, round_levels=round_levels, targets=aims)
    classifier = works[0].classifier
    runs = [_Run.of(work, path, batch_size) for work, path in zip(works, paths, strict=True)]
    for run in runs:
        run.check(resume=resume)
    progress = InTurn(on_progress)
    for run in runs:
        run.handle(dataset, batch_size, engine, resume=resume, on_progress=progress)
        progress.next()
        if run.made and run.work.settings.is_targeted and not any(found.correct.any() for found in run.made):
            for each in runs:
                each.forget()
            raise DataError(_nothing_to_reach(dataset.source.name, run.count, aims), parameter="targets")
    end_of_part(engine)
    taken_for = describe_scores(classifier)
    written = tuple(run.result(classifier, dataset, notes=notes, taken_for=taken_for) for run in runs)
    for run in runs:
        run.forget()
    is_one = isinstance(attack, Attack) or (isinstance(attack, str) and isinstance(eps, Real))
    return written[0] if is_one else written


def _targeted(attack: Attack) -> Attack:
    """Return the targeted attack of the same settings; raises OptionError where there is none."""
    if "targeted" not in attack.settings():
        raise OptionError(f"{attack.name} has no targeted form: leave out {{targets}}", parameter="targets")
    return replace(attack, targeted=True)  # type: ignore[call-arg]


def _nothing_to_reach(name: str, count: int, targets: Targets) -> str:
    if targets.choice != "labels":
        return f"{name}: all {count} samples are classified as their target already, so there is nothing to attack"
    return (
        f"{name}: all {count} samples are classified as their label, so there is no class left to reach; the labels "
        "must be the classes to reach, not the true ones ({targets} random, least-likely or a class takes others)"
    )


def _outputs(
    output: str | PathLike[str] | Sequence[str | PathLike[str]] | None, attacks: Sequence[Attack]
) -> list[Path | None]:
    """Return where the result of each attack goes: one name is that of all, with its eps in it.

    Raises:
        OptionError: not as many outputs as attacks, or one twice.
    """
    if output is None:
        return [None] * len(attacks)
    if isinstance(output, (str, PathLike)):
        paths = outputs_by_eps(output, [eps_exact(each.eps) for each in attacks])
    else:
        paths = [local(each, writes=True) for each in output]
    if len(paths) != len(attacks) or len(set(paths)) < len(paths):
        raise OptionError(f"{len(attacks)} eps need as many outputs, all different; there are {len(set(paths))}")
    return [*paths]


@dataclass(eq=False)
class _Run:
    """One attack on all samples, and what became of each batch; images are in the folder where there is one."""

    work: AttackWork
    folder: Folder | None
    made: list[AttackedBatch] = field(default_factory=list)

    @classmethod
    def of(cls, work: AttackWork, output: Path | None, batch_size: int) -> _Run:
        record = {**work.record, "batch_size": batch_size}
        return cls(work, None if output is None else Folder(output, record, run="an attack"))

    @property
    def count(self) -> int:
        return sum(len(found.y) for found in self.made)

    def check(self, *, resume: bool) -> None:
        """Check that what is to be resumed was left by these settings."""
        if self.folder is not None:
            self.folder.check(resume=resume)

    def handle(
        self,
        dataset: Dataset,
        batch_size: int,
        engine: Engine,
        *,
        resume: bool,
        on_progress: Callable[[float], None],
    ) -> None:
        with (
            nullcontext() if self.folder is None else self.folder.opened(resume=resume),
            map_batches(
                self.work,
                dataset.batches(batch_size, wanted=own_batches(engine)),
                engine=engine,
                folder=self.folder,
                name=dataset.source.name,
                on_progress=on_progress,
            ) as handled,
        ):
            for _, found in handled:
                self.made.append(found if self.folder is None else replace(found, x=found.x[:0]))
            self.work.classifier.model.check_unchanged()

    def forget(self) -> None:
        """Remove the folder."""
        if self.folder is not None:
            self.folder.remove()

    def result(self, classifier: Classifier, dataset: Dataset, *, notes: tuple[str, ...], taken_for: str) -> Attacked:
        """Write the file, where there is one, holding the images of one batch at a time, and count.

        Raises:
            OutputError: the file can't be written.
        """
        found = joined(self.made) if self.folder is not None else _joined_in_memory(self.made)
        record = self.work.record if self.folder is None else self.folder.record
        settings = {**record, LABELS_KEY: PREDICTED if found.is_predicted else "given"}
        text = json.dumps(settings, sort_keys=True)
        if self.folder is not None:
            x = Parts((len(found.y), *found.x.shape[1:]), found.x.dtype, self._images(found.x.dtype))
            target = {} if found.target is None else {"target": found.target}
            arrays: dict[str, NDArray[Any] | Parts] = {"x": x, "y": found.y, **target, "success": found.success}
            write_npz(self.folder.output, {**arrays, SETTINGS_KEY: np.array(text)})
        hint = None
        correct = int(found.correct.sum())
        if not (found.is_predicted or settings["targeted"]):
            hint = data_doubt(classifier, dataset, found.decided, found.y)
        return Attacked(
            path=None if self.folder is None else self.folder.output,
            settings=json.loads(text),
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
            y=found.y,
            target=found.target,
            success=found.success,
            stored=None if self.folder is not None else found.x,
        )

    def _images(self, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield the images of one batch after the other, in the type of the file: float32 where one batch has it."""
        assert self.folder is not None
        for number in range(len(self.made)):
            x = self.folder.column(number, "x")
            yield x if x.dtype == dtype else as_pixels(x)


def _joined_in_memory(made: Sequence[AttackedBatch]) -> AttackedBatch:
    return joined([replace(found, x=as_pixels(found.x)) for found in made])


@dataclass(frozen=True)
class Attacked:
    """Result of an attack on a set of samples.

    Attributes:
        path: The adversarial file; None where the adversarial inputs are in memory.
        settings: The settings that are written with them.
        count: Samples.
        correct: Classified as labelled before (targeted: not as the target).
        robust: Of these, classified correctly under the attack, too.
        queries: Forward passes asked for, in samples.
        gradients: Gradients asked for, in samples.
        classes: Of the model.
        unscored: Samples whose scores were NaN before the attack; they count as wrong.
        notes: How the model was run, where that is not as usual, in words.
        seen: Ties before the attack, and whether gradients gave a direction.
        taken_for: What the model's scores were taken for, in words.
        labels_hint: What other labels would be right for far more samples, or that none may be, in words.
        converged: Samples that hold and for which more steps of the attack change nothing.
        y: (N,) int64 labels, or the model's own predictions.
        target: (N,) int64 classes to reach; None where the attack is untargeted, or the labels are the targets.
        success: (N,) bool, which adversarial inputs fool the model (targeted: reach the target).
        stored: The adversarial inputs, where they are in memory.
    """

    path: Path | None
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
    y: NDArray[np.int64] = field(kw_only=True, repr=False, compare=False)
    success: NDArray[np.bool_] = field(kw_only=True, repr=False, compare=False)
    target: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    stored: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def x(self) -> NDArray[np.float32]:
        """Adversarial inputs in pixel space and in the layout of the samples; read from the file where there is one."""
        if self.stored is not None:
            return self.stored
        assert self.path is not None  # where nothing is in memory
        return as_pixels(load_npz(self.path)[0])

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
        is_odd = self.target is None and 2 * there > self.count
        true = ": are the labels the true classes, not the classes to reach?" if is_odd else ""
        return f"{there} of {self.count} samples are classified as the target already, and are not attacked{true}"

    @property
    def has_labels(self) -> bool:
        """Whether the data had labels; the model's own predictions stand in otherwise."""
        return str(self.settings[LABELS_KEY]) != PREDICTED
