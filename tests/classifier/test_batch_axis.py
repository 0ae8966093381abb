"""Models whose samples lie along another axis of the input than the first: the same numbers as with the batch first."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.attacks.attack import attack
from cloakonnx.attacks.base import make
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.company import settled
from cloakonnx.classifier.latency import measured_latency
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource, open_source
from cloakonnx.errors import DataError, ModelError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.scoring.analyze import analyze
from tests.cli.conftest import Run, run  # noqa: F401 - a fixture
from tests.support.classifiers import CPU

T, F, CLASSES, COUNT = 6, 4, 5, 50
RNG = np.random.default_rng(8)
W = RNG.normal(size=(T * F, CLASSES)).astype(np.float32)
B = -0.5 * W.sum(0)
X = RNG.random((COUNT, T, F)).astype(np.float32)
Y = (X.reshape(COUNT, -1) @ W + B).argmax(1)
Y[:5] = (Y[:5] + 1) % CLASSES
EPS = 0.04


def net(
    axis: int = 1,
    *,
    batch: Any = "N",
    rows: Any = "N",
    sample: tuple[Any, ...] = (T, F),
    kind: int = TensorProto.FLOAT,
    shape: bool = True,
) -> bytes:
    """Return a linear net, linear in a sample's values, of inputs whose samples lie along an axis."""
    perm = [axis, *(other for other in range(3) if other != axis)]
    declared = list(sample)
    declared.insert(axis, batch)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=perm),
        helper.make_node("Flatten", ["t"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w", "b"], ["z"]),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, declared)],
        [helper.make_tensor_value_info("z", kind, [rows, CLASSES] if shape else None)],
        [numpy_helper.from_array(W.astype(dtype), "w"), numpy_helper.from_array(B.astype(dtype), "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def classifier(content: bytes, **settings: Any) -> Classifier:
    return Classifier(load_bytes(content), provider=CPU, **settings)


def data(made: Classifier) -> Dataset:
    return Dataset.of(ArraySource("data", X, Y), made)


def exact(eps: float) -> int:
    """Return how many samples withstand every change of at most eps in [0, 1]: the net is linear."""
    x = X.reshape(COUNT, -1)
    held = (x @ W + B).argmax(1) == Y
    for other in range(CLASSES):
        toward = (W[:, other] - W[:, Y].T).astype(np.float64)  # (N, values): raises the other class against the label
        worst = np.clip(x + eps * np.sign(toward), 0, 1)
        held &= (other == Y) | ((worst * toward).sum(1) + B[other] - B[Y] < 0)
    return int(held.sum())


DECLARED: dict[str, dict[str, Any]] = {
    "named": {},
    "no names": {"batch": None, "rows": None},
    "one name": {"batch": "N", "rows": None},
    "time is open, too": {"sample": ("T", F)},
    "last axis": {"axis": 2},
    "double": {"kind": TensorProto.DOUBLE},
    "asked: other names": {"batch": "B", "rows": "M"},
    "asked: no shape": {"shape": False},
}


@pytest.mark.parametrize("name", DECLARED)
def test_exact_numbers(name: str, tmp_path: Path) -> None:
    settings = {"axis": 1, **DECLARED[name]}
    content, axis = net(**settings), settings["axis"]
    asked = {"batch_axis": axis} if name.startswith("asked") else {}
    made = classifier(content, **asked)
    assert made.batch_axis == axis
    dtype = np.float64 if settings.get("kind") == TensorProto.DOUBLE else np.float32
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    scores = session.run(None, {"x": np.moveaxis(X, 0, axis).astype(dtype)})[0]
    np.testing.assert_allclose(made.scores(X), scores, rtol=1e-5, atol=1e-5)
    pull = RNG.normal(size=(COUNT, CLASSES)).astype(np.float32)
    np.testing.assert_allclose(made.vjp(X, pull), (pull @ W.T).reshape(X.shape), rtol=1e-4, atol=1e-5)
    assert 5 < exact(EPS) < 40
    for size in (7, 64):
        found = attack(
            made, data(made), output=tmp_path / "a.npz", attack="apgd-t", eps=EPS, max_iter=60, batch_size=size
        )
        assert (found.correct, found.robust, found.notes) == (45, exact(EPS), ())
    found = attack(made, data(made), output=tmp_path / "b.npz", attack="square", eps=EPS, max_iter=300)
    assert found.correct == 45
    assert exact(EPS) <= found.robust <= exact(EPS) + 2
    with np.load(tmp_path / "a.npz") as written:
        assert written["x"].shape == X.shape
        assert np.abs(written["x"].astype(np.float32) - X).max() <= EPS + 1e-6
        scores = session.run(None, {"x": np.moveaxis(written["x"], 0, axis).astype(dtype)})[0]
        assert int((scores.argmax(1) == Y).sum()) == exact(EPS)
    assert pickle.loads(pickle.dumps(made)).batch_axis == axis
    assert made.beside(made.model).batch_axis == axis


def test_an_evaluation_with_masks() -> None:
    """Masks stand in the file, behind the Transpose of the model's own; the baseline is taken out of it."""
    weights = np.ones(T * F, np.float32)
    weights[:3] = 0
    masked = hardened(load_bytes(net()), [Mask("f", weights, 1)])
    made = Classifier(masked, provider=CPU)
    found = evaluate(made, data(made), eps=[EPS], attack="apgd-t", max_iter=60, sanity=False)
    kept = (X.reshape(COUNT, -1) * weights) @ W + B
    assert found.clean_hardened.correct == (kept.argmax(1) == Y).sum()
    assert found.clean_baseline.correct == 45
    assert found.results[0].baseline.robust.correct == exact(EPS)
    assert measured_latency(made, made, sessions=1, rounds=1, block_seconds=0.01).ratio > 0


def test_mean_and_std_run_along_the_channels_of_a_sample() -> None:
    """(C, N, H, W): what is one number a channel follows the sample's layout."""
    weight = RNG.normal(size=(3, 2, 2)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["m"]),
            helper.make_node("ReduceSum", ["m", "axes"], ["s"], keepdims=0),
            helper.make_node("Unsqueeze", ["s", "one"], ["z"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, "N", 2, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weight[:, None], "w"),
            numpy_helper.from_array(np.array([0, 2, 3]), "axes"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    made = classifier(content, preprocessing=Preprocessing(mean=mean, std=std))
    x = RNG.random((9, 3, 2, 2)).astype(np.float32)
    seen = (x - np.array(mean).reshape(3, 1, 1)) / np.array(std).reshape(3, 1, 1)
    np.testing.assert_allclose(made.scores(x)[:, 0], (seen * weight).sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.logits(x)[:, 1], (seen * weight).sum((1, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"batch": "B", "rows": "M"}, {"shape": False}, {"rows": 1}])
def test_what_can_not_be_told_is_asked_for(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"its first axis is fixed at 6 and axis 1 is open.*batch_axis 1 or batch_"):
        settled(classifier(net(**settings)), X[:6])


def test_the_batch_stays_first() -> None:
    """Where the file's names, or a batch that is fixed, say so; and where the user does."""
    assert classifier(net(0)).batch_axis == 0
    assert classifier(net(0, batch=6, sample=("T", F), rows=6)).batch_axis == 0
    assert classifier(net(0, batch="N", sample=("T", F))).batch_axis == 0
    assert classifier(net(0, batch=1, sample=("T", F), rows=1)).batch_axis == 0
    with pytest.raises(ModelError, match="depend on the other samples of its batch"):
        settled(classifier(net(), batch_axis=0), X)
    with pytest.raises(ModelError, match=r"batch_axis 3: input 'x' of .* has shape \(6, N, 4\)"):
        settled(classifier(net(), batch_axis=3), X)


def test_what_reads_tensors_inside_refuses(tmp_path: Path) -> None:
    made = classifier(net())
    pairs = AttackedPairs(data(made), made, make("pgd", eps=EPS, max_iter=2))
    with pytest.raises(ModelError, match=r"scoring takes models whose batch is the first axis.*is axis 1"):
        analyze(made, pairs, tap="f")
    np.savez(tmp_path / "turned.npz", x=np.moveaxis(X, 0, 1), y=Y)
    with pytest.raises(DataError, match=r"50 labels for 6 samples; axis 1 has as many: numpy\.moveaxis\(x, 1, 0\)"):
        open_source(tmp_path / "turned.npz")


def test_from_the_command_line(run: Run, tmp_path: Path) -> None:  # noqa: F811
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    (tmp_path / "m.onnx").write_bytes(net(batch="B", rows="M"))
    given = ("attack", tmp_path / "m.onnx", "--data", tmp_path / "data.npz", "--eps", str(EPS), "--json")
    given = (*given, "--attack", "apgd-t", "--max-iter", "60", "-o", tmp_path / "a.npz")
    assert run(*given).code == 2
    found = run(*given, "--batch-axis", "1")
    assert found.code == 0
    assert json.loads(found.out)["robust"] == exact(EPS)
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"))
    refused = run("harden", tmp_path / "m.onnx", *given[2:6], "-o", tmp_path / "hardened", "--batch-axis", "1")
    assert refused.code == 2
    assert "harden takes models whose batch is the first axis of the input" in refused.err
    assert not (tmp_path / "hardened").exists()
