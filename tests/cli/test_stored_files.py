"""Files that version 0.1.0 wrote are read, shown and judged as it did; the schemas in docs/ are made of the types.

tests/fixtures/stored has one file of each kind, made once by 0.1.0 from samples/digits_cnn.onnx, its schemas, and what
its gate, report and verify said of these files.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import cloakonnx as ck

from .conftest import Run

ROOT = Path(__file__).parents[2]
STORED = ROOT / "tests" / "fixtures" / "stored"
KINDS = {
    "scores": ("analysis", ck.Analysis),
    "learned": ("analysis", ck.Analysis),
    "evaluation": ("evaluation", ck.Evaluation),
    "sweep": ("sweep", ck.Sweep),
    "attestation": ("attestation", ck.Attestation),
    "attestation_folded": ("attestation", ck.Attestation),
}


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    shutil.copy(ROOT / "samples" / "digits_cnn.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(name: str) -> Any:
    return json.loads((STORED / f"said_{name}.json").read_text())


@pytest.mark.parametrize("name", KINDS)
def test_read_and_written_back_they_are_the_same(name: str, tmp_path: Path) -> None:
    kind, made = KINDS[name]
    read = ck.read(STORED / f"{name}.json")
    assert isinstance(read, made)
    assert read.to_json().encode() == (STORED / f"{name}.json").read_bytes()
    read.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (STORED / f"{name}.json").read_bytes()
    assert made is ck.Attestation or json.loads(read.to_json())["format"] == f"cloakonnx.{kind}"


@pytest.mark.parametrize("name", KINDS)
def test_they_follow_the_schema_of_then_and_that_of_now(name: str) -> None:
    kind, _ = KINDS[name]
    content = json.loads((STORED / f"{name}.json").read_text())
    for folder in (STORED, ROOT / "docs"):
        schema = json.loads((folder / f"{kind}.schema.json").read_text())
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema)
        validator.validate(content)
        assert not validator.is_valid(content | {"more": 1})
        for key in content:
            assert not validator.is_valid({k: v for k, v in content.items() if k != key})


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in KINDS.values()}))
def test_schemas_are_made_of_the_types(kind: str) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["schema"](kind)
    assert (ROOT / "docs" / f"{kind}.schema.json").read_text() == made, "run: python docs/generate.py"
    then, now = json.loads((STORED / f"{kind}.schema.json").read_text()), json.loads(made)
    assert {key: now[key] for key in ("$schema", "$id", "title")} == {
        key: then[key] for key in ("$schema", "$id", "title")
    }


def test_gate_decides_as_then(run: Run, stored: Path) -> None:
    gates = ["clean>=80%", "clean-drop<=10%", "robust>=60%@1/16", "robust-gain>=1%@2/16", "flags==0"]
    found = run("gate", "evaluation.json", *(word for gate in gates for word in ("--require", gate)), "--json")
    assert found.code == 1
    keys = ("gate", "verdict", "detail")
    assert [[each[key] for key in keys] for each in json.loads(found.out)] == [
        [each[key] for key in keys] for each in said("gate")
    ]


def test_report_shows_as_then(run: Run, stored: Path) -> None:
    files = ("--analysis", "scores.json", "--sweep", "sweep.json", "-o", "report.html")
    found = run("report", "evaluation.json", *files, "--json")
    assert found.code == 0
    assert json.loads(found.out) == said("report")
    page = (stored / "report.html").read_text(encoding="utf-8")
    evaluation, sweep, learned = (ck.read(f"{name}.json") for name in ("evaluation", "sweep", "learned"))
    for each in evaluation.results:
        assert f"{each.hardened.robust.value:.1%}" in page
    assert sweep.points[1].remove == "2"
    assert learned.learning is not None and len(learned.masks) == 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("verify", ("--source", "digits_cnn.onnx", "--analysis", "scores.json")),
        ("attested", ("--attestation", "attestation.json")),
    ],
)
def test_verify_passes_as_then(run: Run, stored: Path, name: str, options: tuple[str, ...]) -> None:
    found = run("verify", "hardened.onnx", *options, "--json")
    assert found.code == 0
    listed, then = json.loads(found.out), said(name)
    assert listed["passed"] is then["passed"] is True
    checks = {each["name"]: each["status"] for each in listed["checks"]}
    assert {each["name"]: each["status"] for each in then["checks"]}.items() <= checks.items()


def test_apply_makes_the_same_masks_of_a_stored_analysis(run: Run, stored: Path) -> None:
    assert run("apply", "digits_cnn.onnx", "--analysis", "scores.json", "--remove", "3", "-o", "again.onnx").code == 0
    (again,), (then,) = (ck.masks(ck.load(name)) for name in ("again.onnx", "hardened.onnx"))
    assert (again.tap, again.removed) == (then.tap, then.removed)
    assert run("strip", "hardened.onnx", "-o", "stripped.onnx").code == 0
    assert (stored / "stripped.onnx").read_bytes() == (stored / "digits_cnn.onnx").read_bytes()
