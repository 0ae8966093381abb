"""Models in ONNX Runtime's blocked layout, as it saves them, against the models that they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import cloakonnx as ck
from cloakonnx.errors import DifferentiationError, TapError
from cloakonnx.gradient.differentiate import differentiate
from cloakonnx.graph.decompose.registry import decompositions
from cloakonnx.graph.index.blocked import NCHWC

SIZE = 12
RNG = np.random.default_rng(0)
Layer = tuple[str, Sequence[str], str, dict[str, Any]]


def conv(x: str, y: str, inputs: int, outputs: int, size: int = 3, *, group: int = 1, **more: Any) -> Layer:
    weights = RNG.normal(size=(outputs, inputs // group, size, size)) * (inputs // group * size**2) ** -0.5
    return "Conv", [x], y, {"weights": weights, "pads": [size // 2] * 4, "group": group, **more}


def resize(x: str, y: str, mode: str, how: str) -> Layer:
    more = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return "Resize", [x, "", "twice"], y, {"mode": mode, "coordinate_transformation_mode": how, **more}


POOLED: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}
NETS: dict[str, tuple[int, list[Layer]]] = {
    "few channels, depthwise, a sum": (
        3,
        [
            conv("x", "a", 3, 12),
            ("Relu", ["a"], "a+", {}),
            ("MaxPool", ["a+"], "p", POOLED),
            conv("p", "d", 12, 12, group=12),
            ("Sigmoid", ["d"], "d+", {}),
            conv("d+", "e", 12, 40, 1),
            conv("d+", "f", 12, 40, 1),
            ("Add", ["e", "f"], "s", {}),
            ("Relu", ["s"], "s+", {}),
            conv("s+", "g", 40, 12),
            ("Concat", ["s+", "g"], "c", {"axis": 1}),
            conv("c", "h", 52, 20, 1),
            ("Clip", ["h", "0", "6"], "h+", {}),
            resize("h+", "u", "nearest", "asymmetric"),
            conv("u", "k", 20, 32),
            ("AveragePool", ["k"], "q", {**POOLED, "pads": [1, 1, 1, 1]}),
            ("GlobalAveragePool", ["q"], "pooled", {}),
        ],
    ),
    "groups, elementwise, linear": (
        16,
        [
            conv("x", "a", 16, 32),
            ("LeakyRelu", ["a"], "a+", {"alpha": 0.1}),
            conv("a+", "b", 32, 32, group=2),
            ("Tanh", ["b"], "b+", {}),
            ("Add", ["b+", "a+"], "s", {}),
            ("Mul", ["s", "b+"], "m", {}),
            resize("m", "u", "linear", "half_pixel"),
            conv("u", "c", 32, 32, strides=[2, 2]),
            ("HardSigmoid", ["c"], "c+", {"alpha": 0.1, "beta": 0.4}),
            ("GlobalMaxPool", ["c+"], "pooled", {}),
        ],
    ),
    "pools first": (
        16,
        [
            ("MaxPool", ["x"], "p", {**POOLED, "pads": [1, 1, 0, 0], "ceil_mode": 1}),
            conv("p", "a", 16, 16),
            ("Concat", ["a", "p"], "c", {"axis": 1}),
            ("AveragePool", ["c"], "q", {**POOLED, "pads": [1, 1, 1, 1], "count_include_pad": 1}),
            conv("q", "b", 32, 10),
            ("GlobalAveragePool", ["b"], "pooled", {}),
        ],
    ),
    "channels last": (
        SIZE,
        [
            ("Transpose", ["x"], "t", {"perm": [0, 3, 1, 2]}),
            conv("t", "a", 16, 16),
            ("Transpose", ["a"], "last", {"perm": [0, 2, 3, 1]}),
            ("MatMul", ["last", "mix"], "l+", {}),
            ("Transpose", ["l+"], "t+", {"perm": [0, 3, 1, 2]}),
            conv("t+", "b", 16, 32),
            ("GlobalAveragePool", ["b"], "pooled", {}),
        ],
    ),
}


def built(name: str) -> onnx.ModelProto:
    channels, layers = NETS[name]
    nodes, constants = [], {"0": np.float32(0), "6": np.float32(6), "twice": np.array([1, 1, 2, 2], np.float32)}
    for op, inputs, output, attributes in layers:
        given, read = dict(attributes), list(inputs)
        if op == "Conv":
            weights = given.pop("weights")
            names = f"{output}/w", f"{output}/b"
            constants |= {names[0]: weights, names[1]: np.linspace(-0.5, 0.5, len(weights))}
            read += names
            given["kernel_shape"] = list(weights.shape[2:])
        nodes.append(helper.make_node(op, read, [output], name=output, **given))
    width = next(len(constants[f"{each[2]}/w"]) for each in reversed(layers) if each[0] == "Conv")
    constants["mix"] = np.random.default_rng(1).normal(size=(16, 16)) / 4
    constants["head"] = np.random.default_rng(1).normal(size=(width, 5)) * 2
    nodes += [helper.make_node("Flatten", ["pooled"], ["row"]), helper.make_node("MatMul", ["row", "head"], ["scores"])]
    shape = ["batch", channels, SIZE, SIZE if name != "channels last" else 16]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.asarray(value, np.float32), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def saved(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a net, and the same as ONNX Runtime saves it for this processor."""
    plain, blocked = folder / "plain.onnx", folder / "blocked.onnx"
    onnx.save(built(name), plain)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(blocked)
    ort.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    if not blocked_ops(blocked):
        pytest.skip("ONNX Runtime has no blocked layout for this processor")
    return plain, blocked


def blocked_ops(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node if node.domain == NCHWC}


def run(model: onnx.ModelProto, feeds: dict[str, Any], outputs: list[str]) -> list[Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(outputs, feeds))


def samples(name: str) -> Any:
    shape = (3, NETS[name][0], SIZE, SIZE if name != "channels last" else 16)
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_the_plain_model(name: str, tmp_path: Path) -> None:
    found = []
    for path in saved(name, tmp_path):
        graph = differentiate(onnx.load(path))
        feeds = {graph.image: samples(name), graph.labels: np.array([0, 1, 2])}
        found.append(run(graph.proto, feeds, [graph.logits, str(graph.loss), graph.gradient]))
    (logits, _, gradient), (same_logits, same_loss, same) = found
    np.testing.assert_allclose(same_logits, logits, rtol=1e-4, atol=1e-5)
    assert np.isfinite(same_loss).all()
    assert np.linalg.norm(gradient) > 1e-3
    assert np.linalg.norm(same - gradient) <= 1e-5 * np.linalg.norm(gradient)


def test_the_nets_have_every_op(tmp_path: Path) -> None:
    found = set()
    for number, name in enumerate(NETS):
        folder = tmp_path / str(number)
        folder.mkdir()
        found |= blocked_ops(saved(name, folder)[1])
    assert found == {each.op for each in decompositions() if each.domain == NCHWC} | {"ReorderInput", "ReorderOutput"}


def test_masks_behind_the_blocks(tmp_path: Path) -> None:
    """A tensor of the plain model that is one here, too, carries the same mask to the same scores."""
    name = "few channels, depthwise, a sum"
    plain, blocked = saved(name, tmp_path)
    tap = next(each for each in ck.taps(blocked) if each.producer == "ReorderOutput")
    assert (tap.name, tap.features, tap.feature_axis) == ("a+", 12, 1)
    weights = np.linspace(0, 1, 12).astype(np.float32)
    scores = []
    for path in (plain, blocked):
        hardened = tmp_path / f"hardened-{path.name}"
        ck.apply(ck.load(path), [ck.Mask("a+", weights)], hardened)
        scores += run(onnx.load(hardened), {"x": samples(name)}, ["scores"])
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)
    clean = run(onnx.load(plain), {"x": samples(name)}, ["scores"])
    assert np.abs(scores[0] - clean[0]).max() > 0.01


def test_features_of_channels_that_come_last(tmp_path: Path) -> None:
    (_, blocked) = saved("channels last", tmp_path)
    (tap,) = [each for each in ck.taps(blocked) if each.name == "last"]
    assert (tap.producer, tap.feature_axis, tap.features) == ("ReorderOutput", 3, 16)


def test_blocks_carry_no_mask(tmp_path: Path) -> None:
    (_, blocked) = saved("few channels, depthwise, a sum", tmp_path)
    model = ck.load(blocked)
    inside = next(node.output[0] for node in model.proto.graph.node if node.op_type == "Conv")
    with pytest.raises(TapError, match=r"blocked layout.*only tensors behind a ReorderOutput"):
        ck.apply(model, [ck.Mask(inside, np.ones(12, np.float32))], tmp_path / "hardened.onnx")


def test_weights_of_unknown_shape() -> None:
    nodes = [
        helper.make_node("ReorderInput", ["x"], ["in"], domain=NCHWC),
        helper.make_node("Conv", ["in", "w"], ["y"], domain=NCHWC, name="open"),
        helper.make_node("ReorderOutput", ["y"], ["out"], domain=NCHWC, channels=16),
        helper.make_node("GlobalAveragePool", ["out"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 16])],
        [],
    )
    graph.initializer.append(numpy_helper.from_array(np.ones((16, 16), np.float32), "w"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(NCHWC, 1)]
    with pytest.raises(DifferentiationError, match=r"nchwc\.Conv \(node 'open'\): the shape of its weights is unknown"):
        differentiate(helper.make_model(graph, opset_imports=opsets, ir_version=9))
