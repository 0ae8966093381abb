"""An attack on a whole set of samples, batch by batch, with checkpoints on batch boundaries."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.settings import Settings, run_attack
from cloakonnx.attacks.victim import Victim
from cloakonnx.data import Batch, Dataset, PairBatch, as_levels, rounded_inward, write_npz
from cloakonnx.errors import DataError, OutputError
from cloakonnx.graph import write_text

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Attacked:
    """What an attack on a set of samples came to.

    Attributes:
        count: Samples.
        correct: Classified as labelled before (targeted: not as the target).
        robust: Still so under the attack.
        queries: Forward passes asked for, in samples.
        gradients: Gradients asked for, in samples.
    """

    count: int
    correct: int
    robust: int
    queries: int
    gradients: int


@dataclass(frozen=True)
class AttackedPairs:
    """Clean samples and twins made on the fly; every sample takes all steps, fooled or not, so that all are moved.

    Attributes:
        clean: The samples; without labels the model's own predictions stand in.
        victim: The classifier.
        settings: Of the attack.
    """

    clean: Dataset
    victim: Victim
    settings: Settings

    @property
    def adversarial_name(self) -> None:
        """There is no file of twins."""

    @property
    def attack(self) -> dict[str, Any]:
        """The settings, for records."""
        return self.settings.as_dict()

    def batches(self, size: int) -> Iterator[PairBatch]:
        """Yield samples with their twins."""
        for batch in self.clean.batches(size):
            y = self.victim.predict(batch.x) if batch.y is None else batch.y
            samples = np.arange(batch.start, batch.start + len(y))
            axis = self.clean.arrangement.channel_axis
            found = run_attack(self.victim, batch.x, y, settings=self.settings, channel_axis=axis, samples=samples)
            yield PairBatch(batch.x, found.x, batch.y, batch.start)


def attack_file(
    victim: Victim,
    dataset: Dataset,
    output: Path,
    *,
    settings: Settings,
    model_sha256: str,
    batch_size: int = 64,
    round_levels: bool = False,
    resume: bool = False,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> Attacked:
    """Attack a set of samples and write the adversarial file.

    The file is an ``.npz`` with ``x`` in the layout of the data (uint8 where every value is a level of 1/255), ``y``
    (the labels, or the model's own predictions where there are none), ``success`` and ``settings`` (JSON). While it
    is made, finished batches lie in a folder beside it, which ``resume`` goes on from.

    Args:
        victim: The classifier.
        dataset: The samples.
        output: The file.
        settings: Of the attack.
        model_sha256: Digest of the model file, for the record.
        batch_size: Samples at a time.
        round_levels: Whether to round to levels of 1/255, inward, and test success again.
        resume: Whether to go on with what an interrupted call has left.
        on_progress: Called with the number of samples after every batch.

    Raises:
        DataError: no labels for a targeted attack, or other samples than those of the call that is resumed.
        OutputError: other settings than those, or the file can't be written.
    """
    record = {
        **settings.as_dict(),
        "model_sha256": model_sha256,
        "round": round_levels,
        "batch_size": batch_size,
        "provider": victim.provider.name,
    }
    parts = _Parts(output, record, resume=resume)
    count = 0
    try:
        for batch in dataset.batches(batch_size):
            if batch.y is None and settings.targeted:
                raise DataError(
                    f"{dataset.source.name} has no labels; a targeted attack takes the classes to reach from them"
                )
            digest = hashlib.sha256(batch.x.tobytes()).hexdigest()
            if not parts.has(count, digest, dataset.source.name):
                part = _attack_batch(victim, dataset, batch, settings=settings, round_levels=round_levels)
                parts.save(count, digest, part)
            count += 1
            on_progress(batch.start + len(batch.x))
    finally:
        if not count:  # nothing to go on from
            parts.remove()
    return parts.finish(count)


def _attack_batch(
    victim: Victim, dataset: Dataset, batch: Batch, *, settings: Settings, round_levels: bool
) -> dict[str, NDArray[Any]]:
    before = victim.counts.queries, victim.counts.gradients
    x = batch.x
    predicted = victim.predict(x)
    y = predicted if batch.y is None else batch.y
    samples = np.arange(batch.start, batch.start + len(x))
    found = run_attack(victim, x, y, settings=settings, channel_axis=dataset.arrangement.channel_axis, samples=samples)
    adversarial, success = found.x, found.success
    if round_levels:
        adversarial = rounded_inward(adversarial, x)
        success = (victim.predict(adversarial) == y) == settings.targeted
    stored = dataset.arrangement.undo(adversarial, dataset.stored_shape)
    levels = as_levels(stored) if dataset.preprocessing.bounds == (0.0, 1.0) else None
    return {
        "x": stored if levels is None else levels,
        "y": y,
        "success": success,
        "correct": (predicted != y) if settings.targeted else (predicted == y),
        "counts": np.array([victim.counts.queries - before[0], victim.counts.gradients - before[1]]),
    }


class _Parts:
    """Finished batches, in a folder beside the output, until the output is written."""

    def __init__(self, output: Path, record: dict[str, Any], *, resume: bool) -> None:
        self._output = output
        self._folder = output.absolute().parent / f".{output.name}.parts"
        self._record = json.dumps(record, sort_keys=True)
        settings = self._folder / _SETTINGS
        if resume and settings.is_file():
            if settings.read_text(encoding="utf-8") != self._record:
                raise OutputError(
                    f"{self._folder} was left by an attack with other settings (or another model); start again without "
                    "--resume"
                )
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
            try:
                self._folder.mkdir()
            except OSError as error:
                raise OutputError(f"cannot write {output}: {error.strerror or error}") from None
            write_text(settings, self._record)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"

    def has(self, number: int, digest: str, name: str) -> bool:
        """Whether a batch is there; raises DataError where it was made from other samples."""
        path = self._path(number)
        if not path.is_file():
            return False
        with np.load(path, allow_pickle=False) as part:
            if str(part["digest"]) != digest:
                raise DataError(
                    f"{name} has other samples than the attack that is resumed; start again without --resume"
                )
        return True

    def save(self, number: int, digest: str, part: dict[str, NDArray[Any]]) -> None:
        """Keep a finished batch."""
        write_npz(self._path(number), {**part, "digest": np.array(digest)})

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def finish(self, count: int) -> Attacked:
        """Write the output from the first so many parts, remove them all, and count."""
        columns: dict[str, list[NDArray[Any]]] = {}
        for number in range(count):
            with np.load(self._path(number), allow_pickle=False) as part:
                for key in ("x", "y", "success", "correct", "counts"):
                    columns.setdefault(key, []).append(part[key])
        images = columns["x"]
        if len({part.dtype for part in images}) > 1:  # uint8 only where all of it is
            images = [p.astype(np.float32) / np.float32(255) if p.dtype == np.uint8 else p for p in images]
        y, success, correct = (np.concatenate(columns[key]) for key in ("y", "success", "correct"))
        arrays = {"x": np.concatenate(images), "y": y, "success": success, "settings": np.array(self._record)}
        write_npz(self._output, arrays)
        self.remove()
        queries, gradients = (int(total) for total in np.sum(columns["counts"], axis=0))
        return Attacked(len(y), int(correct.sum()), int((correct & ~success).sum()), queries, gradients)
