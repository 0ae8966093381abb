"""What a model's scores are taken for: logits or probabilities, by its graph, and else by what it gives for samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.company import SAMPLES, Settled, check_batch_first, settled
from cloakonnx.classifier.declared import score_count
from cloakonnx.classifier.doubts import Directions, of_first_gradients, of_ties
from cloakonnx.classifier.ending import check_class_scores, ending_of
from cloakonnx.classifier.relabelled import shift_doubt
from cloakonnx.classifier.sessions import Asked
from cloakonnx.data.samples import Dataset
from cloakonnx.data.subset import known_labels
from cloakonnx.errors import DataError, DifferentiationError, InferenceError
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.index.ending import MIDDLE

_LOOKED_AT = 64
"""Samples whose scores are looked at; all where there are fewer."""

_SUM = 1e-3
"""How far a row of probabilities may be from adding up to 1."""


def reading(classifier: Classifier, dataset: Dataset, *, inside: str | None = None) -> Settled:
    """Return the classifier as its scores are to be read: samples at a time, and logits or probabilities.

    The first samples are scored alone and together (:func:`~cloakonnx.classifier.company.settled`); a model whose graph
    does not tell what its scores are is run on the first 64. An ending that gives no class scores is refused, except
    where the classifier's task says what it is to be taken for.

    Args:
        classifier: The classifier.
        dataset: The data; the first 64 samples are looked at.
        inside: What reads tensors inside the model, in words, which takes the batch first; None where nothing does.

    Raises:
        ModelError: the output holds no class scores, by how it is made; or the batch is not the first axis.
        DataError: the labels go from 1 to the number of classes, and one lower would be right.
        InferenceError: the output is not one row of scores a sample.
    """
    if inside is not None:
        check_batch_first(classifier, inside)
    if classifier.asked_task is None:
        check_class_scores(
            classifier.model,
            classifier.output_name,
            scores=score_count(classifier.model, classifier.output_name),
            sample=classifier.input_shape,
            input_name=classifier.input_name,
        )
    dataset.fitted_to(classifier)
    untold = None if classifier.asked_task is None else ending_of(classifier.model, classifier.output_name).untold
    if untold is not None:
        classifier = classifier.changed(probabilities=False)  # until its values are looked at
    _check_start(classifier, dataset)
    classifier, notes = settled(classifier, dataset.first(SAMPLES))
    if classifier.probabilities or not _is_open(classifier):
        return Settled(classifier, notes)
    scores = classifier.scores(dataset.first(_LOOKED_AT))
    if are_probabilities(scores):
        classifier = classifier.changed(probabilities=True)
    if untold is None or scores.shape[1] > 1:
        return Settled(classifier, notes)
    said = _about_single(classifier, scores, untold)
    return Settled(classifier, ("; ".join((*notes, said)),))


def first_doubts(
    classifier: Classifier, dataset: Dataset, *, climbs: bool = True, straight_through: bool = False
) -> tuple[str, ...]:
    """Return notes on ties and gradients of the first 64 samples, for work that does not count these on all samples.

    Args:
        classifier: The classifier.
        dataset: The samples.
        climbs: Whether the work takes gradients.
        straight_through: Whether these pass rounding and quantisation.
    """
    x = dataset.first(_LOOKED_AT)
    tied = int(classifier.task.tied(classifier.scores(x)).sum())
    ties = tuple(f"of the first {len(x)} samples {said}" for said in of_ties(tied))
    return (*ties, *(_still(classifier, x, straight_through=straight_through) if climbs else ()))


def first_gradients(classifier: Classifier, dataset: Dataset, *, straight_through: bool = False) -> tuple[str, ...]:
    """Return a note where the gradient is 0 for all of the first 64 samples; none where the graph gives no gradient."""
    return _still(classifier, dataset.first(_LOOKED_AT), straight_through=straight_through)


def _still(classifier: Classifier, x: NDArray[np.float32], *, straight_through: bool) -> tuple[str, ...]:
    directions = Directions()
    try:
        y = np.maximum(classifier.task.decide(classifier.logits(x)), 0)
        found = classifier.answer(x, y, loss=Loss.CE.climbed, straight_through=straight_through)
    except DifferentiationError:  # said, or refused, by what takes the gradients
        return ()
    directions.note(found.gradient)
    return () if directions.found else (of_first_gradients(len(x)),)


def _check_start(classifier: Classifier, dataset: Dataset) -> None:
    """Raise DataError where labels count from one: one of them is the number of classes, and one lower is right."""
    labels = known_labels(dataset.chosen)
    if labels is not None and not _may_start_at_one(labels, dataset.classes):
        return
    looked_at = _LOOKED_AT if dataset.limit is None else min(_LOOKED_AT, dataset.limit)
    some = replace(dataset, classes=None, limit=looked_at)  # evenly by class, and whatever the labels are
    batch = next(some.batches(looked_at))
    labels = batch.y if labels is None else labels
    if batch.y is None or labels is None or not _may_start_at_one(labels, dataset.classes):
        return
    try:
        scores = classifier.scores(batch.x)
    except InferenceError:  # samples go in alone, or not at all
        return
    y, classes = batch.y, max(scores.shape[1], 2)
    if labels.max() != classes:
        return
    decided = classifier.task.decide(scores)
    hint = shift_doubt(decided, y, classes=classes)
    if hint is not None:
        raise DataError(
            f"{dataset.source.name}: there are labels up to {classes}, but the model has {classes} classes (0 to "
            f"{classes - 1}); {hint}"
        )


def _may_start_at_one(labels: NDArray[np.int64], classes: int | None) -> bool:
    """Whether there is no label 0, and the largest is the number of classes where that is known."""
    return bool(labels.min() >= 1) and (classes is None or bool(labels.max() == classes))


def _about_single(classifier: Classifier, scores: NDArray[np.floating], op_type: str) -> str:
    """Say what a single score is taken for whose ending leaves that open, and whether its threshold parts samples."""
    threshold, kind = (MIDDLE, "probability") if classifier.probabilities else (0.0, "logit")
    above = int((scores > threshold).sum())
    parts = "" if 0 < above < len(scores) else f", which {'all' if above else 'none'} of the first {len(scores)} exceed"
    return (
        f"{classifier.name}: output {classifier.output_name!r} ends in {op_type}, and by its values it is taken for a "
        f"{kind}: class 1 above {threshold:g}{parts}"
    )


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
    if graph.logs == "single":
        return f"output {name!r} decides between two classes by one number; losses use that number"
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
    """Return whether something else than the model's own scores or logits stands for the logits."""
    return classifier.graph(Asked()).logs is not None


def _is_open(classifier: Classifier) -> bool:
    """Whether the graph leaves open what the scores are."""
    found = ending_of(classifier.model, classifier.output_name)
    return found.activation is None and not found.is_layer and not found.is_probability
