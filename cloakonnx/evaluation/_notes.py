"""What an evaluation says in words of its samples, gradients and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloakonnx.attacks.base import Attack
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import of_ties
from cloakonnx.classifier.reading import describe_scores, first_gradients, takes_logarithms
from cloakonnx.classifier.relabelled import data_doubt
from cloakonnx.classifier.task import at_chance
from cloakonnx.data.samples import Dataset
from cloakonnx.evaluation.outcomes import Found


def about_data(dataset: Dataset, found: Found, model: Classifier, baseline: Classifier | None) -> Iterator[str]:
    """Say in words what makes the labels, or a model's answers, worth less than they look."""
    if dataset.source.has_predicted_labels:
        yield (
            f"the labels of {dataset.source.name} are a model's own predictions, not true ones; accuracy is how often "
            "that class is kept"
        )
    clean = [(model, model.name, found.clean)]
    if baseline is not None and found.clean_baseline is not None:
        clean.append((baseline, "the baseline", found.clean_baseline))
    for (of, who, right), missing, tied, decided in zip(clean, found.unscored, found.tied, found.decided, strict=True):
        yield from (f"{who}: {said}" for said in of_ties(tied))
        if missing:
            yield f"{who} gives scores that are no numbers (NaN) for {missing} clean samples, which count as wrong"
        if at_chance(int(right.sum()), len(right), model.classes):
            yield (
                f"{who} gets {right.sum()} of {len(right)} clean samples right, no more than chance would in "
                f"{model.classes} classes: check the preprocessing (scale, mean, std) and the labels"
            )
        hint = data_doubt(of, dataset, decided, found.labels)
        if hint is not None:
            yield f"{who}: {hint}"


def about_gradients(classifier: Classifier, dataset: Dataset, attacks: Sequence[Attack]) -> tuple[str, ...]:
    """Say that gradients give attacks no direction, where they take any; a flag tells it where flags are asked for."""
    if not any(each.by_gradient for each in attacks):
        return ()
    passes = any(each.passes_straight for each in attacks)
    return first_gradients(classifier, dataset, straight_through=passes)


def about_scores(*classifiers: Classifier) -> Iterator[str]:
    """Say what scores were taken for where logarithms of probabilities stand for the logits."""
    yield from dict.fromkeys(f"{each.name}: {describe_scores(each)}" for each in classifiers if takes_logarithms(each))
