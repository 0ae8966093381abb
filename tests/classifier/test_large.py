"""Weights that are many stay in their files: gradients of a model whose graphs refer to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.head import MarginGradient
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.external import is_external
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.subgraphs import inline
from cloakonnx.runtime import session
from cloakonnx.runtime.provider import Provider
from cloakonnx.selection.learn.places import first_masks
from tests.fixtures.core import node, value

RNG = np.random.default_rng(0)
X = RNG.random((3, 8, 6, 6)).astype(np.float32)
Y = np.array([0, 1, 2])
WEIGHTS = {
    "k": 0.1 * RNG.normal(size=(96, 8, 3, 3)),
    "scale": RNG.uniform(0.5, 2, 96),
    "bias": RNG.normal(size=96),
    "mean": RNG.normal(size=96),
    "var": RNG.uniform(0.5, 2, 96),
    "w1": 0.1 * RNG.normal(size=(96 * 36, 24)),
    "w2": RNG.normal(size=(24, 3)),
}
NODES = [
    node("Conv", "x k", "c", pads=[1, 1, 1, 1]),
    node("BatchNormalization", "c scale bias mean var", "n"),
    node("Relu", "n", "r"),
    node("Flatten", "r", "f"),
    node("MatMul", "f w1", "m"),
    node("Relu", "m", "h"),
    node("MatMul", "h w2", "z"),
]


def written(folder: Path, *, external: bool) -> Path:
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in WEIGHTS.items()]
    graph = helper.make_graph(NODES, "g", [value("x", ["N", 8, 6, 6])], [value("z", ["N", 3])], tensors)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path = folder / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=external, location="m.data", size_threshold=0)
    return path


def found(path: Path) -> tuple[Classifier, list[NDArray[Any]]]:
    """Return a classifier and what its derived graphs give."""
    classifier = Classifier(path, provider=Provider("CPUExecutionProvider"))
    learner = MaskedClassifier(classifier, first_masks(classifier.model, "weight-channel"))
    learner.weights = {
        name: 1 + 0.1 * np.cos(np.arange(w.size)).reshape(w.shape) for name, w in learner.weights.items()
    }
    masks = learner.mask_gradients(X, Y, loss=Loss.CE, by_input=True)
    head = MarginGradient(classifier, find_tap(classifier.model, "h"))
    by_tap = head(classifier.activations(["h"])(X), Y)
    values = [classifier.logits(X), classifier.gradient(X, Y), np.asarray(masks.gradient), *masks.gradients.values()]
    return classifier, [*values, by_tap]


@pytest.mark.parametrize("external", [True, False])
def test_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool) -> None:
    path = written(tmp_path, external=external)
    _, wanted = found(path)
    monkeypatch.setattr(inline, "_MUCH", 1)
    monkeypatch.setattr(inline, "_SMALL", 1000)
    monkeypatch.setattr(session, "_MUCH", 1)
    classifier, values = found(path)
    for one, other in zip(values, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(np.abs(other).max()))
    proto, folder = inline.held(load(path))
    assert folder == tmp_path.resolve()
    assert [t.name for t in proto.graph.initializer if is_external(t)] == ["k", "w1"]
    graphs = [graph.proto for graph, _ in classifier.sessions._made.values()]
    assert graphs
    for graph in graphs:
        large = [t for t in graph.graph.initializer if t.name in {"k", "w1"}]
        assert len(large) == 2
        assert all(is_external(t) and not t.raw_data for t in large)
        assert graph.ByteSize() < 60_000


def test_small_models_hold_their_weights(tmp_path: Path) -> None:
    proto, folder = inline.held(load(written(tmp_path, external=True)))
    assert folder is None
    assert not any(map(is_external, proto.graph.initializer))
    assert {t.data_type for t in proto.graph.initializer} == {TensorProto.FLOAT}
