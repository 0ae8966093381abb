"""Accuracies, and the proof that a hardened model is its source and the masks.

What the other packages may use is named here.
"""

from cloakonnx.evaluation.accuracy import Accuracy, accuracy
from cloakonnx.evaluation.verify import Check, Verification, verify

__all__ = ["Accuracy", "Check", "Verification", "accuracy", "verify"]
