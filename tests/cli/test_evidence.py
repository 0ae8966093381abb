"""evidence: in-toto statements and CycloneDX BOMs, checked with the libraries of those who publish the formats."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from .conftest import Run
from .test_bad_input import assert_refused
from .test_gate import EVALUATE, masked  # noqa: F401


@pytest.fixture
def evaluated(run: Run, masked: Path) -> Path:  # noqa: F811
    attack = tuple("pgd" if each == "fgsm" else each for each in EVALUATE)
    assert run(*attack, "-o", "e.json").code == 0
    return masked


GATES = {
    "PASSED": ("clean-drop<=3%",),
    "WARNED": ("clean-drop<=3%", "clean>=99.9%"),
    "FAILED": ("clean-drop<=3%", "clean>=99.9%", "robust-gain>=20%@0.1"),
}


@pytest.mark.parametrize("result", GATES)
def test_a_statement_of_each_verdict(run: Run, evaluated: Path, result: str) -> None:
    gates = [word for gate in GATES[result] for word in ("--require", gate)]
    code, out, err = run("evidence", "e.json", *gates, "-o", "x.json")
    assert (code, out, err) == (0, "", "wrote x.json\n")
    text = (evaluated / "x.json").read_text()
    # Unknown fields would be errors.
    Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
    content = json.loads(text)
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    predicate = json_format.ParseDict(content["predicate"], test_result_pb2.TestResult())
    assert predicate.result == result
    assert [*predicate.passed_tests, *predicate.warned_tests, *predicate.failed_tests] == list(GATES[result])
    model = hashlib.sha256((evaluated / "m.hardened.onnx").read_bytes()).hexdigest()
    assert content["subject"] == [{"name": "m.hardened.onnx", "digest": {"sha256": model}}]
    by_name = {each.name: each for each in predicate.configuration}
    assert by_name["e.json"].digest["sha256"] == hashlib.sha256((evaluated / "e.json").read_bytes()).hexdigest()
    for name in ("settings", "gates", "coverage"):
        assert hashlib.sha256(by_name[name].content).hexdigest() == by_name[name].digest["sha256"]
    assert json.loads(by_name["settings"].content)["eps"] == [0.05, 0.1]


def covered(text: str) -> dict[str, bool]:
    (found,) = (e for e in json.loads(text)["predicate"]["configuration"] if e["name"] == "coverage")
    return {each["id"]: each["tried"] for each in json.loads(base64.b64decode(found["content"]))}


def test_what_was_and_was_not_tried(run: Run, evaluated: Path) -> None:
    gate = ("--require", "clean>=1%")
    run("evidence", "e.json", *gate)
    found = covered((evaluated / "evidence.intoto.json").read_text())
    assert found == {
        "AML.T0043.000": True, "AML.T0043.001": False, "AML.T0043.002": True, "AML.T0043.003": False,
        "AML.T0043.004": False, "NISTAML.022": True, "NISTAML.025": False, "11.1.3": True, "11.1.4": False,
    }  # fmt: skip
    square = ("evaluate", "m.onnx", "--data", "many.npz", "--eps", "0.1", "--attack", "square", "--no-sanity")
    assert run(*square, "-o", "square.json", "--limit", "20").code == 0
    assert run("evidence", "square.json", *gate, "-o", "square.intoto.json").code == 0
    found = covered((evaluated / "square.intoto.json").read_text())
    assert [each for each, tried in found.items() if tried] == ["AML.T0043.001", "NISTAML.022", "NISTAML.025", "11.1.3"]
    run("report", "e.json", "-o", "page.html")
    page = (evaluated / "page.html").read_text()
    assert "MITRE ATLAS AML.T0043.001" in page and "not tried, no attack by scores alone ran" in page


def test_a_bom(run: Run, evaluated: Path) -> None:
    code, _, err = run("evidence", "e.json", "--format", "cyclonedx")
    assert (code, err) == (0, "wrote evidence.cdx.json\n")
    text = (evaluated / "evidence.cdx.json").read_text()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem
    model, baseline = json.loads(text)["components"]
    stored = json.loads((evaluated / "e.json").read_text())
    metrics: list[dict[str, Any]] = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    robust = [each for each in metrics if each["type"] == "robust accuracy" and each["slice"].startswith("under")]
    for metric, at in zip(robust, stored["results"], strict=True):
        wanted = at["hardened"]["robust"]
        bounds = [float(metric["confidenceInterval"][each]) for each in ("lowerBound", "upperBound")]
        assert float(metric["value"]) == pytest.approx(wanted["share"], abs=1e-6)
        assert bounds == pytest.approx(wanted["interval"], abs=1e-6)
    assert {each["slice"] for each in robust} == {"under pgd, linf eps 0.05", "under pgd, linf eps 0.1"}
    assert len([each for each in metrics if each.get("slice") == "class 0"]) == 1
    assert (model["name"], baseline["hashes"][0]["content"]) == ("m.hardened.onnx", stored["baseline"]["sha256"])
    run("evidence", "e.json", "--format", "cyclonedx", "-o", "again.json")
    assert (evaluated / "again.json").read_text() == text


def test_a_bom_of_one_model(run: Run, evaluated: Path) -> None:
    alone = ("evaluate", "m.onnx", "--data", "many.npz", "--eps", "0.1", "--attack", "fgsm", "--no-sanity")
    assert run(*alone, "-o", "one.json").code == 0
    assert run("evidence", "one.json", "--format", "cyclonedx", "-o", "one.cdx.json").code == 0
    text = (evaluated / "one.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert [each["name"] for each in json.loads(text)["components"]] == ["m.onnx"]


def test_what_is_wrong(run: Run, evaluated: Path) -> None:
    assert_refused(run, evaluated, ("evidence", "e.json"), "an in-toto test result needs gates")
    bom = ("evidence", "e.json", "--format", "cyclonedx")
    assert_refused(run, evaluated, (*bom, "--require", "clean>=1%"), "leave --require out")
    assert_refused(run, evaluated, (*bom, "-o", "e.json"), "the output e.json is the input")
    assert_refused(run, evaluated, (*bom, "-o", "no/e.json"), "there is no folder")
    assert_refused(run, evaluated, ("evidence", "many.npz", "--format", "cyclonedx"), "many.npz")
    assert_refused(run, evaluated, ("evidence", "e.json", "--require", "latency-ratio<=1.1"), "wasn't measured")
