"""Probabilities of classical models that are sure: the gradient is that of their logits, not 0."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.runtime.provider import Provider

ML = "ai.onnx.ml"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
WEIGHTS = 60 * RNG.normal(size=(3, 4))


def linear(classes: int, after: str, rows: int) -> list[NodeProto]:
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "p"],
        domain=ML,
        coefficients=[float(v) for v in WEIGHTS[:rows].ravel()],
        intercepts=[0.1, 0.2, 0.3][:rows],
        classlabels_ints=list(range(classes)),
        multi_class=int(rows > 1),
        post_transform=after,
    )
    return [node, helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT)]


def svm() -> list[NodeProto]:
    node = helper.make_node(
        "SVMClassifier",
        ["x"],
        ["label", "p"],
        domain=ML,
        classlabels_ints=[0, 1],
        vectors_per_class=[1, 1],
        support_vectors=[float(v) for v in WEIGHTS[:2].ravel()],
        coefficients=[1.0, -1.0],
        rho=[0.2],
        kernel_type="LINEAR",
        kernel_params=[0.0, 0.0, 0.0],
        prob_a=[-1.5],
        prob_b=[0.1],
    )
    return [node, helper.make_node("Identity", ["p"], ["y"])]


NORMALISED = [
    linear(3, "SOFTMAX", 3)[0],
    helper.make_node("Normalizer", ["p"], ["n"], domain=ML, norm="L1"),
    helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
]
CASES = {
    "softmax": (linear(3, "SOFTMAX", 3), 3, WEIGHTS),
    "softmax, normalised": (NORMALISED, 3, WEIGHTS),
    "logistic": (linear(2, "LOGISTIC", 1), 2, np.stack([0 * WEIGHTS[0], WEIGHTS[0]])),
    "support vectors": (svm(), 2, np.stack([WEIGHTS[0] - WEIGHTS[1], 0 * WEIGHTS[0]])),
}


@pytest.mark.parametrize("name", CASES)
def test_sure(name: str) -> None:
    nodes, classes, weights = CASES[name]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(nodes, "g", [entry], [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    made = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    onnx.checker.check_model(made)
    model = Classifier(load_bytes(made.SerializeToString()), provider=Provider("CPUExecutionProvider"))
    y = model.predict(X)
    sure = model.scores(X)[np.arange(6), y] == 1
    assert sure.mean() > 0.5
    found = model.gradient(X, y, loss="margin").astype(np.float64)
    logits = X @ weights.T
    logits[np.arange(6), y] = -np.inf
    wanted = weights[logits.argmax(1)] - weights[y]
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-4)
