"""Accuracies, how far they can be trusted, and the proof that a hardened model is its source and the masks.

What the other packages may use is named here.
"""

from cloakonnx.evaluation.accuracy import Accuracy, accuracy
from cloakonnx.evaluation.intervals import CONFIDENCE, Interval, Paired, mcnemar_exact, newcombe_paired, wilson
from cloakonnx.evaluation.verify import Check, Verification, verify

__all__ = [
    "CONFIDENCE",
    "Accuracy",
    "Check",
    "Interval",
    "Paired",
    "Verification",
    "accuracy",
    "mcnemar_exact",
    "newcombe_paired",
    "verify",
    "wilson",
]
