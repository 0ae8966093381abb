"""Harden exported ONNX classifiers against adversarial inputs with constant masks: no retraining, no framework.

The public API, by name. Importing this package is cheap: onnx and ONNX Runtime load with the first name that needs one.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # this is loaded before the command line heeds signals
    from typing import Any

_HOMES = {
    "attacks.attack": "Attacked attack",
    "classifier.classifier": "Classifier",
    "classifier.declared": "input_shape",
    "data.samples": "Dataset FittedPairs",
    "data.sources": "open_script open_source",
    "engine.batches": "Engine InProcess",
    "engine.threads": "Threads",
    "errors": "CheckError CloakError",
    "evaluation.accuracy": "accuracy",
    "evaluation.estimate": "Estimate",
    "evaluation.evaluate": "evaluate",
    "evaluation.evaluation": "Evaluation load_evaluation",
    "evaluation.gates": "Decision Gate check_gates parse_gate",
    "evaluation.samples": "load_samples",
    "evaluation.sweeps.record": "Sweep load_sweep",
    "evaluation.sweeps.sweep": "sweep",
    "evaluation.verification.attestation": "Attestation attest load_attestation",
    "evaluation.verification.certificates": "load_certificate",
    "evaluation.verification.signing": "SigningKey VerificationKey load_signing_key load_verification_key",
    "evaluation.verification.verify": "Verification verify",
    "graph.file.diff": "Difference diff",
    "graph.file.model": "Model load",
    "graph.fold.fold": "MaskFate fold_file folded",
    "graph.fold.recorded": "read_masks",
    "graph.masks.harden": "harden_file hardened strip_file",
    "graph.masks.mask": "Mask",
    "graph.masks.strip": "stripped",
    "graph.masks.taps": "Tap find_tap list_taps",
    "pipeline.harden": "Hardened harden",
    "preprocessing": "Preprocessing",
    "reporting.page": "report_html",
    "runtime.provider": "Provider choose_provider",
    "scoring.analysis": "Analysis load_analysis",
    "scoring.analyze": "analyze",
    "selection.greedy.select": "select_greedy",
    "selection.learn.learn": "learn",
    "selection.learn.recipe": "Recipe",
    "selection.topk": "Count Share Threshold select",
    "statistics": "Accuracy",
}
"""Module to the public names that it holds; __init__.pyi lists the same for type checkers."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - __init__.pyi has the names


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    if name == "attacks":  # the one folder with names of its own: ck.attacks.PGD
        return importlib.import_module("cloakonnx.attacks")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cloakonnx' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cloakonnx.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
