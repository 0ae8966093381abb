"""Joins the finished batches of an attack to the adversarial file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data import LABELS_KEY, PREDICTED, SETTINGS_KEY, Checkpoints, Parts, write_npz
from cloakonnx.runtime import at_chance


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
