"""``cloakonnx learn`` as a user sees it: what it writes, what apply makes of it, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import masks_of
from cloakonnx.graph.masks.strip import read_masks
from cloakonnx.scoring.analysis import load_analysis
from tests.attacks.helpers import DIGITS, ROOT, digits_arrays
from tests.cli.conftest import Run
from tests.selection.helpers import training_arrays

pytest.importorskip("sklearn")

SCHEMA = json.loads((ROOT / "docs" / "analysis.schema.json").read_text())
QUICK = ("--eps", "2/16", "--budget", "10%", "--epochs", "1", "--batch-size", "50", "--learning-rate", "0.05")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with the sample model and its data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(DIGITS.read_bytes())
    for name, (x, y), count in (("train", training_arrays(), 150), ("select", digits_arrays(), 60)):
        np.savez(tmp_path / f"{name}.npz", x=x[:count], y=y[:count])
    return tmp_path


@pytest.mark.parametrize("granularity", ["feature", "element"])
def test_learn_apply_verify_strip(digits: Path, run: Run, granularity: str) -> None:
    made = run(
        *("learn", "m.onnx", "--data", "train.npz", "--select-data", "select.npz", *QUICK, "--force", "--json"),
        *("--granularity", granularity),
    )
    assert made.code == 0, made.err
    content = json.loads(made.out)
    assert made.out == (digits / "m.cloak.json").read_text()
    Draft202012Validator(SCHEMA).validate(content)
    assert [m["tap"] for m in content["masks"]] == ["/1/Relu_output_0", "/3/Relu_output_0", "/6/Relu_output_0"]
    assert "epoch 1 of 1: loss" in made.err
    assert not list(digits.glob(".*"))
    assert run("apply", "m.onnx", "--remove", "5%").code == 2
    assert run("apply", "m.onnx").code == 0
    hardened = load(digits / "m.hardened.onnx")
    learned = load_analysis(digits / "m.cloak.json", model="m.onnx").masks
    for mask, again in zip(learned, read_masks(hardened), strict=True):
        assert mask.tap == again.tap
        assert np.array_equal(mask.weights, again.weights)
    assert len(masks_of(hardened.proto)) == 3
    assert_named(made.err, learned)
    assert run("verify", "m.hardened.onnx", "--source", "m.onnx").code == 0
    assert run("strip", "m.hardened.onnx", "-o", "s.onnx").code == 0
    assert (digits / "s.onnx").read_bytes() == DIGITS.read_bytes()


def assert_named(text: str, masks: Sequence[Mask]) -> None:
    """Check that a text names the masks that changed most, at most 5, with their numbers and range."""
    far = {mask.key: float(np.mean((mask.weights.astype(float) - 1) ** 2)) ** 0.5 for mask in masks}
    lines = text.splitlines()
    start = lines.index("changed most, by the root mean square of (mask - 1):") + 1
    wanted = []
    for mask in sorted(masks, key=lambda mask: -far[mask.key])[:5]:
        least, most = min(mask.weights.flat), max(mask.weights.flat)
        wanted.append(
            f"  {mask.key}: {far[mask.key]:.3f}; {mask.weights.size:,} numbers from {least:.3f} to {most:.3f}"
        )
    assert lines[start : start + len(wanted)] == wanted
    assert not lines[start + len(wanted)].startswith("  ")


def test_five_masks_on_weights_are_named(digits: Path, run: Run) -> None:
    made = run("learn", "m.onnx", *QUICK, "--data", "train.npz", "--granularity", "weight-channel", "--force")
    masks = load_analysis(digits / "m.cloak.json", model="m.onnx").masks
    assert len(masks) > 5
    assert_named(made.err, masks)


def test_a_missed_budget_is_a_failed_check_and_writes_nothing(digits: Path, run: Run) -> None:
    command = ("learn", "m.onnx", "--data", "train.npz", "--eps", "1/16", "--budget", "0", "--epochs", "1")
    missed = run(*command, "--learning-rate", "1e-9")
    assert missed.code == 1
    assert missed.err.splitlines()[-1].startswith("cloakonnx: no masks gain robust accuracy within the budget of 0 ")
    assert not (digits / "m.cloak.json").exists()
    forced = run(*command, "--learning-rate", "1e-9", "--resume", "--force")
    assert forced.code == 0
    assert "miss the budget" in forced.err
    assert "epoch 1 of 1" not in forced.err
    assert (digits / "m.cloak.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "one.npz"), "one.npz: all 20 labels are class 7"),
        (("--data", "train.npz", "--tap", "/1/Relu_output"), "does not exist; did you mean '/1/Relu_output_0'"),
        (("--data", "train.npz", "--tap-pattern", "*Tanh*"), "--tap-pattern *Tanh* finds no tap"),
        (("--data", "train.npz", "--budget", "4"), "--budget 4 must be a share"),
        ((), "--data is missing"),
    ],
)
def test_bad_input_is_one_line(digits: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    x, _ = training_arrays()
    np.save(digits / "x.npy", x[:20])
    np.savez(digits / "one.npz", x=x[:20], y=np.full(20, 7))
    before = sorted(digits.iterdir())
    failed = run("learn", "m.onnx", *QUICK, *arguments)
    assert failed.code == 2
    assert len(failed.err.splitlines()) == 1
    assert message in failed.err
    assert sorted(digits.iterdir()) == before


def test_without_labels_the_predictions_stand_in(digits: Path, run: Run) -> None:
    np.save(digits / "x.npy", training_arrays()[0][:60])
    done = run("learn", "m.onnx", *QUICK, "--data", "x.npy", "--force")
    assert done.code == 0, done.err
    assert "cloakonnx: warning: x.npy has no labels: the model's own predictions stand in" in done.err
    assert "cloakonnx: warning:" not in run("learn", "m.onnx", *QUICK, "--data", "train.npz", "--force").err


def test_the_former_name_of_a_granularity(digits: Path, run: Run) -> None:
    done = run("learn", "m.onnx", *QUICK, "--data", "train.npz", "--force", "--granularity", "channel")
    assert "cloakonnx: warning: --granularity channel is named feature now" in done.err
    assert json.loads((digits / "m.cloak.json").read_text())["learning"]["recipe"]["granularity"] == "feature"


def test_an_op_without_a_gradient_names_what_learn_can_do(run: Run, tmp_path: Path) -> None:
    """The default tap, then a determinant of it: learning has no --attack that could be changed."""
    node, info = helper.make_node, helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (4, 8)), ("v", (8, 3)))
    ]
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "v"], ["z"]),
        node("Slice", ["r", "from", "to", "axis"], ["four"]),
        node("Reshape", ["four", "parts"], ["squares"]),
        node("Det", ["squares"], ["d"], name="determinant"),
        node("Add", ["z", "d"], ["y"]),
    ]
    for name, value in (("from", [0]), ("to", [4]), ("axis", [1]), ("parts", [-1, 1, 2, 2])):
        weights.append(numpy_helper.from_array(np.array(value), name))
    inputs, outputs = [info("x", TensorProto.FLOAT, ["n", 4])], [info("y", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    np.savez(tmp_path / "x.npz", x=rng.random((12, 4)).astype(np.float32), y=np.arange(12) % 3)
    arguments = ("--data", tmp_path / "x.npz", "--eps", "0.1", "--budget", "50%", "--epochs", "1", "--tap", "r")
    result = run("learn", tmp_path / "m.onnx", *arguments, "-o", tmp_path / "a.json")
    assert result.code == 2
    assert "cannot differentiate Det (node 'determinant'): this op has no rule; masks are learned by gradients" in (
        result.err
    )
    assert "--attack square" not in result.err
