"""Warnings before long work, of models whose figures are worth less than they look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloakonnx.cli.options import warn
from cloakonnx.errors import CloakError

if TYPE_CHECKING:
    from cloakonnx.classifier.classifier import Classifier
    from cloakonnx.data.samples import Dataset

_LOOKED_AT = 64


def warn_of_randomness(classifier: Classifier) -> None:
    """Warn where the scores differ from run to run."""
    from cloakonnx.classifier.doubts import of_randomness
    from cloakonnx.graph.index.randomness import random_ops

    for said in of_randomness(random_ops(classifier.model.proto, classifier.output_name)):
        warn(said)


def warn_of_doubts(classifier: Classifier, dataset: Dataset) -> None:
    """Warn where the scores differ from run to run, or have ties among the first samples.

    Verbs that score all samples before an attack count ties themselves.
    """
    from cloakonnx.classifier.doubts import of_ties

    warn_of_randomness(classifier)
    dataset.fitted_to(classifier)
    x = dataset.first(_LOOKED_AT)
    try:
        tied = int(classifier.task.tied(classifier.scores(x)).sum())
    except CloakError:  # the work itself says what is wrong, or takes the samples alone
        return
    for said in of_ties(tied):
        warn(f"of the first {len(x)} samples {said}")
