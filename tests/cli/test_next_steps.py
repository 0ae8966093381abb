"""Hardened models that were optimised, converted, quantised or saved anew: what the verbs say of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.verification.attestation import attest
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from tests.fixtures import next_steps as made

from .conftest import Run

EPS = 0.12
NO_NOTE = "no random masks beside"
LOST_NOTE = "can't be found in its graph"


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    onnx.save(made.model(), folder / "model.onnx")
    source = load(folder / "model.onnx")
    weights = np.ones(made.COPIES, np.float32)
    weights[made.REMOVED] = 0
    harden_file(source, [Mask("features", weights, 1)], folder / "hardened.onnx")
    attest(load(folder / "hardened.onnx"), source, settings={}).save(folder / "att.json")
    x, y = made.samples()
    np.savez(folder / "test.npz", x=x, y=y)
    made.take(folder, x)
    return folder


@pytest.fixture
def here(steps: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(steps)
    return steps


def verified(run: Run, name: str, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, out, _ = run("verify", f"{name}.onnx", *arguments, "--json")
    return code, {each["name"]: each for each in json.loads(out)["checks"]}


def probed(folder: Path, name: str) -> float:
    """The largest difference from the hardened file in parts of its spread, as ONNX Runtime gives it."""
    x = np.random.default_rng(0).random((4, 1, made.SIDE, made.SIDE), np.float32)
    wanted = made.scores(folder / "hardened.onnx", x)
    return float(np.abs(made.scores(folder / f"{name}.onnx", x) - wanted).max() / np.ptp(wanted))


ONLY = {
    "inferred": {"graph.value_info added"},
    "external": {"external data 'w.bin' added (now holds 7 initializers, values unchanged)"},
    "opset18": {"model.opset_import changed ('ai.onnx' is 18, was 17)", "graph.value_info added"},
    "batch1": {
        "graph.input changed (axis 0 of 'x' is 1, was 'N')",
        "graph.output changed (axis 0 of 'logits' is 1, was 'N')",
    },
}


@pytest.mark.parametrize("name", made.SAME)
def test_the_same_graph(run: Run, here: Path, name: str) -> None:
    code, checks = verified(run, name, "--source", "model.onnx")
    assert code == 1
    assert checks["masks in place"]["status"] == checks["mask values"]["status"] == "passed"
    assert checks["numbers"]["status"] == "passed"
    same = checks["same function"]
    assert same["status"] == "passed"
    assert set(same["detail"].removeprefix("the same graph, other bytes: only ").split("; ")) == ONLY[name]
    assert probed(here, name) == 0
    code, checks = verified(run, name, "--source", "model.onnx", "--allow-other-bytes")
    assert code == 0
    assert {name for name, check in checks.items() if check["status"] == "not checked"} == {"metadata", "structure"}


def test_no_mask_is_named_that_has_not_changed(run: Run, here: Path) -> None:
    for name in (*made.SAME, "ort-basic", "dynamic"):
        _, out, _ = run("verify", f"{name}.onnx", "--attestation", "att.json", "--source", "model.onnx")
        assert "metadata 'cloakonnx.masks' changed" not in out
        assert "is now" not in out
        assert "Relu node" not in out.partition("structure:")[0]
        assert "moved to an external file" not in out
        assert "ok   attested masks: as attested: features" in out


@pytest.mark.parametrize("name", ["inferred", "external", "surgeon"])
def test_by_an_attestation_alone(run: Run, here: Path, name: str) -> None:
    code, checks = verified(run, name, "--attestation", "att.json")
    assert code == 1
    assert checks["same function"]["detail"].startswith("the same graph by the digests of its parts, other bytes: only")
    assert run("verify", f"{name}.onnx", "--attestation", "att.json", "--allow-other-bytes").code == 2


@pytest.mark.parametrize("name", made.OPTIMISED)
def test_another_graph_that_computes_the_same(run: Run, here: Path, name: str) -> None:
    code, checks = verified(run, name, "--source", "hardened.onnx", "--allow-other-bytes")
    assert code == 1
    said = checks["same function"]
    assert said["status"] == "passed"
    number = re.search(r"on 4 random inputs, largest difference (\S+) of the scores' spread", said["detail"])
    assert number is not None
    assert float(number[1]) == pytest.approx(probed(here, name), abs=1e-6)
    assert said["detail"].endswith("the same class on 4; a probe, no proof")


@pytest.mark.parametrize("name", made.CHANGED)
def test_another_function(run: Run, here: Path, name: str) -> None:
    code, checks = verified(run, name, "--source", "hardened.onnx", "--allow-other-bytes")
    assert code == 1
    said = checks["same function"]
    assert said["status"] == "failed"
    number = re.search(r"another function: on 4 random inputs it differs by up to (\S+) of", said["detail"])
    assert number is not None
    assert float(number[1]) == pytest.approx(probed(here, name), rel=0.06)


def test_masks_that_are_gone(run: Run, here: Path) -> None:
    _, checks = verified(run, "ort-all", "--source", "model.onnx")
    assert checks["same function"]["status"] == "not checked"
    assert "name the hardened model itself with --source" in checks["same function"]["detail"]
    code, checks = verified(run, "surgeon", "--source", "hardened.onnx")
    assert code == 1
    assert "metadata 'cloakonnx.masks' removed" in checks["same function"]["detail"]
    assert run("verify", "hardened.onnx", "--source", "hardened.onnx").code == 0


def test_other_masks_than_those_of_the_hardened_source(run: Run, here: Path, tmp_path: Path) -> None:
    weights = np.ones(made.COPIES, np.float32)
    for feature, said in ((0, "not the graph of hardened.onnx: on 4"), (2, "not the graph of hardened.onnx: another")):
        weights[feature] = 0  # any one copy says as much as another, two say more
        harden_file(load(here / "model.onnx"), [Mask("features", weights, 1)], tmp_path / "other.onnx", force=True)
        for option in ((), ("--allow-other-bytes",)):
            code, out, _ = run("verify", tmp_path / "other.onnx", "--source", "hardened.onnx", *option)
            assert code == 1
            assert f"FAIL same function: {said}" in out


def test_a_changed_weight_outside(run: Run, here: Path, tmp_path: Path) -> None:
    for name in ("external.onnx", "w.bin"):
        shutil.copy(here / name, tmp_path / name)
    proto = onnx.load(tmp_path / "external.onnx", load_external_data=False)
    place = {each.key: each.value for each in proto.graph.initializer[4].external_data}
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[int(place["offset"]) + 3] ^= 0x40  # the exponent of the first vote
    (tmp_path / "w.bin").write_bytes(data)
    code, out, _ = run("verify", tmp_path / "external.onnx", "--source", "model.onnx", "--allow-other-bytes")
    assert code == 1
    assert "initializer 'votes' changed (values)" in out
    assert "now holds 5 initializers, values unchanged" in out
    assert "FAIL same function: another function" in out


@pytest.mark.parametrize("name", made.STEPS)
def test_evaluate_with_a_baseline(run: Run, here: Path, name: str, tmp_path: Path) -> None:
    attack = ("--attack", "square", "--max-iter", "5", "--no-sanity", "--eps", str(EPS), "--limit", "10")
    asked = ("evaluate", f"{name}.onnx", "--data", "test.npz", *attack)
    code, _, err = run(*asked, "--baseline", "model.onnx", "-o", tmp_path / "e.json")
    assert code == 0, err
    found = Evaluation.from_json((tmp_path / "e.json").read_text(encoding="utf-8"))
    x, y = made.samples()
    right = made.scores(here / f"{name}.onnx", x).argmax(1) == y
    assert right.all()
    assert (found.clean.both, found.data.count) == (10, 10)
    notes = [note for note in found.notes if LOST_NOTE in note]
    assert len(notes) == (name in made.LOST)
    assert bool(found.masks) == (name not in {*made.LOST, "surgeon"})
    assert not any(NO_NOTE in note for note in found.notes)
    if name in {*made.LOST, "surgeon"}:
        assert run("gate", tmp_path / "e.json", "--require", "clean-drop<=50%").code == 0
        page = ("report", tmp_path / "e.json", "--model", f"{name}.onnx", "-o", tmp_path / "r.html")
        assert run(*page).code == 0
        assert (LOST_NOTE in (tmp_path / "r.html").read_text().replace("&#39;", "'")) == (name in made.LOST)
        assert run(*asked, "-o", tmp_path / "alone.json").code == 0
        alone = Evaluation.from_json((tmp_path / "alone.json").read_text(encoding="utf-8"))
        assert alone.baseline is None
        assert alone.clean_hardened == found.clean_hardened
        assert any(LOST_NOTE in note for note in alone.notes) == (name in made.LOST)


@pytest.mark.parametrize("name", ["hardened", *made.SAME, "surgeon", "ort-basic", "ort-extended"])
def test_attack_finds_what_there_is(run: Run, here: Path, name: str, tmp_path: Path) -> None:
    x, y = made.samples()
    exact = made.robust(x, y, EPS)
    assert 5 < exact < 35
    settings = ("--attack", "apgd-t", "--max-iter", "20", "--eps", str(EPS), "--json")
    code, out, err = run("attack", f"{name}.onnx", "--data", "test.npz", *settings, "-o", tmp_path / "a.npz")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    assert (found["correct"], found["robust"]) == (40, exact)


def test_integer_arithmetic_is_passed_straight_through(run: Run, here: Path, tmp_path: Path) -> None:
    fgsm = ("--data", "test.npz", "--attack", "fgsm", "--eps", "0.1", "-o", tmp_path / "a.npz", "--force")
    for name in ("dynamic", "qoperator", "qdq"):
        for option in ((), ("--straight-through",)):
            code, _, err = run("attack", f"{name}.onnx", *fgsm, *option)
            assert code == 0, err
            assert ("gradients pass that straight through" in err) == (not option)
    preset = ("--data", "test.npz", "--limit", "3", "--eps", str(EPS), "--no-sanity", "--baseline", "model.onnx")
    code, out, _ = run("evaluate", "dynamic.onnx", *preset)
    assert code == 0
    assert "not made on the model" not in out


def test_sweep_names_the_source(run: Run, here: Path, tmp_path: Path) -> None:
    pair = ("--data", "test.npz", "--adversarial", "test.npz")
    scored = run("analyze", "model.onnx", *pair, "--tap", "features", "-o", tmp_path / "a.json")
    assert scored.code == 0, scored.err
    for name in ("hardened", "qdq"):
        code, _, err = run("sweep", f"{name}.onnx", *pair, "--analysis", tmp_path / "a.json")
        assert code == 2
        assert err.count("\n") == 1
        assert f"{name}.onnx was hardened from model.onnx, which the analysis was made for; name that instead" in err


def test_inspect_says_that_masks_are_lost(run: Run, here: Path) -> None:
    assert LOST_NOTE in run("inspect", "qdq.onnx").out
    assert "masked: features" in run("inspect", "external.onnx").out
