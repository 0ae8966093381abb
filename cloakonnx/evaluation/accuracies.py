"""Plain accuracy of a classifier on labelled samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cloakonnx.data import Dataset
from cloakonnx.errors import DataError
from cloakonnx.evaluation.intervals import Interval, wilson
from cloakonnx.runtime import Classifier


@dataclass(frozen=True)
class Accuracy:
    """How many of how many samples are classified correctly."""

    correct: int
    count: int

    @property
    def value(self) -> float:
        """The share of correct ones."""
        return self.correct / self.count

    @property
    def interval(self) -> Interval:
        """Wilson's 95% interval of the share."""
        return wilson(self.correct, self.count)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, the share and its interval, for files."""
        return {**asdict(self), "share": self.value, "interval": [self.interval.low, self.interval.high]}

    def __str__(self) -> str:
        """Return the share and the counts behind it."""
        return f"{self.value:.2%} ({self.correct} of {self.count})"


def accuracy(
    classifier: Classifier,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> Accuracy:
    """Count the samples whose predicted class is their label.

    On adversarial inputs that were made on another model this is static accuracy: it says nothing of robustness.

    Raises:
        DataError: the samples have no labels.
        InferenceError: ONNX Runtime fails.
    """
    correct = count = 0
    for batch in dataset.batches(batch_size):
        if batch.y is None:
            raise DataError(f"{dataset.source.name} has no labels; accuracy needs them")
        correct += int((classifier.predict(batch.x) == batch.y).sum())
        count += len(batch.x)
        on_progress(count)
    return Accuracy(correct, count)
