"""How many of the highest scores a budget of clean accuracy allows to remove."""

from __future__ import annotations

import numpy as np

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.loaded import Loaded
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import NoGainError
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.scoring.analysis import TapScores
from cloakonnx.selection.greedy.ablation import Ablations
from cloakonnx.selection.greedy.path import least_correct, mask_without
from cloakonnx.selection.topk import Count, check_several, ranking

_MOST_NAMED = 10
"""Numbers of features that an error lists, at most."""

_MOST_TRIED = 128
"""Amounts that are tried at most, spread evenly."""


def within_budget(
    classifier: Classifier,
    scores: TapScores,
    dataset: Dataset,
    *,
    budget: float,
    batch_size: int = 64,
) -> Count:
    """Return the largest number of features whose removal keeps within a budget of clean accuracy.

    The features that score highest go first. Beyond 128 features not every number is tried.

    Args:
        classifier: The classifier.
        scores: Of its features.
        dataset: Labelled samples to count on: others than the scores are of.
        budget: Clean accuracy that may be lost, as a share (0.01: 1 point).
        batch_size: Samples at a time. Activations at the tap are kept for all samples.

    Raises:
        DataError: no labels, or labels that are no classes.
        TapError: the class scores do not depend on the tap.
        OptionError: the tap has one feature only.
        NoGainError: the budget does not allow to remove even one.
    """
    check_several(scores)
    tap = find_tap(classifier.model, scores.tap, axis=scores.feature_axis)
    classifier.check_unmasked("the choice within a budget")
    dataset.fitted_to(classifier)
    samples = Loaded.read(dataset)
    ablations = Ablations(classifier, tap)
    ablation = ablations.of(samples.batches(batch_size))
    total, order = len(scores.scores), ranking(scores)

    def correct(count: int) -> int:
        logits = ablation.logits(mask_without(total, order[:count]))
        return int(classifier.task.right(logits, samples.y).sum())

    before = correct(0)
    least = least_correct(before, len(samples), budget)
    tried = np.unique(np.linspace(1, total - 1, min(total - 1, _MOST_TRIED)).round().astype(int))
    right = {int(count): correct(int(count)) for count in tried}
    within = [count for count, each in right.items() if each >= least]
    if not within:
        raise NoGainError(
            f"removing even the feature of {tap.name!r} that scores highest loses more than the budget of "
            f"{100 * budget:g} points on {len(samples)} select samples; raise {{budget}}, or choose another tap",
            parameter="budget",
            tried=(
                f"{count} of {total} features removed: {each} of {len(samples)} select samples right (before: {before})"
                for count, each in list(right.items())[:_MOST_NAMED]
            ),
        )
    return Count(within[-1])
