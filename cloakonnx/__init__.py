"""Harden exported ONNX classifiers against adversarial inputs with constant masks: no retraining, no framework.

The public API, by name. Importing this package is cheap: onnx and ONNX Runtime load with the first name that needs one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloakonnx.attacks import Attacked, attack
    from cloakonnx.data import Dataset, Pairs, Preprocessing, open_script, open_source
    from cloakonnx.errors import CheckError, CloakError
    from cloakonnx.evaluation import (
        Accuracy,
        Attestation,
        Decision,
        Estimate,
        Evaluation,
        Gate,
        Sweep,
        Verification,
        accuracy,
        attest,
        check_gates,
        evaluate,
        load_attestation,
        load_evaluation,
        load_samples,
        load_sweep,
        parse_gate,
        sweep,
        verify,
    )
    from cloakonnx.graph import (
        Difference,
        Mask,
        MaskFate,
        Model,
        Tap,
        diff,
        find_tap,
        fold_file,
        folded,
        harden_file,
        hardened,
        list_taps,
        load,
        read_masks,
        strip_file,
        stripped,
    )
    from cloakonnx.pipeline import Hardened, harden
    from cloakonnx.report import report_html
    from cloakonnx.runtime import Classifier, Provider, choose_provider, input_shape
    from cloakonnx.scoring import Analysis, analyze, load_analysis
    from cloakonnx.selection import Count, Recipe, Share, Threshold, learn, select, select_greedy

_HOMES = {
    "attacks": ("Attacked", "attack"),
    "data": ("Dataset", "Pairs", "Preprocessing", "open_script", "open_source"),
    "errors": ("CheckError", "CloakError"),
    "evaluation": (
        "Accuracy", "Attestation", "Decision", "Estimate", "Evaluation", "Gate", "Sweep", "Verification", "accuracy",
        "attest", "check_gates", "evaluate", "load_attestation", "load_evaluation", "load_samples", "load_sweep",
        "parse_gate", "sweep", "verify",
    ),
    "graph": (
        "Difference", "Mask", "MaskFate", "Model", "Tap", "diff", "find_tap", "fold_file", "folded", "harden_file",
        "hardened", "list_taps", "load", "read_masks", "strip_file", "stripped",
    ),
    "pipeline": ("Hardened", "harden"),
    "report": ("report_html",),
    "runtime": ("Classifier", "Provider", "choose_provider", "input_shape"),
    "scoring": ("Analysis", "analyze", "load_analysis"),
    "selection": ("Count", "Recipe", "Share", "Threshold", "learn", "select", "select_greedy"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Accuracy",
    "Analysis",
    "Attacked",
    "Attestation",
    "CheckError",
    "Classifier",
    "CloakError",
    "Count",
    "Dataset",
    "Decision",
    "Difference",
    "Estimate",
    "Evaluation",
    "Gate",
    "Hardened",
    "Mask",
    "MaskFate",
    "Model",
    "Pairs",
    "Preprocessing",
    "Provider",
    "Recipe",
    "Share",
    "Sweep",
    "Tap",
    "Threshold",
    "Verification",
    "accuracy",
    "analyze",
    "attack",
    "attest",
    "check_gates",
    "choose_provider",
    "diff",
    "evaluate",
    "find_tap",
    "fold_file",
    "folded",
    "harden",
    "harden_file",
    "hardened",
    "input_shape",
    "learn",
    "list_taps",
    "load",
    "load_analysis",
    "load_attestation",
    "load_evaluation",
    "load_samples",
    "load_sweep",
    "open_script",
    "open_source",
    "parse_gate",
    "read_masks",
    "report_html",
    "select",
    "select_greedy",
    "strip_file",
    "stripped",
    "sweep",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its package when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cloakonnx' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cloakonnx.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
