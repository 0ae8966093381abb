"""Attestations: what they hold, the way through a file, and what verify makes of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from onnx import ModelProto

from cloakonnx.errors import AttestationError
from cloakonnx.evaluation.verification.attestation import Attestation, attest, load_attestation
from cloakonnx.graph.file.model import load
from cloakonnx.graph.fold.fold import fold_file
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.scoring.analysis import TapScores
from tests.evaluation.helpers import MASK, analysis, checked, failures, flip, harden, statuses, weight, write
from tests.fixtures.models import FIXTURES, TAP, mlp, write_external

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "attestation.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source.onnx", mlp())


def attested(model: Path, source: Path) -> Attestation:
    return attest(load(model), load(source), settings={"verb": "apply", "fold": False})


def test_what_it_holds(source: Path) -> None:
    model = harden(source)
    text = attested(model, source).to_json()
    content = json.loads(text)
    Draft202012Validator(SCHEMA).validate(content)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["subject"] == [{"name": "hardened.onnx", "digest": {"sha256": digest}}]
    predicate = content["predicate"]
    assert predicate["source"]["digest"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert predicate["kind"] == "mul"
    (mask,) = predicate["masks"]
    assert mask == {
        "tap": TAP,
        "feature_axis": 1,
        "shape": [6],
        "removed": 2,
        "sha256": hashlib.sha256(MASK.astype("<f4").tobytes()).hexdigest(),
    }
    assert "cloakonnx" in predicate["versions"]
    assert text == attested(model, source).to_json()
    assert Attestation.from_json(text) == attested(model, source)


def test_of_external_data(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    content = json.loads(attested(harden(source), source).to_json())
    Draft202012Validator(SCHEMA).validate(content)
    assert {each["name"]: each["digest"]["sha256"] for each in content["subject"][1:]} == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("external.data", "weights/w2.bin")
    }


@pytest.mark.parametrize("fixture", [pytest.param(each, id=each.name) for each in FIXTURES if each.runs_in_ort][::4])
def test_honest_models_pass(fixture: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", fixture.model)
    model = harden(source, Mask(fixture.tap, np.resize(MASK, fixture.features)))
    path = tmp_path / "attestation.json"
    attested(model, source).save(path)
    found = checked(model, attestation=load_attestation(path))
    assert found.passed
    assert {"attested file", "attested masks", "attested data", "attested source"} <= {
        name for name, status in statuses(found).items() if status == "passed"
    }
    assert not any("no trusted reference" in check.detail for check in found.checks)
    moved = model.rename(tmp_path / "elsewhere.onnx")
    assert checked(moved, source, attestation=load_attestation(path)).passed


def test_folded(source: Path, tmp_path: Path) -> None:
    model = tmp_path / "folded.onnx"
    fold_file(load(source), [Mask(TAP, MASK)], model)
    attestation = attested(model, source)
    Draft202012Validator(SCHEMA).validate(json.loads(attestation.to_json()))
    assert attestation.kind == "folded"
    found = checked(model, attestation=attestation)
    assert found.passed and statuses(found)["numbers"] == "not checked"
    assert statuses(checked(model, source, attestation=attestation))["numbers"] == "passed"
    made = ModelProto.FromString(model.read_bytes())
    flip(weight(made, "w2"))
    found = checked(write(tmp_path / "tampered.onnx", made), attestation=attestation)
    assert failures(found) == {"attested file": "not the attested file: initializer 'w2' changed"}


def test_another_honest_model_is_not_the_attested_one(source: Path, tmp_path: Path) -> None:
    attestation = attested(harden(source), source)
    other = mlp()
    flip(weight(other, "w2"))
    other_source = write(tmp_path / "other.onnx", other)
    found = failures(checked(harden(other_source, output="h.onnx"), other_source, attestation=attestation))
    assert "initializer 'w2' changed" in found["attested file"]
    assert "attested source" in found
    mask = harden(source, Mask(TAP, MASK[::-1]), output="m.onnx")
    found = failures(checked(mask, source, attestation=attestation))
    assert set(found) == {"attested file", "attested masks"}
    both = harden(source, Mask(TAP, MASK), Mask("hidden", MASK), output="b.onnx")
    assert "the mask of 'hidden' is not attested" in failures(checked(both, attestation=attestation))["attested masks"]


def test_of_a_model_without_masks(source: Path) -> None:
    with pytest.raises(AttestationError, match="carries no cloakonnx masks"):
        attested(source, source)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(_type="x"), "its _type is not"),
        (lambda c: c.update(predicateType="x"), "its predicateType is not"),
        (lambda c: c.update(subject=[]), "names no subject"),
        (lambda c: c["subject"].append(c["subject"][0]), "one twice"),
        (lambda c: c["subject"][0].update(digest={"sha256": "0"}), "not 64 hex digits"),
        (lambda c: c["subject"][0].update(digest={"md5": "0"}), "digest.sha256 is missing"),
        (lambda c: c["predicate"].update(kind="x"), "predicate.kind is 'x'"),
        (lambda c: c["predicate"].pop("masks"), "predicate.masks is missing"),
        (lambda c: c["predicate"].update(parts={"a": 3}), "predicate.parts[...] is not a string"),
        (lambda c: c.pop("predicate"), "predicate is missing"),
    ],
)
def test_damaged(change: Any, said: str, source: Path) -> None:
    content = json.loads(attested(harden(source), source).to_json())
    change(content)
    with pytest.raises(AttestationError) as found:
        Attestation.from_json(json.dumps(content), name="a.json")
    assert said in str(found.value) and str(found.value).startswith("a.json is ")
    assert list(Draft202012Validator(SCHEMA).iter_errors(content)) or said == "one twice"


@pytest.mark.parametrize("text", ["", "[", "3", "[]", "null", "{}", "\x00"])
def test_no_attestation(text: str) -> None:
    with pytest.raises(AttestationError):
        Attestation.from_json(text)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AttestationError, match="cannot read the attestation"):
        load_attestation(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(AttestationError, match="is not text"):
        load_attestation(tmp_path / "a.json")


def test_recording_external_data_leaves_strip_exact(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    model, back = tmp_path / "hardened.onnx", tmp_path / "back.onnx"
    harden_file(load(source), [Mask(TAP, MASK)], model, hash_external=True)
    recorded = json.loads(next(p.value for p in load(model).proto.metadata_props if p.key.endswith("external_sha256")))
    data = (tmp_path / "external.data").read_bytes()
    assert recorded["external.data"] == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert checked(model, source).passed
    strip_file(load(model), back)
    assert back.read_bytes() == source.read_bytes()
    twice = tmp_path / "twice.onnx"
    harden_file(load(model), [Mask("hidden", MASK)], twice)
    assert checked(twice, source).passed
    strip_file(load(twice), back, force=True)
    assert back.read_bytes() == source.read_bytes()


def test_recording_external_data_of_a_folded_model(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    model = tmp_path / "folded.onnx"
    fold_file(load(source), [Mask(TAP, MASK)], model, hash_external=True)
    found = checked(model, source)
    assert found.passed, failures(found)
    assert load(model).external_files == ["external.data"], "w2 is in the model now"
    data = bytearray((tmp_path / "external.data").read_bytes())
    data[7] ^= 4
    (tmp_path / "external.data").write_bytes(data)
    assert "external data" in failures(checked(model, source))


def test_without_external_data_nothing_is_recorded(source: Path, tmp_path: Path) -> None:
    harden_file(load(source), [Mask(TAP, MASK)], tmp_path / "a.onnx", hash_external=True)
    harden_file(load(source), [Mask(TAP, MASK)], tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_scores_as_reference(source: Path) -> None:
    """How many features go the scores don't say, but which."""
    scores = np.array([9, 1, 8, 2, 7, 3], np.float64)
    known = analysis(source, scores=TapScores(TAP, 1, "float32", "deepcloak", scores, 6))
    for removed, passes in (([0], True), ([0, 2], True), ([0, 1], False), ([], False), ([2], False)):
        weights = np.ones(6, np.float32)
        weights[removed] = 0
        model = harden(source, Mask(TAP, weights), output=f"m{len(removed)}{passes}{removed[:1]}.onnx")
        assert ("analysis" not in failures(checked(model, source, analysis=known))) == passes
    weights = np.array([0, 1, 0.5, 1, 1, 1], np.float32)
    assert "analysis" in failures(checked(harden(source, Mask(TAP, weights)), source, analysis=known))


def test_analysis_of_another_model_or_tap(source: Path, tmp_path: Path) -> None:
    model = harden(source)
    other = mlp()
    flip(weight(other, "w2"))
    known = analysis(write(tmp_path / "other.onnx", other), masks=(Mask(TAP, MASK),))
    assert "was made for sha256" in failures(checked(model, source, analysis=known))["analysis"]
    known = analysis(source, masks=(Mask("hidden", MASK),))
    assert "'features' is not in the analysis" in failures(checked(model, source, analysis=known))["analysis"]


def test_an_analysis_knows_half_precision(tmp_path: Path) -> None:
    """The file holds the weights rounded to the tap's dtype."""
    fixture = next(each for each in FIXTURES if each.name == "float16")
    source = write(tmp_path / "source.onnx", fixture.model)
    weights = np.resize(np.array([0.1, 1, 0.7], np.float32), fixture.features)
    known = analysis(source, masks=(Mask(fixture.tap, weights),))
    model = harden(source, Mask(fixture.tap, weights))
    assert "analysis" not in failures(checked(model, source, analysis=known))
