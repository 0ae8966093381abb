"""How class scores become classes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray

from cloakonnx.errors import InferenceError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.index.ending import Ending, ending
from cloakonnx.graph.index.index import structure

_TELLING = 20
"""Samples of which a classifier that works gets more right than by chance."""

NO_CLASS = -1
"""The prediction where a score is not a number."""


def class_scores(values: NDArray[Any], count: int, output: str) -> NDArray[np.float32]:
    """Return an output's values for so many samples as (N, classes) float32.

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


class Decision:
    """How an output's scores become classes; one score a sample stands for two.

    Args:
        model: The model.
        output: Its class scores.
    """

    def __init__(self, model: Model, output: str) -> None:
        self._output = output
        self._ending = _ending(model, output)

    @cached_property
    def threshold(self) -> float:
        """What a single score must exceed for class 1; raises ModelError where nothing tells what it means."""
        return self._ending.threshold(self._output)

    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the classes (N,) of scores (N, classes) or (N, 1); :data:`NO_CLASS` where one is not a number.

        Raises:
            ModelError: nothing tells what a single score means.
        """
        if scores.shape[1] > 1:
            return predicted(scores)
        above = (scores[:, 0] > self.threshold).astype(np.int64)
        return np.where(np.isnan(scores[:, 0]), NO_CLASS, above)


def at_chance(correct: int, count: int, classes: int) -> bool:
    """Whether a model gets no more of so many samples right than by chance, and they are enough to tell."""
    return count >= _TELLING and correct * classes <= count


def predicted(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the classes (..., ) of scores (..., classes); :data:`NO_CLASS` where one of them is not a number."""
    return np.where(np.isnan(scores).any(axis=-1), NO_CLASS, scores.argmax(axis=-1))


def _ending(model: Model, output: str) -> Ending:
    proto = model.proto
    graph = structure(onnx.inliner.inline_local_functions(proto) if proto.functions else proto)
    return ending(output, producer=graph.producer, value=Constants(graph).value)
