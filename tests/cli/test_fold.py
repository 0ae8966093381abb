"""apply --fold on the command line: what it says, what it writes, and what the other verbs make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.metadata import is_folded
from tests.fixtures.core import TAP, mlp, node, value

from .conftest import Run, files


@pytest.fixture
def masks(folder: Path) -> tuple[str, ...]:
    np.save(folder / "a.npy", np.array([0, 1, 0.5, 2, 0, 1]))
    np.save(folder / "h.npy", np.array([0.5, 1, 1, 2, 1, 1]))
    return ("--mask", "a.npy", "--tap", TAP, "--mask", "h.npy", "--tap", "hidden")


def test_it_says_where_masks_went(run: Run, folder: Path, masks: tuple[str, ...]) -> None:
    found = run("apply", "m.onnx", "--fold", *masks)
    assert found.code == 0
    assert f"{TAP}: folded into Gemm node 'second'" in found.err
    assert "hidden: folded into Gemm node" in found.err
    assert "2 of 2 masks folded" in found.err
    assert is_folded(load(folder / "m.hardened.onnx").proto)
    made = ModelProto.FromString((folder / "m.hardened.onnx").read_bytes())
    assert [n.op_type for n in made.graph.node] == ["Gemm", "Relu", "Gemm"]


def test_dry_run_writes_nothing(run: Run, folder: Path, masks: tuple[str, ...]) -> None:
    before = files(folder)
    found = run("apply", "m.onnx", "--fold", "--dry-run", *masks)
    assert (found.code, files(folder)) == (0, before)
    assert "2 of 2 masks folded" in found.err and "would write m.hardened.onnx" in found.err


def test_json(run: Run, masks: tuple[str, ...]) -> None:
    found = json.loads(run("apply", "m.onnx", "--fold", "--json", *masks).out)
    assert [entry["folded"] for entry in found["masks"]] == [True, True]
    assert found["masks"][0]["layers"] == ["Gemm node 'second'"] and found["masks"][0]["reason"] is None


def test_what_stays_is_named_with_the_reason(run: Run, folder: Path) -> None:
    made = mlp([node("Sigmoid", "logits", "p"), node("Softmax", "p", "q")], [value("q", ["N", 3])])
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    np.save(folder / "p.npy", np.array([0.5, 1, 2]))
    found = run("apply", "m.onnx", "--fold", "--mask", "p.npy", "--tap", "p")
    assert found.code == 0
    assert "p: stays a Mul node: no scale can leave it on either side: before it, Sigmoid node" in found.err
    assert "after it, Softmax node" in found.err and "no mask folds" in found.err
    assert run("strip", "m.hardened.onnx", "-o", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "m.onnx").read_bytes()


def test_the_other_verbs(run: Run, folder: Path, masks: tuple[str, ...]) -> None:
    run("apply", "m.onnx", "--fold", *masks)
    shown = json.loads(run("inspect", "m.hardened.onnx", "--json").out)
    assert (shown["kind"], shown["folded"], shown["masks"]) == ("folded", [TAP, "hidden"], [])
    assert f"folded into the weights: the mask of {TAP}" in run("inspect", "m.hardened.onnx").out
    refused = run("strip", "m.hardened.onnx")
    assert refused.code == 2 and "its masks are in the weights and can't be taken out" in refused.err
    asked = run("verify", "m.hardened.onnx")
    assert asked.code == 2 and "with --source" in asked.err
    assert run("verify", "m.hardened.onnx", "--source", "m.onnx").code == 0
    again = run("apply", "m.hardened.onnx", *masks, "-o", "twice.onnx")
    assert again.code == 2 and "is folded and takes no more masks" in again.err
    assert not (folder / "twice.onnx").exists()
    bare = run("evaluate", "m.hardened.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "fgsm")
    assert bare.code == 0 and "is folded: its masks are in its weights" in " ".join(bare.out.split())


def test_an_analysis_folds_too(run: Run, folder: Path) -> None:
    assert run("analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "adversarial.npz").code == 0
    found = run("apply", "m.onnx", "--fold", "--remove", "2")
    assert found.code == 0 and "1 of 1 masks folded" in found.err
    assert run("verify", "m.hardened.onnx", "--source", "m.onnx").code == 0
