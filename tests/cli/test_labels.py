"""Labels that are not the model's classes: counted from one, true ones as targets, in another order than the file's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from .conftest import Run

CLASSES, SIZE, COUNT = 4, 12, 60
RNG = np.random.default_rng(6)
W = RNG.normal(size=(SIZE, CLASSES)).astype(np.float32)
B = -0.5 * W.sum(0)
X = RNG.random((COUNT, SIZE)).astype(np.float32)
Y = (X @ W + B).argmax(axis=1)


def net(declared: int | str = CLASSES) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIZE])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", declared])],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "m.onnx").write_bytes(net().SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


NOISE = ("--attack", "noise", "--eps", "0.001", "-o", "a.npz", "--force")


@pytest.mark.parametrize("declared", [CLASSES, "K"])
@pytest.mark.parametrize("source", ["npz", "sorted", "script"])
def test_labels_that_count_from_one(run: Run, here: Path, source: str, declared: int | str) -> None:
    """With the last class among them they would not fit; three are wrong labels, whatever they count from."""
    (here / "m.onnx").write_bytes(net(declared).SerializeToString())
    y = Y.copy()
    y[:3] = (y[:3] + 1) % CLASSES
    order = np.argsort(y, kind="stable") if source == "sorted" else np.arange(COUNT)
    np.savez("data.npz", x=X[order], y=y[order] + 1)
    script = "import numpy as np\ndef load():\n    d = np.load('data.npz')\n    yield d['x'], d['y']\n"
    (here / "load.py").write_text(script)
    data = ("--data-script", "load.py:load") if source == "script" else ("--data", "data.npz")
    for verb in (("attack", "m.onnx", *NOISE), ("evaluate", "m.onnx", "--baseline", "m.onnx", "--eps", "0.001")):
        found = run(*verb, *data)
        assert found.code == 2
        assert (
            "labels up to 4, but the model has 4 classes (0 to 3); labels one lower would be right for 57" in found.err
        )
        assert found.err.count("\n") == 1
    np.savez("data.npz", x=X, y=np.roll(Y, 7) + 1)  # no shift explains these
    found = run("attack", "m.onnx", *NOISE, *data)
    assert found.code == 2
    assert "one lower" not in found.err


def test_true_labels_as_targets(run: Run, here: Path) -> None:
    """None left is bad input; samples that are the target already are counted, and most of them is a doubt."""
    targeted = ("attack", "m.onnx", *NOISE, "--data", "data.npz", "--targeted")
    np.savez("data.npz", x=X, y=Y)
    found = run(*targeted)
    assert found.code == 2
    assert "all 60 samples are classified as their label, so --targeted has no class left to reach" in found.err
    assert sorted(path.name for path in here.iterdir()) == ["data.npz", "m.onnx"]
    for wrong, doubt in ((10, True), (50, False), (60, None)):
        y = Y.copy()
        y[:wrong] = (y[:wrong] + 1) % CLASSES
        np.savez("data.npz", x=X, y=y)
        found = run(*targeted)
        assert found.code == 0
        assert f"{wrong} of 60 not the target" in found.err
        assert (f"{60 - wrong} of 60 samples are classified as the target already" in found.err) == (wrong < 60)
        assert ("are the labels the true classes" in found.err) == bool(doubt)
