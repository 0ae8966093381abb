"""Gates of an evaluation as an in-toto statement of a test result.

Predicate: https://in-toto.io/attestation/test-result/v0.1 (spec/predicates/test-result.md of in-toto/attestation). A
statement is not signed by itself: sign it with DSSE (cosign, in-toto, sigstore), as any other statement.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from cloakonnx.evaluation.coverage import coverage
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import Decision
from cloakonnx.evaluation.verification.attestation import STATEMENT_TYPE
from cloakonnx.json_files import json_text

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
_RESULTS = {"pass": "PASSED", "inconclusive": "WARNED", "fail": "FAILED"}


def test_result(
    found: Evaluation, decisions: Sequence[Decision], *, name: str = "evaluation.json", sha256: str | None = None
) -> str:
    """Return the text of a statement that says which gates a model passes.

    The result is FAILED where a gate fails, WARNED where one is inconclusive, and PASSED where all pass. Configuration
    is the evaluation's file, the samples, the baseline, and the settings, each with its sha256.

    Args:
        found: The evaluation.
        decisions: What became of the gates; at least one.
        name: Name of the evaluation's file.
        sha256: sha256 of that file; None for one that was just saved.

    Raises:
        ValueError: there is no decision.

    Example:
        >>> import json
        >>> import cloakonnx as ck
        >>> samples = {"model": "samples/digits_cnn.onnx", "samples": "samples/digits_test_fgsm.npz"}
        >>> found = ck.evaluate(**samples, eps=0.01, attack="fgsm", sanity=False)
        >>> json.loads(test_result(found, ck.check_gates(found, ["clean>=50%"])))["predicate"]["result"]
        'PASSED'
    """
    if not decisions:
        raise ValueError("a test result needs at least one gate")
    worst = max((each.verdict for each in decisions), key=list(_RESULTS).index)
    return json_text(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": found.model.name, "digest": {"sha256": found.model.sha256}}],
            "predicateType": TEST_RESULT,
            "predicate": {
                "result": _RESULTS[worst],
                "configuration": _configuration(found, decisions, name, sha256 or found.sha256),
                "passedTests": [each.gate for each in decisions if each.verdict == "pass"],
                "warnedTests": [each.gate for each in decisions if each.verdict == "inconclusive"],
                "failedTests": [each.gate for each in decisions if each.verdict == "fail"],
            },
        }
    )


test_result.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _configuration(found: Evaluation, decisions: Sequence[Decision], name: str, sha256: str) -> list[dict[str, Any]]:
    """Return what the test was made with, as resource descriptors."""
    pixels = "sha256 of the digests of all pixels (float32) and of all labels (int64), in order"
    files = [
        {"name": name, "digest": {"sha256": sha256}, "mediaType": "application/json"},
        {"name": found.data.name, "digest": {"sha256": found.data.sha256}, "annotations": {"digest": pixels}},
    ]
    if found.baseline is not None:
        files.append({"name": found.baseline.name, "digest": {"sha256": found.baseline.sha256}})
    covered = coverage(found)
    return [
        *files,
        _inline("settings", _settings(found), {}),
        _inline("gates", [each.as_dict() for each in decisions], {}),
        _inline(
            "coverage",
            [
                {"framework": each.framework, "id": each.id, "name": each.name, "tried": each.tried, "how": each.how}
                for each in covered
            ],
            {
                "tried": [f"{each.framework} {each.id}" for each in covered if each.tried],
                "notTried": [f"{each.framework} {each.id}" for each in covered if not each.tried],
            },
        ),
    ]


def _settings(found: Evaluation) -> dict[str, Any]:
    whole = found.as_dict()
    names = ("attack", "norm", "seed", "batch_size", "provider", "preprocessing", "versions")
    attacks = [[stage.settings for stage in at.hardened.stages if stage.settings] for at in found.results]
    return {**{each: whole[each] for each in names}, "eps": [at.eps for at in found.results], "attacks": attacks}


def _inline(name: str, content: Any, annotations: dict[str, Any]) -> dict[str, Any]:
    """Return the descriptor of a JSON text that it holds itself."""
    text = json_text(content).encode()
    made: dict[str, Any] = {
        "name": name,
        "digest": {"sha256": hashlib.sha256(text).hexdigest()},
        "content": base64.b64encode(text).decode(),
        "mediaType": "application/json",
    }
    return {**made, "annotations": annotations} if annotations else made
