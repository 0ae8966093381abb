"""Masks on weights from the command line: learned, applied, shown, verified, attested, evaluated, stripped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cloakonnx.scoring.analysis import load_analysis
from tests.attacks.helpers import DIGITS
from tests.selection.helpers import digits_arrays, training_arrays

from .conftest import Run

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("weights")
    x, y = training_arrays()
    np.savez(made / "train.npz", x=x[:150], y=y[:150])
    x, y = digits_arrays()
    np.savez(made / "test.npz", x=x[:40], y=y[:40])
    (made / "model.onnx").write_bytes(DIGITS.read_bytes())
    return made


LEARN = ("--eps", "2/16", "--budget", "4%", "--epochs", "1", "--force", "--granularity", "kernel")


def test_the_whole_way(run: Run, place: Path) -> None:
    at: Any = place
    model, analysis, hardened, attestation = (str(at / n) for n in ("model.onnx", "a.json", "h.onnx", "att.json"))
    assert run("learn", model, "--data", str(at / "train.npz"), *LEARN, "-o", analysis).code == 0
    stored = json.loads(Path(analysis).read_text())["masks"]
    assert {mask["granularity"] for mask in stored} == {"kernel"}
    done = run("apply", model, "--analysis", analysis, "-o", hardened, "--attestation", attestation)
    assert done.code == 0
    assert "kernels" in done.err
    found = json.loads(run("inspect", hardened, "--json").out)
    assert found["kind"] == "masked"
    assert {mask["granularity"] for mask in found["weight_masks"]} == {"kernel"}
    numbers = sum(int(np.prod(mask["shape"])) for mask in stored)
    assert f"masks on {len(stored)} weights, {numbers:,} numbers (kernel)" in run("inspect", hardened).out
    checked = run("verify", hardened, "--source", model, "--attestation", attestation, "--analysis", analysis)
    assert checked.code == 0
    assert "masks on weights: largest difference of" in checked.out
    data = ["--data", str(at / "test.npz"), "--eps", "1/16", "--attack", "pgd", "--max-iter", "3", "--no-sanity"]
    result = str(at / "e.json")
    assert run("evaluate", hardened, *data, "-o", result, "--force").code == 0
    assert json.loads(Path(result).read_text())["baseline"] is not None
    back = at / "back.onnx"
    assert run("strip", hardened, "-o", str(back)).code == 0
    assert back.read_bytes() == DIGITS.read_bytes()


def test_a_number_that_was_changed_is_found(run: Run, place: Path) -> None:
    proto = onnx.load(place / "h.onnx")
    name = next(t for t in proto.graph.initializer if t.name.endswith("_mask"))
    values = onnx.numpy_helper.to_array(name).copy()
    values.flat[0] += 0.5
    name.raw_data = values.tobytes()
    onnx.save(proto, place / "bent.onnx")
    checked = run("verify", str(place / "bent.onnx"), "--attestation", str(place / "att.json"))
    assert checked.code == 1
    assert "FAIL mask values: the mask of" in checked.out


def test_folded(run: Run, place: Path) -> None:
    model, analysis, folded = (str(place / name) for name in ("model.onnx", "a.json", "f.onnx"))
    done = run("apply", model, "--analysis", analysis, "--fold", "-o", folded)
    assert done.code == 0
    masks = json.loads(Path(analysis).read_text())["masks"]
    assert f"{len(masks)} of {len(masks)} masks folded" in done.err
    assert not any(node.op_type == "Mul" for node in onnx.load(folded).graph.node)
    numbers = sum(int(np.prod(mask["shape"])) for mask in masks)
    said = f"folded into the weights: masks on {len(masks)} weights, {numbers:,} numbers (kernel)"
    assert said in run("inspect", folded).out
    assert json.loads(run("inspect", folded, "--json").out)["folded"] == [mask["tap"] for mask in masks]
    assert run("verify", folded, "--source", model, "--analysis", analysis).code == 0
    refused = run("strip", folded, "-o", str(place / "s.onnx"))
    assert refused.code == 2
    assert "is folded" in refused.err


def test_stored_as_float16(run: Run, place: Path) -> None:
    model, analysis, hardened, attestation = (
        str(place / n) for n in ("model.onnx", "a.json", "h16.onnx", "att16.json")
    )
    apply = ("apply", model, "--analysis", analysis, "--float16-masks")
    done = run(*apply, "-o", hardened, "--attestation", attestation)
    assert done.code == 0
    exact = np.concatenate([mask.weights.reshape(-1) for mask in load_analysis(analysis).masks])
    error = np.abs(exact.astype(np.float16).astype(np.float64) / exact - 1).max()
    said = f"{exact.size:,} numbers on weights are stored as float16: largest relative error {error:.2g} ("
    assert said in done.err
    assert Path(hardened).stat().st_size < (place / "h.onnx").stat().st_size
    checked = run("verify", hardened, "--source", model, "--attestation", attestation, "--analysis", analysis,
                  "--data", str(place / "test.npz"))  # fmt: skip
    assert checked.code == 0, checked.out
    assert f"ok   float16 masks: largest relative error of a number {error:.2g}; largest difference of" in checked.out
    assert "of its spread, 40 samples" in checked.out
    assert run("verify", hardened, "--attestation", str(place / "att.json")).code == 1, "other masks"
    back = place / "back16.onnx"
    assert run("strip", hardened, "-o", str(back)).code == 0
    assert back.read_bytes() == DIGITS.read_bytes()
    assert run(*apply, "--fold", "-o", str(place / "no.onnx")).code == 2
    np.save(place / "mask.npy", np.ones(16, np.float32))
    own = ("--mask", str(place / "mask.npy"), "--tap", "/1/Relu_output_0", "-o", str(place / "no.onnx"))
    refused = run("apply", model, *own, "--float16-masks")
    assert refused.code == 2
    assert "all of these are at activations" in refused.err
    assert not (place / "no.onnx").exists()


def test_wrong_layers_are_one_line(run: Run, place: Path) -> None:
    given = ["learn", str(place / "model.onnx"), "--data", str(place / "train.npz"), *LEARN]
    done = run(*given, "--layers", "blocks.*")
    assert done.code == 2
    assert "--layers blocks.* finds no weight" in done.err
    assert run(*given, "--tap", "/1/Relu_output_0").code == 2
