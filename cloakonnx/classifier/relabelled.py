"""Which other labels would be right where the given ones are not, and where none are: a regression has no classes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.ending import ending_of
from cloakonnx.classifier.normalised import preprocessing_doubt
from cloakonnx.classifier.task import at_chance, labels_hint
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import CloakError
from cloakonnx.statistics import exact
from cloakonnx.text import LONGEST_NAME, shown

_TELLING, _SHARE = 20, 0.8
"""Samples, and share of them, that another order must explain."""

_TIMES, _MORE = 2, 1.2
"""Times the samples right as labelled, and right with labels shifted by one, that it must explain."""

_EACH = 3
"""Samples of a class below which its largest prediction says nothing."""

_LEVEL = 0.9
"""Of the interval whose lower end has to lie above chance: 5% on that side."""

_NAMED = 10
"""Classes that are named."""

_LOOKED_AT, _BATCH = 256, 64
"""Samples that are classified before long work, and how many at a time."""


def data_doubt(
    classifier: Classifier, dataset: Dataset, decided: NDArray[np.int64], y: NDArray[np.int64]
) -> str | None:
    """Say what may be wrong with the data where a model has few samples right: labels, preprocessing, or the output.

    Args:
        classifier: The model.
        dataset: The samples.
        decided: (N,) the model's classes of the clean samples; negative where it has none.
        y: (N,) true labels.
    """
    right = int((decided == y).sum())
    names, labelled = classifier.class_names, dataset.label_names
    return (
        labels_doubt(decided, y, classes=classifier.classes, names=names, labelled=labelled)
        or preprocessing_doubt(classifier, dataset, correct=right, count=len(y))
        or values_doubt(classifier, right, len(y))
    )


def first_data_doubt(classifier: Classifier, dataset: Dataset) -> str | None:
    """Say what :func:`data_doubt` says of the first samples, for work that takes long before it counts."""
    if dataset.source.count() is None or dataset.source.has_predicted_labels:
        return None
    most = _LOOKED_AT if dataset.limit is None else min(_LOOKED_AT, dataset.limit)
    decided, labels = [], []
    try:
        for batch in replace(dataset, limit=most).batches(_BATCH):
            if batch.y is None:
                return None
            decided.append(classifier.predict(batch.x))
            labels.append(batch.y)
        return data_doubt(classifier, dataset, np.concatenate(decided), np.concatenate(labels))
    except CloakError:  # the code that needs the samples, or runs the model, raises it
        return None


def labels_doubt(
    decided: NDArray[np.int64],
    y: NDArray[np.int64],
    *,
    classes: int,
    names: Sequence[str] | None,
    labelled: Sequence[str] | None = None,
) -> str | None:
    """Say what other labels would be right for far more samples: one lower or higher, or in another order.

    Args:
        decided: (N,) the model's classes of the clean samples; negative where it has none.
        y: (N,) labels.
        classes: How many classes the model has.
        names: What its file calls them.
        labelled: What the data calls them, in the order of the labels: class folders, say.
    """
    right, shifted = int((decided == y).sum()), _shifted(decided, y)
    order = _order(decided, y)
    explained = sum(int(((y == label) & (decided == each)).sum()) for label, each in order.items())
    least = max(_SHARE * len(y), _TIMES * right, _MORE * max(shifted))
    named = None if names is None else f"model's file names its classes {listed(names)}"
    if len(y) >= _TELLING and explained > least:
        swapped = [f"label {label} as class {_named(each, names)}" for label, each in order.items() if label != each]
        more = ", ..." if len(swapped) > _NAMED else ""
        return (
            f"with the classes in another order {explained} of {len(y)} samples would be right "
            f"({', '.join(swapped[:_NAMED])}{more}): are the labels numbered as the model's outputs?"
            f"{_way(order, classes, labelled)}{'' if named is None else f' The {named}'}"
        )
    hint = labels_hint(right, shifted, len(y), classes)
    if hint is None and named is not None and at_chance(right, len(y), classes):
        return f"the {named}: are the labels numbered so?"
    return hint


def values_doubt(classifier: Classifier, correct: int, count: int) -> str | None:
    """Say that scores may be a regression's: they end in a plain layer, and chance explains what is right of them."""
    classes = classifier.classes
    if classifier.asked_task is not None or count < _TELLING or at_chance(correct, count, classes):
        return None
    if exact(correct, count, confidence=_LEVEL).low > 1 / classes:
        return None
    if not ending_of(classifier.model, classifier.output_name).is_layer:
        return None
    return (
        f"{correct} of {count} right is no more than chance explains in {classes} classes, and a layer of weights ends "
        f"output {classifier.output_name!r}, as it does in a regression: does it hold class scores?"
    )


def shift_doubt(decided: NDArray[np.int64], y: NDArray[np.int64], *, classes: int) -> str | None:
    """Say where labels one lower or one higher would be right for far more samples."""
    return labels_hint(int((decided == y).sum()), _shifted(decided, y), len(y), classes)


def listed(names: Sequence[str]) -> str:
    """Return the first classes with their numbers: ``0 ant, 1 bee``."""
    first = [f"{number} {shown(name)}" for number, name in enumerate(names[:_NAMED])]
    return ", ".join([*first, "..."] if len(names) > _NAMED else first)


def _named(number: int, names: Sequence[str] | None) -> str:
    return str(number) if names is None or number >= len(names) else f"{number} {shown(names[number])}"


def _way(order: Mapping[int, int], classes: int, labelled: Sequence[str] | None) -> str:
    """Return the option that puts classes into the order found; nothing where labels are numbers."""
    if labelled is None or any("," in name for name in labelled):
        return ""
    placed = {each: labelled[label] for label, each in order.items() if label < len(labelled)}
    left = [name for name in labelled if name not in placed.values()]
    free = [number for number in range(classes) if number not in placed]
    if len(left) == len(free) == 1:
        placed[free[0]] = left[0]
    listed_all = ",".join(placed.get(number, "") for number in range(classes))
    if len(placed) < classes or len(listed_all) > LONGEST_NAME:
        return " --classes A,B,... names the classes of the data in the order of the model's outputs."
    return f" Try --classes {shlex.quote(shown(listed_all))}"


def _shifted(decided: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[int, int]:
    scored = decided >= 0
    return int((scored & (decided == y - 1)).sum()), int((scored & (decided == y + 1)).sum())


def _order(decided: NDArray[np.int64], y: NDArray[np.int64]) -> dict[int, int]:
    """Return the class that stands for each label that has some samples: the pairs with the largest counts first."""
    pairs, counts = np.unique(np.stack([y, decided])[:, decided >= 0], axis=1, return_counts=True)
    labels, sizes = np.unique(y, return_counts=True)
    left, free = set(labels[sizes >= _EACH].tolist()), set(pairs[1].tolist())
    found: dict[int, int] = {}
    for label, each in pairs[:, np.argsort(-counts, kind="stable")].T.tolist():
        if label in left and each in free:
            found[label] = each
            left.remove(label)
            free.remove(each)
    return dict(sorted(found.items()))
