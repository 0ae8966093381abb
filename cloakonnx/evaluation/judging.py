"""Judges an evaluation whose models are at hand: a gate on latency is measured when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.latency import Latency, measured_latency
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import Decision, Gate, check_gates
from cloakonnx.graph.masks.strip import stripped


def judge(
    evaluation: Evaluation,
    gates: Sequence[Gate],
    classifier: Classifier,
    *,
    baseline: Classifier | None = None,
    latency: Latency | None = None,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> tuple[Decision, ...]:
    """Judge an evaluation by gates; measure latency if one of them asks for it.

    Args:
        evaluation: The evaluation.
        gates: The gates.
        classifier: The model that was evaluated.
        baseline: What it was compared with; the model without its masks where None.
        latency: Of both, where it was measured already.
        on_progress: Called with the number of pairs of sessions that are timed.

    Raises:
        OptionError: a gate asks for a number that was not measured.
        InferenceError: ONNX Runtime fails.
    """
    if latency is None and asks_for_latency(gates):
        latency = timed(classifier, baseline, on_progress=on_progress)
    return check_gates(evaluation, gates, latency=None if latency is None else latency.ratios)


def timed(
    classifier: Classifier,
    baseline: Classifier | None = None,
    *,
    most_seconds: float | None = None,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> Latency:
    """Measure the latency of a model and of what it is compared with: itself without its masks where that is None.

    Args:
        classifier: The model.
        baseline: What it is compared with.
        most_seconds: As :func:`~cloakonnx.classifier.latency.measured_latency` takes it.
        on_progress: Called with the number of pairs of sessions that are timed.

    Raises:
        InferenceError: ONNX Runtime fails.
    """
    other = baseline or classifier.beside(stripped(classifier.model))
    return measured_latency(classifier, other, most_seconds=most_seconds, on_progress=on_progress)


def asks_for_latency(gates: Sequence[Gate]) -> bool:
    """Return whether a gate is about latency."""
    return any(gate.name == "latency-ratio" for gate in gates)
