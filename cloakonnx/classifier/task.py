"""What scores and labels mean: which class is decided on, which labels are possible, and when an attack has won."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.ending import ending_of
from cloakonnx.errors import DataError, InferenceError, OptionError, nearest
from cloakonnx.gradient.losses import ATTACKED, Loss
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.ending import MIDDLE

_TELLING = 20
"""Samples of which a classifier that works gets more right than by chance."""

_SURE, _TIMES = 4, 2
"""What shifted labels must exceed: standard deviations above chance, times the samples right as labelled."""

NO_CLASS = -1
"""The prediction where a score is NaN."""


TASKS = ("classes", "binary")
"""Tasks: what the values of an output mean."""

PLANNED_TASKS = ("multilabel", "regression", "embedding", "anomaly", "reconstruction")
"""Tasks that have a name and are not built yet."""


def checked_task(task: str | None) -> str | None:
    """Return a task; raises OptionError for one that is unknown or not built yet."""
    if task is None or task in TASKS:
        return task
    if task in PLANNED_TASKS:
        raise OptionError(f"{{task}} {task} is not built yet; there are {' and '.join(TASKS)}", parameter="task")
    hint = nearest(task, (*TASKS, *PLANNED_TASKS))
    raise OptionError(f"there is no task {task!r} (there are {' and '.join(TASKS)}){hint}")


class SingleLabel:
    """One class a sample; a label is the index of the class.

    Args:
        model: The model.
        output: Its class scores.
        probabilities: Whether they are known to be probabilities (True) or logits (False).
    """

    losses: ClassVar[tuple[Loss, ...]] = ATTACKED
    """Losses that attacks may increase."""

    def __init__(self, model: Model, output: str, *, probabilities: bool | None = None) -> None:
        self._model, self._output = model, output
        self._probabilities = probabilities

    @cached_property
    def threshold(self) -> float:
        """The value that a single score must exceed for class 1.

        Raises:
            ModelError: nothing tells what a single score means.
        """
        found = ending_of(self._model, self._output)
        if self._probabilities and found.activation is None:
            return MIDDLE
        if self._probabilities is False and found.untold is not None:
            return 0.0
        return found.threshold(self._output)

    def check(self, y: NDArray[np.int64], classes: int, *, source: str | None = None) -> None:
        """Check that labels (N,) are classes of the model; raises DataError, which names the samples' source."""
        wrong = y[(y < 0) | (y >= classes)]
        if len(wrong):
            start = "" if source is None else f"{source}: "
            name = self._model.name if source is None else "the model"
            raise DataError(f"{start}label {int(wrong[0])} does not fit {name}, which has {classes} classes")

    def decide(self, scores: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the classes (...,) of scores (..., classes), or of (..., 1), one score that stands for two classes.

        The class is :data:`NO_CLASS` where a score is NaN.

        Raises:
            ModelError: nothing tells what a single score means.
        """
        if scores.shape[-1] > 1:
            return np.where(np.isnan(scores).any(axis=-1), NO_CLASS, scores.argmax(axis=-1))
        above = (scores[..., 0] > self.threshold).astype(np.int64)
        return np.where(np.isnan(scores[..., 0]), NO_CLASS, above)

    def right(self, scores: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (...,) whether scores (..., classes) decide for the labels; NaN scores never do."""
        return self.agrees(self.decide(scores), y)

    def agrees(self, decided: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (...,) whether the decided classes (:meth:`decide`) are the labels."""
        return np.asarray(decided == y)

    def undecided(self, decided: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (...,) where nothing was decided on, because a score is NaN."""
        return np.asarray(decided == NO_CLASS)

    def tied(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return (...,) where several classes share the largest of scores (..., classes): the first is taken."""
        if scores.shape[-1] > 1:
            return np.asarray((scores == scores.max(axis=-1, keepdims=True)).sum(axis=-1) > 1)
        return np.asarray(scores[..., 0] == self.threshold)

    def fooled(self, logits: NDArray[np.floating], y: NDArray[np.int64], *, targeted: bool) -> NDArray[np.bool_]:
        """Return (N,) whether an attack has won: not the label, or (targeted) the label, which is the target then."""
        right = self.right(logits, y)
        return right if targeted else ~right

    def margin(self, logits: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[Any]:
        """Return (..., N): the label's logit less the largest other one, for logits (..., N, classes)."""
        own = np.take_along_axis(logits, np.broadcast_to(y[:, None], (*logits.shape[:-1], 1)), axis=-1)[..., 0]
        return np.asarray(own - self._without(logits, y).max(axis=-1))

    def others(self, logits: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (N, classes - 1): the classes other than the label, the most likely first."""
        return np.argsort(-self._without(logits, y), axis=1, kind="stable")[:, :-1]

    def strata(self, y: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return the rows of each class that occurs, in the order of the classes."""
        return [np.flatnonzero(y == label) for label in np.unique(y)]

    def _without(self, logits: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[np.floating]:
        """Return logits with the label's at minus infinity."""
        found = logits.copy()
        found[..., np.arange(len(y)), y] = -np.inf
        return found


def class_scores(values: NDArray[Any], count: int, output: str) -> NDArray[np.float32]:
    """Return an output's values for ``count`` samples as (N, classes) float32.

    Raises:
        InferenceError: it is not one row of scores a sample.
    """
    scores = values
    if scores.shape[:1] == (count,) and scores.ndim > 2:
        scores = scores.reshape(count, -1) if scores[0].size == max(scores.shape[1:]) else scores
    if scores.ndim == 1 and len(scores) == count:
        scores = scores[:, None]
    if scores.ndim != 2 or len(scores) != count:
        raise InferenceError(
            f"output {output!r} has shape {scores.shape} for {count} samples; a classifier gives one row of class "
            "scores a sample"
        )
    return scores.astype(np.float32)


def at_chance(correct: int, count: int, classes: int) -> bool:
    """Return whether accuracy is no better than chance, on enough samples to tell."""
    return count >= _TELLING and correct * classes <= count


def labels_hint(correct: int, shifted: tuple[int, int], count: int, classes: int) -> str | None:
    """Say so where labels one lower or one higher would be right: they count from one, or a class is in front.

    Args:
        correct: Samples that are classified as labelled.
        shifted: Samples that are classified as the label less one, and as the label plus one.
        count: Samples.
        classes: Classes of the model.
    """
    more, way = max(zip(shifted, ("lower", "higher"), strict=True))
    beyond = count / classes + _SURE * (count / classes) ** 0.5  # than chance would
    if count < _TELLING or more <= max(_TIMES * correct, beyond):
        return None
    why = "do the labels count from 1" if way == "lower" else "does the model have a class in front, for background"
    return f"labels one {way} would be right for {more} of {count} samples: {why}?"
