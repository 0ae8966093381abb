"""What an evaluation tried and did not try, by the names and ids that reviewers know.

Ids are those of MITRE ATLAS (https://atlas.mitre.org, data of version 5.6.1), NIST AI 100-2 E2025 (section 2.2) and
OWASP AISVS 1.0 (chapter C11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.results import REPLAYED, Stage

ATLAS, NIST, AISVS = "MITRE ATLAS", "NIST AI 100-2 E2025", "OWASP AISVS 1.0"
_CONTROLS = {"noise"}
"""Attacks that optimise nothing."""


@dataclass(frozen=True)
class Covered:
    """A technique or a requirement, and what an evaluation has of it.

    Attributes:
        framework: Who names it.
        id: Its id there.
        name: Its name there.
        tried: Whether the evaluation tried it, or is evidence for it.
        how: By what, or why not.

    Example:
        >>> str(Covered(ATLAS, "AML.T0043.000", "White-Box Optimization", True, "pgd"))
        'MITRE ATLAS AML.T0043.000 White-Box Optimization: tried (pgd)'
    """

    framework: str
    id: str
    name: str
    tried: bool
    how: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.framework} {self.id} {self.name}: {'tried' if self.tried else 'not tried'} ({self.how})"


def coverage(found: Evaluation) -> tuple[Covered, ...]:
    """Return the attack techniques that an evaluation tried and did not try, and the requirements that it is for.

    A technique counts as tried where an attack of its kind ran on at least one sample.

    Example:
        >>> import cloakonnx as ck
        >>> samples = {"model": "samples/digits_cnn.onnx", "samples": "samples/digits_test_fgsm.npz"}
        >>> found = ck.evaluate(**samples, eps=0.01, attack="fgsm", sanity=False)
        >>> [each.id for each in coverage(found) if each.tried]
        ['AML.T0043.000', 'NISTAML.022', '11.1.3']
    """
    ran = [each for at in found.results for each in at.hardened.stages if each.settings is not None and each.queries]
    white = _names(each for each in ran if each.gradients)
    black = _names(each for each in ran if not each.gradients and each.name not in _CONTROLS)
    replayed = any(s.name == REPLAYED and s.attacked for at in found.results for s in at.hardened.stages)
    transfer = "inputs made on the baseline and replayed" if found.baseline is not None and replayed else ""
    evasion = ", ".join(filter(None, (white, black, transfer)))
    return (
        _technique(ATLAS, "AML.T0043.000", "White-Box Optimization", white, "no attack by gradients ran"),
        _technique(ATLAS, "AML.T0043.001", "Black-Box Optimization", black, "no attack by scores alone ran"),
        _technique(ATLAS, "AML.T0043.002", "Black-Box Transfer", transfer, "no inputs made on another model"),
        _technique(ATLAS, "AML.T0043.003", "Manual Modification", "", "cloakonnx has no such attack"),
        _technique(ATLAS, "AML.T0043.004", "Insert Backdoor Trigger", "", "cloakonnx has no such attack"),
        _technique(NIST, "NISTAML.022", "Evasion", evasion, "no attack ran"),
        _technique(NIST, "NISTAML.025", "Black-box Evasion", black, "no attack by scores alone ran"),
        _technique(AISVS, "11.1.3", "Evaluated against known adversarial attack techniques", evasion, "no attack ran"),
        _hardened(found),
    )


def _technique(framework: str, number: str, name: str, how: str, why_not: str) -> Covered:
    return Covered(framework, number, name, bool(how), how or why_not)


def _hardened(found: Evaluation) -> Covered:
    """Return what the evaluation says of hardening: evidence only where robust accuracy rose for certain."""
    name = "Hardened against adversarial inputs"
    if not found.masks:
        return Covered(AISVS, "11.1.4", name, False, "the model carries no masks of cloakonnx")
    gained = found.baseline_is_source and found.verdict.kind == "gain"
    how = "masks, with a gain of robust accuracy" if gained else "masks, without a certain gain of robust accuracy"
    return Covered(AISVS, "11.1.4", name, gained, how)


def _names(stages: Iterator[Stage]) -> str:
    return ", ".join(dict.fromkeys(each.name for each in stages))
