"""Which of the usual preprocessings would make far more samples right than the one that was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset
from cloakonnx.errors import CloakError
from cloakonnx.preprocessing import NORMALISATIONS, Preprocessing

_LOOKED_AT, _FEWEST = 64, 20
"""Samples that are tried at most, and at least."""

_POOR = 0.75
"""Accuracy below which other preprocessings are tried."""

_MORE, _SHARE = 5, 0.15
"""Samples, and share of them, that another one must make right beyond those that are right."""

_MNIST = (784,)
"""Shape of a flat sample whose values are a picture of one channel."""

_NEAR = 3
"""Samples by which another one may be behind the best to be named beside it."""


def preprocessing_doubt(classifier: Classifier, dataset: Dataset, *, correct: int, count: int) -> str | None:
    """Say which options would make far more of the first samples right, where accuracy is poor.

    Nothing is tried on samples that only a function gives, which may have no second pass, or outside [0, 1].

    Args:
        classifier: The classifier.
        dataset: Its samples, with labels.
        correct: How many of them it has right.
        count: How many there are.
    """
    given = classifier.preprocessing
    if count < _FEWEST or correct > _POOR * count or given.bounds != (0.0, 1.0) or dataset.source.count() is None:
        return None
    most = _LOOKED_AT if dataset.limit is None else min(_LOOKED_AT, dataset.limit)
    batch = next(replace(dataset, limit=most).batches(most), None)
    if batch is None or batch.y is None or len(batch.x) < _FEWEST:
        return None
    bare = classifier.changed(preprocessing=Preprocessing(layout=given.layout))
    axis = dataset.arrangement.channel_axis

    def right(how: Preprocessing) -> int:
        x = np.ascontiguousarray(how.apply(np.asarray(batch.x, np.float32), axis))
        return int(bare.right(x, batch.y).sum()) if batch.y is not None else 0

    try:
        now = right(given)
        found = [(right(how), said) for how, said in _others(given, batch.x.shape, axis)]
    except CloakError:  # these samples go in another way
        return None
    best, said = max(found, key=lambda each: each[0])
    if best < now + max(_MORE, _SHARE * len(batch.x)):
        return None
    near = "".join(f" ({other} {each})" for each, other in found if other != said and each >= best - _NEAR)
    return f"{said} {best} of the first {len(batch.x)} samples would be right{near}, and {now} are as it is: try that"


def _others(given: Preprocessing, shape: Sequence[int], axis: int) -> Iterator[tuple[Preprocessing, str]]:
    """Yield usual preprocessings other than the given one, and the options that ask for them."""
    plain = replace(given, scale=1.0, mean=(), std=())
    channels = shape[axis] if len(shape) == 4 else 1 if shape[1:] == _MNIST else 0
    tried = [(plain, "without --scale, --mean and --std")]
    for word, each in NORMALISATIONS.items():
        if len(each.mean) == channels:
            how = replace(plain, mean=each.mean, std=each.std)
            tried.append((how, f"with --mean {word} --std {word}"))
    tried.append((replace(plain, mean=(0.5,), std=(0.5,)), "with --mean 0.5 --std 0.5"))
    tried.append((replace(plain, scale=255.0), "with --scale 255"))
    return ((how, said) for how, said in tried if how != given)
