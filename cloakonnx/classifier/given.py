"""A model as a user has it: the path of a file, a loaded model, or a classifier; one rule for every verb."""

from __future__ import annotations

from os import PathLike
from typing import TypeAlias

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.errors import ModelError
from cloakonnx.graph.file.model import Model, load

ModelLike: TypeAlias = Classifier | Model | str | PathLike[str]
"""What every function takes as a model; a path or a Model stands for a classifier that takes pixels."""


def classifier_of(given: ModelLike) -> Classifier:
    """Return the classifier; of a path or a model one that takes pixels, on the best provider.

    Raises:
        ModelError: not a path, a model or a classifier, or the file can't be read.
    """
    return given if isinstance(given, Classifier) else Classifier(_model(given))


def model_of(given: ModelLike) -> Model:
    """Return the model; of a classifier with masks the one that carries them.

    Raises:
        ModelError: not a path, a model or a classifier, or the file can't be read.
    """
    return given.shipped().model if isinstance(given, Classifier) else _model(given)


def beside(classifier: Classifier, given: ModelLike) -> Classifier:
    """Return another classifier; of a path or a model one that is fed and run as the first.

    Raises:
        ModelError: not a path, a model or a classifier, or one without such an input or output.
    """
    return given if isinstance(given, Classifier) else classifier.beside(_model(given))


def _model(given: Model | str | PathLike[str]) -> Model:
    if isinstance(given, Model):
        return given
    if isinstance(given, (str, PathLike)):
        return load(given)
    raise ModelError(
        f"a model is the path of an .onnx file, a Model or a Classifier, not {type(given).__name__}: "
        "save it with onnx.save and give the path"
    )
