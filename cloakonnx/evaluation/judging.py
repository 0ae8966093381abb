"""Judges an evaluation whose models are at hand: a gate on latency is measured when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.latency import latency_ratios
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import Decision, Gate, check_gates
from cloakonnx.graph.masks.strip import stripped


def judge(
    evaluation: Evaluation,
    gates: Sequence[Gate],
    classifier: Classifier,
    *,
    baseline: Classifier | None = None,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> tuple[Decision, ...]:
    """Judge an evaluation by gates; measure latency if one of them asks for it.

    Args:
        evaluation: The evaluation.
        gates: The gates.
        classifier: The model that was evaluated.
        baseline: What it was compared with; the model without its masks where None.
        on_progress: Called with the number of pairs of sessions that are timed.

    Raises:
        OptionError: a gate asks for a number that was not measured.
        InferenceError: ONNX Runtime fails.
    """
    latency = None
    if asks_for_latency(gates):
        other = baseline or classifier.beside(stripped(classifier.model))
        latency = latency_ratios(classifier, other, on_progress=on_progress)
    return check_gates(evaluation, gates, latency=latency)


def asks_for_latency(gates: Sequence[Gate]) -> bool:
    """Return whether a gate is about latency."""
    return any(gate.name == "latency-ratio" for gate in gates)
