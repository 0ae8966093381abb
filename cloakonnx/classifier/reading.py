"""What a model's scores are taken for: logits or probabilities, by its graph, and else by what it gives for samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.company import SAMPLES, Settled, settled
from cloakonnx.classifier.declared import score_count
from cloakonnx.classifier.sessions import Asked
from cloakonnx.classifier.task import check_class_scores, ending_of
from cloakonnx.data.samples import Dataset

_LOOKED_AT = 64
"""Samples whose scores are looked at; all where there are fewer."""

_SUM = 1e-3
"""How far a row of probabilities may be from adding up to 1."""


def reading(classifier: Classifier, dataset: Dataset) -> Settled:
    """Return the classifier as its scores are to be read: samples at a time, and logits or probabilities.

    The first samples are scored alone and together (:func:`~cloakonnx.classifier.company.settled`); a model whose graph
    does not tell what its scores are is run on the first 64. An ending that gives no class scores is refused, except
    where the classifier's task says what it is to be taken for.

    Args:
        classifier: The classifier.
        dataset: The data; the first 64 samples are looked at.

    Raises:
        ModelError: the output holds no class scores, by how it is made.
        InferenceError: the output is not one row of scores a sample.
    """
    if classifier.asked_task is None:
        check_class_scores(
            classifier.model,
            classifier.output_name,
            scores=score_count(classifier.model, classifier.output_name),
            sample=classifier.input_shape,
            input_name=classifier.input_name,
        )
    dataset.fitted_to(classifier)
    classifier, note = settled(classifier, dataset.first(SAMPLES))
    if classifier.probabilities or not _is_open(classifier):
        return Settled(classifier, note)
    if not are_probabilities(classifier.scores(dataset.first(_LOOKED_AT))):
        return Settled(classifier, note)
    return Settled(classifier.changed(probabilities=True), note)


def are_probabilities(scores: NDArray[np.floating]) -> bool:
    """Return whether scores (N, classes) lie in [0, 1] and rows add up to 1, or (N, 1) lie in [0, 1]."""
    if not scores.size or not ((scores >= 0) & (scores <= 1)).all():  # NaN is neither
        return False
    return scores.shape[1] == 1 or bool((np.abs(scores.sum(axis=1, dtype=np.float64) - 1) <= _SUM).all())


def describe_scores(classifier: Classifier) -> str:
    """Return in words what the scores are taken for."""
    graph, name = classifier.graph(Asked()), classifier.output_name
    if graph.logs == "exact":
        return f"output {name!r} is taken for probabilities; losses use their logarithm, made from what is before them"
    if graph.logs == "floored":
        return (
            f"output {name!r} is taken for probabilities; losses use their logarithm in float64, which ends where "
            "float32 gives 0"
        )
    if graph.stripped == "LogSoftmax":
        return f"output {name!r} is taken for logarithms of probabilities; losses use the logits before LogSoftmax"
    if graph.stripped is not None:
        return f"output {name!r} is taken for probabilities; losses use the logits before {graph.stripped}"
    return f"output {name!r} is taken for logits"


def takes_logarithms(classifier: Classifier) -> bool:
    """Return whether logarithms of probabilities stand for the logits."""
    return classifier.graph(Asked()).logs is not None


def _is_open(classifier: Classifier) -> bool:
    """Whether the graph leaves open what the scores are."""
    found = ending_of(classifier.model, classifier.output_name)
    return found.activation is None and not found.is_layer and not found.is_probability
