"""What can be done with a model, by its graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.classifier.abilities import abilities
from cloakonnx.errors import TapError
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.selection.learn.places import first_masks
from tests.attacks.helpers import DIGITS
from tests.fixtures import false_defences, kinds

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
    "training mode": (
        network(
            helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["h", "m1", "v1"], training_mode=1),
            GEMM,
            w=W,
            **dict.fromkeys("sbmv", np.ones(4, np.float32)),
        ),
        "it is in training mode",
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
        "it has several inputs (x, x1), and one takes samples: make the others constants",
        "it has several inputs (x, x1), and one takes samples: make the others constants",
        "it has several inputs (x, x1), and one takes samples: make the others constants",
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


def test_a_model_without_the_default_domain() -> None:
    """It has no Mul for a mask; with the import that the message names, the same tap carries one."""
    proto = kinds.scaled_linear().proto
    domains = list(proto.opset_import)
    del proto.opset_import[:]
    proto.opset_import.extend(each for each in domains if each.domain)
    attack, analyze, learn = abilities(load_bytes(proto.SerializeToString()))
    assert attack.works
    assert not analyze.works
    assert not learn.works
    assert "imports the domain 'ai.onnx.ml' alone" in analyze.how
    proto.opset_import.append(helper.make_opsetid("", 13))
    assert all(each.works for each in abilities(load_bytes(proto.SerializeToString())))


def test_what_learn_says_of_linear_models() -> None:
    """The tap that it names works; where no tensor carries a mask, it says that."""
    model = load_bytes(kinds.scaled_linear().proto.SerializeToString())
    with pytest.raises(TapError, match=r"\(--tap x puts masks at the features that it reads\)"):
        first_masks(model, "weight")
    assert [mask.tap for mask in first_masks(model, "feature", taps=["x"])] == ["x"]
    proto, *_ = CASES["a linear model"]
    with pytest.raises(TapError, match=r"no other tensor of it can carry a mask either .*but not hardened"):
        first_masks(load_bytes(proto), "weight")
