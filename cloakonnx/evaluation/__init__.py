"""Accuracies, how far they can be trusted, and the proof that a hardened model is its source and the masks.

What the other packages may use is named here.
"""

from cloakonnx.evaluation.accuracies import Accuracy, accuracy
from cloakonnx.evaluation.adaptive import evaluate
from cloakonnx.evaluation.attestation import Attestation, attest, load_attestation
from cloakonnx.evaluation.cells import difference_cells, eps_text, share_cell
from cloakonnx.evaluation.checks import Check
from cloakonnx.evaluation.duration import evaluation_seconds
from cloakonnx.evaluation.estimate import Estimate, spoken
from cloakonnx.evaluation.flags import MEANINGS, Flag, Sanity
from cloakonnx.evaluation.gates import Decision, Gate, check_gates, check_measured, parse_gate
from cloakonnx.evaluation.intervals import (
    CONFIDENCE,
    Interval,
    Paired,
    exact,
    mcnemar_exact,
    median_interval,
    newcombe_paired,
    wilson,
)
from cloakonnx.evaluation.plan import PRESETS, plan
from cloakonnx.evaluation.result import STATEMENT, AtEps, Evaluation, RandomMask, Robustness, Stage, load_evaluation
from cloakonnx.evaluation.sweep_result import Adaptive, Attacks, OfMask, Point, Sweep, load_sweep
from cloakonnx.evaluation.sweeping import sweep
from cloakonnx.evaluation.turned import Turned, TurnedSamples, load_samples
from cloakonnx.evaluation.verdict import Verdict, verdict
from cloakonnx.evaluation.verification import Verification, verify

__all__ = [
    "CONFIDENCE",
    "MEANINGS",
    "PRESETS",
    "STATEMENT",
    "Accuracy",
    "Adaptive",
    "AtEps",
    "Attacks",
    "Attestation",
    "Check",
    "Decision",
    "Estimate",
    "Evaluation",
    "Flag",
    "Gate",
    "Interval",
    "OfMask",
    "Paired",
    "Point",
    "RandomMask",
    "Robustness",
    "Sanity",
    "Stage",
    "Sweep",
    "Turned",
    "TurnedSamples",
    "Verdict",
    "Verification",
    "accuracy",
    "attest",
    "check_gates",
    "check_measured",
    "difference_cells",
    "eps_text",
    "evaluate",
    "evaluation_seconds",
    "exact",
    "load_attestation",
    "load_evaluation",
    "load_samples",
    "load_sweep",
    "mcnemar_exact",
    "median_interval",
    "newcombe_paired",
    "parse_gate",
    "plan",
    "share_cell",
    "spoken",
    "sweep",
    "verdict",
    "verify",
    "wilson",
]
