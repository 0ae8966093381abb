"""Runs graphs with ONNX Runtime: provider choice, sessions, batches, the classifier.

What the other packages may use is named here.
"""

from cloakonnx.runtime.classifier import Activations, Classifier, class_count, input_shape
from cloakonnx.runtime.decision import NO_CLASS, at_chance, predicted
from cloakonnx.runtime.latency import SESSIONS as LATENCY_SESSIONS
from cloakonnx.runtime.latency import latency_ratios
from cloakonnx.runtime.provider import Provider, choose_provider, installation_warning
from cloakonnx.runtime.session import Chunk, Session, Value, filled_up, to_numpy
from cloakonnx.runtime.split import Decided, SplitClassifier

__all__ = [
    "LATENCY_SESSIONS",
    "NO_CLASS",
    "Activations",
    "Chunk",
    "Classifier",
    "Decided",
    "Provider",
    "Session",
    "SplitClassifier",
    "Value",
    "at_chance",
    "choose_provider",
    "class_count",
    "filled_up",
    "input_shape",
    "installation_warning",
    "latency_ratios",
    "predicted",
    "to_numpy",
]
