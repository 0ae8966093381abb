"""Runs graphs with ONNX Runtime: provider choice, sessions, batches, the classifier.

What the other packages may use is named here.
"""

from cloakonnx.runtime.classifier import Activations, Classifier, class_count, input_shape
from cloakonnx.runtime.provider import Provider, choose_provider, installation_warning
from cloakonnx.runtime.session import Chunk, Session, Value, to_numpy
from cloakonnx.runtime.split import Decided, SplitClassifier

__all__ = [
    "Activations",
    "Chunk",
    "Classifier",
    "Decided",
    "Provider",
    "Session",
    "SplitClassifier",
    "Value",
    "choose_provider",
    "class_count",
    "input_shape",
    "installation_warning",
    "to_numpy",
]
