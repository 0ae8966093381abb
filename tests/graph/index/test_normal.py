"""Graphs as exporters write them: nodes in any order, the default domain by its other name, an opset imported twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from cloakonnx.attacks.base import make
from cloakonnx.attacks.victim import Victim
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import load
from cloakonnx.graph.fold.fold import folded
from cloakonnx.graph.index.index import sorted_order
from cloakonnx.graph.index.normal import normalised
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.masks.weights import list_weights
from tests.support.classifiers import cpu

EPS = 0.05
RNG = np.random.default_rng(3)
FIRST, SECOND = RNG.normal(size=(6, 5)).astype(np.float32), RNG.normal(size=(5, 4)).astype(np.float32)
X = RNG.uniform(0.3, 0.7, (60, 6)).astype(np.float32)
WHOLE = FIRST.astype(np.float64) @ SECOND.astype(np.float64)
LOGITS = X.astype(np.float64) @ WHOLE
Y = LOGITS.argmax(axis=1)


def exact() -> int:
    """How many samples no change of at most EPS misleads: the net is linear, and no value leaves [0, 1]."""
    count = 0
    for logits, label in zip(LOGITS, Y, strict=True):
        others = [c for c in range(4) if c != label]
        count += all(logits[label] - logits[c] > EPS * np.abs(WHOLE[:, label] - WHOLE[:, c]).sum() for c in others)
    return count


def net() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["features"], name="one"),
        helper.make_node("Identity", ["features"], ["same"], name="two"),
        helper.make_node("MatMul", ["same", "second"], ["logits"], name="three"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", 6])],
        [helper.make_tensor_value_info("logits", 1, ["n", 4])],
        [numpy_helper.from_array(FIRST, "first"), numpy_helper.from_array(SECOND, "second")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def unsorted() -> onnx.ModelProto:
    proto = net()
    nodes = [proto.graph.node[index] for index in (2, 0, 1)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def named_otherwise() -> onnx.ModelProto:
    proto = net()
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    proto.opset_import[0].domain = "ai.onnx"
    return proto


def imported_twice() -> onnx.ModelProto:
    proto = net()
    proto.opset_import.insert(0, helper.make_opsetid("ai.onnx", 12))
    return proto


MAKERS = [net, unsorted, named_otherwise, imported_twice]


def test_the_net_is_worth_attacking() -> None:
    assert 10 < exact() < 50


@pytest.mark.parametrize("build", MAKERS)
def test_attacks_find_the_exact_number(build: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(build().SerializeToString())
    ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    classifier = cpu(load(path))
    assert (classifier.predict(X) == Y).all()
    attack = make("apgd-t", eps=EPS, norm="linf", seed=0)
    found = attack.run(Victim(classifier), X, Y)
    assert int((classifier.predict(found.x) == Y).sum()) == exact()


@pytest.mark.parametrize("build", MAKERS)
def test_masks_go_in_and_out(build: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    path, output, back = (tmp_path / name for name in ("model.onnx", "hardened.onnx", "back.onnx"))
    path.write_bytes(build().SerializeToString())
    model = load(path)
    assert find_tap(model).name == "same"
    weights = np.array([0, 1, 0.5, 2, 1], np.float32)
    wanted = ((X @ FIRST) * weights) @ SECOND
    kernels = Mask("second", RNG.uniform(0, 2, SECOND.shape), granularity="kernel")
    for masks, scores in (
        ([Mask("features", weights)], wanted),
        ([Mask("features", weights), kernels], ((X @ FIRST) * weights) @ (SECOND * kernels.weights)),
    ):
        harden_file(model, masks, output, force=True)
        np.testing.assert_allclose(cpu(load(output)).scores(X), scores, atol=1e-4)
        strip_file(load(output), back, force=True)
        assert back.read_bytes() == path.read_bytes()
    np.testing.assert_allclose(cpu(folded(model, [Mask("features", weights)])).scores(X), wanted, atol=1e-4)
    names = [place.name for place in list_weights(model)]
    assert names == (["second", "first"] if build is unsorted else ["first", "second"])
    assert not diff(load(path), model)


def test_the_last_import_counts_as_in_onnx_runtime() -> None:
    """Softmax means another axis from opset 13 on, which tells the versions apart."""
    for versions in ((12, 17), (17, 12)):
        graph = helper.make_graph(
            [helper.make_node("Softmax", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", 1, [1, 3, 4])],
            [helper.make_tensor_value_info("y", 1, [1, 3, 4])],
        )
        proto = helper.make_model(graph, ir_version=8)
        del proto.opset_import[:]
        proto.opset_import.extend([helper.make_opsetid("", versions[0]), helper.make_opsetid("ai.onnx", versions[1])])
        x = RNG.normal(size=(1, 3, 4)).astype(np.float32)
        both = [
            ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            for each in (proto, normalised(proto))
        ]
        np.testing.assert_array_equal(*both)
        assert [(each.domain, each.version) for each in normalised(proto).opset_import] == [("", versions[1])]


def test_captures_count() -> None:
    body = helper.make_graph(
        [helper.make_node("Neg", ["later"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    nodes = [
        helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body),
        helper.make_node("Exp", ["x"], ["later"]),
    ]
    assert sorted_order(nodes) == [1, 0]
    assert sorted_order(nodes[::-1]) is None


def test_an_ordinary_model_is_not_copied() -> None:
    proto = net()
    assert normalised(proto) is proto


def test_half_precision_by_onnx_runtimes_converter(tmp_path: Path) -> None:
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    made = float16.convert_float_to_float16(net(), keep_io_types=True)
    path = tmp_path / "half.onnx"
    path.write_bytes(made.SerializeToString())
    classifier = cpu(load(path))
    np.testing.assert_allclose(classifier.scores(X), LOGITS, atol=0.05)
    gradient = classifier.gradient(X, Y, loss="margin")
    assert gradient.shape == X.shape
    assert np.abs(gradient).max() > 0
