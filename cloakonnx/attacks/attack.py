"""An attack on a whole set of samples, batch by batch: a file of adversarial inputs, or pairs made on the fly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.base import Attack, make
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.task import at_chance
from cloakonnx.data.arrays import LABELS_KEY, PREDICTED, SETTINGS_KEY
from cloakonnx.data.batch import Batch
from cloakonnx.data.levels import as_levels, rounded_inward
from cloakonnx.data.samples import Dataset, PairBatch
from cloakonnx.engine.folder import Checkpoints
from cloakonnx.errors import DataError, OptionError
from cloakonnx.files import Parts, check_output, write_npz


@dataclass(frozen=True)
class AttackedPairs:
    """Clean samples and twins made on the fly; every sample takes all steps, fooled or not, so that all are moved.

    Attributes:
        clean: The samples; without labels the model's own predictions stand in.
        victim: The classifier.
        settings: The attack.
    """

    clean: Dataset
    victim: Victim
    settings: Attack

    @property
    def adversarial_name(self) -> None:
        """There is no file of twins."""

    @property
    def attack(self) -> dict[str, Any]:
        """The settings, for records."""
        return self.settings.record()

    def batches(self, size: int) -> Iterator[PairBatch]:
        """Yield samples with their twins."""
        for batch in self.clean.batches(size):
            y = _stand_in(self.victim, self.victim.predict(batch.x), batch, self.clean) if batch.y is None else batch.y
            found = self.settings.run(self.victim, batch.x, y, samples=batch.indices)
            yield PairBatch(batch.x, found.x, batch.y, batch.start)


class AttackJob:
    """Attacks a set of samples and writes the adversarial file.

    The file is an ``.npz`` with ``x`` in the layout of the data (uint8 where every value is a level of 1/255), ``y``
    (the labels, or the model's own predictions where there are none), ``success`` and ``settings`` (JSON). While it
    is made, finished batches lie in a folder beside it, which ``resume`` goes on from.

    Call :meth:`run`, :meth:`write` and :meth:`clear`, in this order; with several jobs, each step for all of them, so
    that an interrupted call can be resumed as a whole.

    Args:
        victim: The classifier.
        dataset: The samples.
        output: The file.
        settings: The attack.
        batch_size: Samples at a time.
        round_levels: Whether to round to levels of 1/255, inward, and test success again.
        resume: Whether to go on with what an interrupted call has left.

    Raises:
        OptionError: settings that don't fit pixel space.
    """

    def __init__(
        self,
        victim: Victim,
        dataset: Dataset,
        output: Path,
        *,
        settings: Attack,
        batch_size: int = 64,
        round_levels: bool = False,
        resume: bool = False,
    ) -> None:
        bounds = dataset.preprocessing.bounds
        ball(settings.norm, settings.eps).check(bounds, prod(dataset.stored_shape))
        if round_levels and bounds != (0.0, 1.0):
            raise OptionError("--round takes levels of 1/255, so pixel space must be [0, 1]: leave out --bounds")
        self._victim, self._dataset, self._settings = victim, dataset, settings
        self._batch_size, self._round, self._resume = batch_size, round_levels, resume
        record = {
            **settings.record(),
            "model_sha256": victim.classifier.model.sha256,
            "input": victim.classifier.input_name,
            "output": victim.classifier.output_name,
            "preprocessing": asdict(dataset.preprocessing),
            "round": round_levels,
            "batch_size": batch_size,
            "provider": victim.classifier.provider.name,
        }
        self._checkpoints = Checkpoints(output, record, run="an attack")
        self._batches = 0
        self.samples = 0
        """How many the last run went through."""

    def run(self, on_progress: Callable[[int], None] = lambda samples: None) -> None:
        """Attack all samples; ``on_progress`` is called with the number of samples after every batch.

        An interrupt leaves the finished batches for ``resume``. Bad input leaves nothing behind, but for what an
        earlier call had left.

        Raises:
            DataError: no labels for a targeted attack, or other samples than those of the call that is resumed.
            OutputError: other settings than those, or the folder can't be written.
        """
        self._batches = 0
        with self._checkpoints.opened(resume=self._resume):
            for batch in self._dataset.batches(self._batch_size):
                self._attack_or_skip(batch)
                self._batches += 1
                self.samples = batch.start + len(batch.x)
                on_progress(self.samples)

    def write(self) -> Attacked:
        """Write the file; raises OutputError where that fails."""
        return join(self._checkpoints, self._batches, classes=self._victim.classes)

    def clear(self) -> None:
        """Remove the finished batches, once the file is written."""
        self._checkpoints.remove()

    def _attack_or_skip(self, batch: Batch) -> None:
        name = self._dataset.source.name
        if batch.y is None and self._settings.is_targeted:
            raise DataError(f"{name} has no labels; a targeted attack takes the classes to reach from them")
        if not self._checkpoints.holds(self._batches, batch, name=name):
            self._checkpoints.save(self._batches, batch, self._attack(batch))

    def _attack(self, batch: Batch) -> dict[str, NDArray[Any]]:
        victim, dataset, x = self._victim, self._dataset, batch.x
        before = victim.counts.queries, victim.counts.gradients
        predicted = victim.predict(x)
        y = _stand_in(victim, predicted, batch, dataset) if batch.y is None else batch.y
        found = self._settings.run(victim, x, y, samples=batch.indices)
        adversarial, success = found.x, found.success
        targeted = self._settings.is_targeted
        if self._round:
            adversarial = rounded_inward(adversarial, x)
            success = victim.right(adversarial, y) == targeted
        stored = dataset.arrangement.undo(adversarial, dataset.stored_shape)
        levels = as_levels(stored) if dataset.preprocessing.bounds == (0.0, 1.0) else None
        if levels is not None:
            read_back = np.divide(np.rint(adversarial * 255), 255, dtype=np.float32)
            success = victim.confirmed(read_back, success, y, targeted=targeted)
        return {
            "x": stored if levels is None else levels,
            "is_level": np.array(levels is not None),
            "y": y,
            "success": success,
            "is_predicted": np.array(batch.y is None),
            "unscored": victim.task.undecided(predicted),
            "correct": victim.task.agrees(predicted, y) ^ targeted,
            "counts": np.array([victim.counts.queries - before[0], victim.counts.gradients - before[1]]),
        }


def _stand_in(victim: Victim, predicted: NDArray[np.int64], batch: Batch, dataset: Dataset) -> NDArray[np.int64]:
    """Return predictions as labels; raises DataError where the model makes none."""
    missing = np.flatnonzero(victim.task.undecided(predicted))
    if len(missing):
        raise DataError(
            f"{dataset.source.name} has no labels, and the model's prediction can't stand in for that of sample "
            f"{batch.start + int(missing[0])}: its scores are no numbers (NaN); leave such samples out, or give labels"
        )
    return predicted


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
    on_progress: Callable[[int], None] = lambda samples: None,
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
        round_levels: Whether to round to levels of 1/255, inward, and to test again.
        resume: Whether to go on where an interrupted call with the same settings stopped.
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
    classifier = classifier.shipped()
    victim = Victim(classifier, dataset.fitted_to(classifier))
    jobs = [
        AttackJob(
            victim,
            dataset,
            path,
            settings=each,
            batch_size=batch_size,
            round_levels=round_levels,
            resume=resume,
        )
        for each, path in zip(attacks, paths, strict=True)
    ]
    done = 0
    for job in jobs:
        job.run(lambda samples, before=done: on_progress(before + samples))  # type: ignore[misc]
        done += job.samples
    found = tuple(job.write() for job in jobs)
    for job in jobs:
        job.clear()
    return found


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

    @property
    def is_at_chance(self) -> bool:
        """Whether no more samples were classified as labelled than by chance."""
        return self.has_labels and not self.settings["targeted"] and at_chance(self.correct, self.count, self.classes)

    @property
    def has_labels(self) -> bool:
        """Whether the data had labels; the model's own predictions stand in otherwise."""
        return str(self.settings[LABELS_KEY]) != PREDICTED


def join(checkpoints: Checkpoints, count: int, *, classes: int) -> Attacked:
    """Write the first so many batches as one file, holding one of them at a time, and count.

    What the settings in the file say of the labels is known from the first batch on only.

    Raises:
        OutputError: the file can't be written.
    """

    def column(key: str) -> NDArray[Any]:
        return np.concatenate([checkpoints.read(number, key) for number in range(count)])

    def images() -> Iterator[NDArray[Any]]:
        """Yield the images of each batch: all as uint8, or all as float32."""
        for number in range(count):
            x = checkpoints.read(number, "x")
            yield x if is_level or x.dtype != np.uint8 else np.divide(x, np.float32(255), dtype=np.float32)

    y, success, correct = (column(key) for key in ("y", "success", "correct"))
    is_level = all(checkpoints.read(number, "is_level") for number in range(count))
    shape = (len(y), *checkpoints.read(0, "x").shape[1:])
    x = Parts(shape, np.dtype(np.uint8 if is_level else np.float32), images())
    is_predicted = bool(checkpoints.read(0, "is_predicted"))
    settings = {**json.loads(checkpoints.record), LABELS_KEY: PREDICTED if is_predicted else "given"}
    text = np.array(json.dumps(settings, sort_keys=True))
    write_npz(checkpoints.output, {"x": x, "y": y, "success": success, SETTINGS_KEY: text})
    queries, gradients = (int(total) for total in column("counts").reshape(-1, 2).sum(axis=0))
    return Attacked(
        path=checkpoints.output,
        settings=settings,
        count=len(y),
        correct=int(correct.sum()),
        robust=int((correct & ~success).sum()),
        queries=queries,
        gradients=gradients,
        classes=classes,
        unscored=int(column("unscored").sum()),
    )
