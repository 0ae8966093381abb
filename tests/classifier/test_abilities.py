"""What can be done with a model, by its graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.classifier.abilities import abilities
from cloakonnx.graph.file.model import load, load_bytes
from tests.attacks.helpers import DIGITS
from tests.fixtures import false_defences

F = TensorProto.FLOAT


def network(*nodes: onnx.NodeProto, kind: int = F, inputs: int = 1, **constants: np.ndarray) -> bytes:
    """A model whose nodes make (N, 3) ``y`` of (N, 4) ``x``."""
    given = [helper.make_tensor_value_info(f"x{i}" if i else "x", kind, ["N", 4]) for i in range(inputs)]
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    output = helper.make_tensor_value_info("y", F, ["N", 3])
    graph = helper.make_graph(nodes, "g", given, [output], values)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


W = np.eye(4, 3, dtype=np.float32)
GEMM = helper.make_node("Gemm", ["h", "w"], ["y"])
LINEAR = helper.make_node(
    "LinearClassifier",
    ["x"],
    ["label", "y"],
    domain="ai.onnx.ml",
    coefficients=[0.1] * 12,
    intercepts=[0.0, 0.1, 0.2],
    classlabels_ints=[0, 1, 2],
    multi_class=1,
)
CASES = {
    "a network": (network(helper.make_node("Relu", ["x"], ["h"]), GEMM, w=W), "by gradients", "'h'", "on 1 weights"),
    "an op without a rule": (
        network(helper.make_node("Compress", ["x", "c"], ["h"], axis=1), GEMM, w=W, c=np.ones(4, bool)),
        "by scores alone (--attack square): cannot differentiate Compress",
        "'h'",
        "it needs gradients",
    ),
    "rounding": (
        network(helper.make_node("Round", ["x"], ["h"]), GEMM, w=W),
        "straight through Round",
        "'h'",
        "on 1 weights",
    ),
    "a linear model": (
        network(LINEAR),
        "by gradients",
        "no default tap",
        "no Conv, ConvTranspose, Gemm, MatMul or recurrent layer",
    ),
    "integers": (
        network(helper.make_node("Cast", ["x"], ["h"], to=F), GEMM, kind=TensorProto.INT64, w=W),
        "its input 'x' is not floating point",
        "'h'",
        "its input 'x' is not floating point",
    ),
    "several inputs": (
        network(helper.make_node("Add", ["x", "x1"], ["h"]), GEMM, inputs=2, w=W),
        "it has several inputs (x, x1)",
        "'h'",
        "it has several inputs (x, x1)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_abilities(name: str) -> None:
    proto, *said = CASES[name]
    found = abilities(load_bytes(proto))
    assert [each.verb for each in found] == ["attack", "analyze", "learn"]
    for each, words in zip(found, said, strict=True):
        assert words in each.how


def test_the_samples() -> None:
    assert all(each.works for each in abilities(load(DIGITS)))
    through = abilities(load_bytes(false_defences.quantised().SerializeToString()))[0]
    assert through.works
    assert through.how.startswith("straight through Round")
    stopped = abilities(load_bytes(false_defences.integers().SerializeToString()))[0]
    assert stopped.works
    assert stopped.how.startswith("by scores alone")
