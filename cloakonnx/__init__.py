"""Harden exported ONNX classifiers against adversarial inputs with constant masks: no retraining, no framework.

The public API, by name. Importing this package is cheap: onnx and ONNX Runtime load with the first name that needs one.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # this is loaded before the command line heeds signals
    from typing import Any

_HOMES = {
    "attacks.attack": "attack",
    "classifier.classifier": "Classifier",
    "classifier.gradients": "differentiate",
    "classifier.inspect": "diff masks taps",
    "data.given": "Pairs Samples",
    "errors": "CheckError CloakError",
    "evaluation.accuracy": "accuracy",
    "evaluation.evaluate": "evaluate",
    "evaluation.evaluation": "Evaluation",
    "evaluation.gates": "check_gates",
    "evaluation.sweeps.record": "Sweep",
    "evaluation.sweeps.sweep": "sweep",
    "evaluation.verification.attestation": "Attestation attest",
    "evaluation.verification.verify": "Verification verify",
    "graph.masks.notebook": "Model load",
    "graph.masks.mask": "Mask",
    "graph.masks.taps": "Tap",
    "pipeline.apply": "apply strip",
    "pipeline.harden": "harden",
    "pipeline.read": "read",
    "preprocessing": "Preprocessing",
    "reporting.page": "report",
    "runtime.provider": "Provider choose_provider",
    "scoring.analysis": "Analysis",
    "scoring.analyze": "analyze",
    "selection.greedy.select": "select_greedy",
    "selection.learn.learn": "learn",
    "selection.learn.recipe": "Recipe",
    "selection.topk": "Count Share Threshold select",
}
"""Module to the public names that it holds; __init__.pyi lists the same for type checkers."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

_FOLDERS = ("attacks", "engines", "keys", "records")
"""Modules with public names of their own: ck.attacks.PGD."""

__all__ = sorted((*_HOME_OF, *_FOLDERS))  # noqa: PLE0605 - __init__.pyi has the names


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    if name in _FOLDERS:
        return importlib.import_module(f"cloakonnx.{name}")
    if name not in _HOME_OF:
        raise AttributeError(_missing(name))
    value = getattr(importlib.import_module(f"cloakonnx.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def _missing(name: str) -> str:
    """Return what to do without a name that is not there: some have been there before."""
    former = importlib.import_module("cloakonnx._former").FORMER
    if name in former:
        return f"cloakonnx.{name} is gone, use: {former[name]} (docs/migration.md)"
    return f"module 'cloakonnx' has no attribute {name!r}"


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
