"""apply --attestation, apply --hash-external, and verify with references, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from tests.fixtures.models import write_external

from .conftest import Run, files


@pytest.fixture
def mask(folder: Path) -> tuple[str, ...]:
    np.save(folder / "a.npy", np.array([0, 1, 0.5, 2, 0, 1]))
    return ("--mask", "a.npy", "--tap", "features")


def tamper(path: Path) -> None:
    made = ModelProto.FromString(path.read_bytes())
    made.graph.doc_string = "x"
    path.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("fold", [(), ("--fold",)])
def test_apply_and_verify(run: Run, folder: Path, mask: tuple[str, ...], fold: tuple[str, ...]) -> None:
    found = run("apply", "m.onnx", *mask, *fold, "--attestation", "m.attestation.json")
    assert (found.code, found.err.splitlines()[-1]) == (0, "wrote m.attestation.json")
    content = json.loads((folder / "m.attestation.json").read_text())
    assert content["subject"][0]["name"] == "m.hardened.onnx"
    assert content["predicate"]["settings"]["fold"] == bool(fold)
    assert content["predicate"]["settings"]["masks"][0]["name"] == "a.npy"
    assert str(folder) not in json.dumps(content)
    found = run("verify", "m.hardened.onnx", "--attestation", "m.attestation.json")
    assert (found.code, found.err) == (0, "m.hardened.onnx is as m.attestation.json says\n")
    assert "no trusted reference" not in found.out
    tamper(folder / "m.hardened.onnx")
    found = run("verify", "m.hardened.onnx", "--attestation", "m.attestation.json")
    assert found.code == 1
    assert "FAIL attested file: not the attested file: graph.doc_string" in found.out


def test_settings_of_an_analysis(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "adversarial.npz").code == 0
    assert run("apply", "m.onnx", "--remove", "2", "--attestation", "a.json").code == 0
    settings = json.loads((folder / "a.json").read_text())["predicate"]["settings"]
    assert settings["analysis"]["name"] == "m.cloak.json" and settings["remove"] == 2
    verify = ("verify", "m.hardened.onnx", "--source", "m.onnx", "--analysis", "m.cloak.json")
    assert run(*verify).code == 0
    np.save(folder / "other.npy", np.array([1, 0, 1, 1, 1, 1]))
    assert run("apply", "m.onnx", "--mask", "other.npy", "--tap", "features", "--force").code == 0
    found = run(*verify)
    assert (found.code, "FAIL analysis: " in found.out) == (1, True)


def test_outputs(run: Run, folder: Path, mask: tuple[str, ...]) -> None:
    (folder / "a.json").write_text("mine")
    before = files(folder)
    for given, said in (
        (("--attestation", "a.json"), "a.json exists already"),
        (("--attestation", "m.hardened.onnx"), "m.hardened.onnx is to hold JSON"),
        (("--attestation", "both.two", "-o", "both.two"), "would hold two outputs of this call (-o, --attestation)"),
        (("--attestation", "none/a.json"), "there is no folder"),
        (("--attestation", "m.onnx"), "m.onnx is to hold JSON"),
    ):
        found = run("apply", "m.onnx", *mask, *given)
        assert (found.code, found.err.count("\n")) == (2, 1)
        assert said in found.err
        assert files(folder) == before
    assert run("apply", "m.onnx", *mask, "--attestation", "a.json", "--dry-run").code == 0
    assert files(folder) == before
    assert run("apply", "m.onnx", *mask, "--attestation", "a.json", "--force").code == 0


def test_external_data(run: Run, folder: Path, mask: tuple[str, ...]) -> None:
    write_external(folder, "e.onnx")
    assert run("apply", "e.onnx", *mask, "--hash-external").code == 0
    assert run("verify", "e.hardened.onnx", "--source", "e.onnx").code == 0
    data = bytearray((folder / "external.data").read_bytes())
    data[7] ^= 4
    (folder / "external.data").write_bytes(data)
    found = run("verify", "e.hardened.onnx", "--source", "e.onnx")
    assert (found.code, "'external.data' is not as the metadata records it" in found.out) == (1, True)
    assert run("strip", "e.hardened.onnx", "-o", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "e.onnx").read_bytes()


@pytest.mark.parametrize("how", ["truncated data", "no data", "no model"])
def test_what_does_not_load_any_more(run: Run, folder: Path, mask: tuple[str, ...], how: str) -> None:
    """With a reference it is a check that failed, not bad input."""
    (folder / "made").mkdir()
    write_external(folder, "e.onnx")
    model = ("-o", "made/h.onnx", "--attestation", "a.json")
    assert run("apply", "e.onnx", *mask, *model).code == 0
    data = folder / "made" / "external.data"
    if how == "truncated data":
        data.write_bytes(data.read_bytes()[:40])
    elif how == "no data":
        data.unlink()
    else:
        (folder / "made" / "h.onnx").write_bytes(b"hello")
    for reference in (("--source", "e.onnx"), ("--attestation", "a.json")):
        found = run("verify", "made/h.onnx", *reference)
        assert (found.code, found.out, found.err.count("\n")) == (1, "", 1)
        assert found.err.startswith("cloakonnx: h.onnx failed verification: ")
    assert run("verify", "made/h.onnx").code == 2
    assert run("verify", "made/none.onnx", "--source", "e.onnx").code == 2


def test_without_a_reference(run: Run, folder: Path, mask: tuple[str, ...]) -> None:
    run("apply", "m.onnx", *mask)
    found = run("verify", "m.hardened.onnx")
    assert (found.code, found.err) == (
        0,
        "m.hardened.onnx is consistent with itself; no trusted reference given\n",
    )


def test_several_models(run: Run, folder: Path, mask: tuple[str, ...]) -> None:
    run("apply", "m.onnx", *mask)
    run("apply", "m.onnx", *mask, "-o", "other.onnx")
    found = run("verify", "m.hardened.onnx", "other.onnx")
    assert found.code == 0 and "ok   other.onnx: mask values" in found.out
    tamper(folder / "other.onnx")
    found = run("verify", "m.hardened.onnx", "other.onnx")
    assert found.code == 1 and "FAIL other.onnx: metadata" in found.out
    listed = json.loads(run("verify", "m.hardened.onnx", "other.onnx", "--json").out)
    assert [each["passed"] for each in listed] == [True, False]
    found = run("verify", "m.hardened.onnx", "other.onnx", "--source", "m.onnx")
    assert found.code == 2 and "go with one model" in found.err


@pytest.mark.parametrize(("text", "said"), [(None, "cannot read the attestation"), ("{}", "is not an attestation")])
def test_bad_attestation(run: Run, folder: Path, mask: tuple[str, ...], text: str | None, said: str) -> None:
    run("apply", "m.onnx", *mask)
    if text is not None:
        (folder / "a.json").write_text(text)
    found = run("verify", "m.hardened.onnx", "--attestation", "a.json")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
