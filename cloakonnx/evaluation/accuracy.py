"""Accuracy of one model on labelled samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.given import ModelLike, classifier_of
from cloakonnx.classifier.reading import reading
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.samples import Dataset, SamplesLike
from cloakonnx.engine.batches import Engine, Tell, map_batches
from cloakonnx.engine.choice import default_engine
from cloakonnx.statistics import Accuracy


def accuracy(
    model: ModelLike,
    samples: SamplesLike,
    *,
    batch_size: int = 64,
    engine: Engine | None = None,
    on_progress: Callable[[float], None] = lambda samples: None,
) -> Accuracy:
    """Count the samples whose predicted class is their label.

    On adversarial inputs that were made on another model this is static accuracy: it says nothing of robustness.

    Args:
        model: The classifier, or a model or path that stands for one.
        samples: Labelled samples (:class:`cloakonnx.Samples`).
        batch_size: Samples per batch.
        engine: Where batches are handled; :func:`~cloakonnx.engine.choice.default_engine` chooses where None.
        on_progress: Called with the number of samples after every batch.

    Raises:
        DataError: the samples have no labels.
        InferenceError: ONNX Runtime fails.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.accuracy("samples/digits_cnn.onnx", ck.Samples("samples/digits_test_fgsm.npz", limit=100)).count
        100
    """
    classifier = classifier_of(model)
    dataset = Dataset.of(samples, classifier)
    engine = engine or default_engine(classifier.provider, dataset, batch_size)
    classifier, _ = reading(classifier.with_threads(engine.threads), dataset)
    missing = f"{dataset.source.name} has no labels; accuracy needs them"
    batches = (batch.labelled(missing) for batch in dataset.batches(batch_size))
    with map_batches(RightWork(classifier), batches, engine=engine, on_progress=on_progress) as handled:
        right = [found.right for _, found in handled]
    return Accuracy(sum(int(each.sum()) for each in right), sum(map(len, right)))


@dataclass(frozen=True, eq=False)
class Right:
    """Which samples of a batch are classified as labelled, (N,)."""

    right: NDArray[np.bool_]


@dataclass(frozen=True)
class RightWork:
    """Which samples a classifier gets right, as its user runs it."""

    classifier: Classifier

    @property
    def result(self) -> type[Right]:
        """The type of a batch's result."""
        return Right

    @property
    def record(self) -> dict[str, Any]:
        """Everything that results depend on beside the samples."""
        return {"model": self.classifier.model.sha256, **self.classifier.record}

    def start(self, worker: int = 0) -> Callable[[LabelledBatch, Tell], Right]:
        """Return what classifies a batch."""
        classifier = self.classifier.for_worker(worker)
        return lambda batch, tell: Right(classifier.right(batch.x, batch.y))
