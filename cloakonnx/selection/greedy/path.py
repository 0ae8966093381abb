"""Greedy forward selection: take away the feature that helps most under attack, again and again, within a budget.

The objective is the mean over the samples of sigmoid(margin), margin = z_t - max over the others of z_j on the
adversarial input, the smallest one where a sample has several: a smooth count of the samples that hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.task import SingleLabel
from cloakonnx.selection.greedy.ablation import Ablation

_LEAST_GAIN = 1e-9
"""A smaller gain is rounding."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples, clean and attacked, whose features can be taken away.

    Attributes:
        y: (N,) labels.
        clean: The samples.
        attacked: Their adversarial inputs, from one attack or from several.
        task: What logits and labels mean.
    """

    y: NDArray[np.int64]
    clean: Ablation
    attacked: tuple[Ablation, ...]
    task: SingleLabel

    def correct(self, mask: NDArray[np.bool_]) -> int:
        """Return how many clean samples are classified correctly under a mask."""
        return int(self._correct(self.clean.logits(mask)[None])[0])

    def objective(self, mask: NDArray[np.bool_]) -> float:
        """Return the objective under a mask."""
        return float(self._objective([each.logits(mask)[None] for each in self.attacked])[0])

    def without_each(self, mask: NDArray[np.bool_]) -> Iterator[tuple[int, int, float]]:
        """Yield each feature that the mask keeps, with how many samples are correct and the objective without it."""
        streams = [each.without_each(mask) for each in (self.clean, *self.attacked)]
        for blocks in zip(*streams, strict=True):
            features, clean = blocks[0]
            correct = self._correct(clean)
            objectives = self._objective([logits for _, logits in blocks[1:]])
            yield from zip(features.tolist(), correct.tolist(), objectives.tolist(), strict=True)

    def _correct(self, logits: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return (B,) how many samples are right under each of B masks, by logits (B, N, classes)."""
        return np.asarray(self.task.right(logits, self.y).sum(axis=1))

    def _objective(self, attacked: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        smallest = np.minimum.reduce([self.task.margin(logits, self.y) for logits in attacked])
        return np.asarray(np.exp(-np.logaddexp(0.0, -smallest)).mean(axis=1))


@dataclass(frozen=True, eq=False)
class Step:
    """One prefix of a greedy path.

    Attributes:
        removed: The features that are gone, in the order in which they went.
        correct: Clean samples that are classified correctly.
        objective: The objective.
    """

    removed: tuple[int, ...]
    correct: int
    objective: float


def greedy_path(
    part: Part, features: int, *, least: int, on_step: Callable[[Step], None] = lambda step: None
) -> list[Step]:
    """Return the path from no feature removed to where no further one helps.

    Every step removes, of the features without which at least ``least`` clean samples are classified correctly, the one
    that leaves the largest objective; ties go by index.

    Args:
        part: The samples.
        features: How many features there are; one is always kept.
        least: The budget, as a number of samples.
        on_step: Called after every step.
    """
    mask = np.ones(features, np.bool_)
    path = [Step((), part.correct(mask), part.objective(mask))]
    while mask.sum() > 1:
        now = path[-1]
        best: Step | None = None
        for feature, correct, objective in part.without_each(mask):
            if correct >= least and objective > (now if best is None else best).objective:
                best = Step((*now.removed, feature), correct, objective)
        if best is None or best.objective - now.objective < _LEAST_GAIN:
            break
        mask[best.removed[-1]] = False
        path.append(best)
        on_step(best)
    return path


def best_prefix(path: Sequence[Step], part: Part, features: int, *, least: int) -> Step:
    """Return the prefix with the largest objective on other samples, of those within the budget there.

    The counts of the step that is returned are those of ``part``; no feature is removed where nothing helps there.

    Args:
        path: A greedy path.
        part: The other samples.
        features: How many features there are.
        least: How many of them must be classified correctly.
    """
    best: Step | None = None
    for step in path:
        mask = mask_without(features, step.removed)
        found = Step(step.removed, part.correct(mask), part.objective(mask))
        if best is None or (found.correct >= least and found.objective > best.objective):
            best = found
    assert best is not None  # a path has a start
    return best


def mask_without(features: int, removed: Sequence[int]) -> NDArray[np.bool_]:
    """Return (F,) False at the features that are removed."""
    mask = np.ones(features, np.bool_)
    mask[list(removed)] = False
    return mask


def least_correct(correct: int, count: int, budget: float) -> int:
    """Return how many of ``count`` samples must stay correct under a budget, a share of the samples."""
    return correct - int(budget * count + 1e-9)
