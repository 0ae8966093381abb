"""ONNX Runtime's quantised ops with their channels last: shapes, the feature axis and masks there are the runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap

X = np.random.default_rng(0).random((2, 6, 5, 3)).astype(np.float32)
CONSTANTS: dict[str, Any] = {
    "scale": np.float32(1 / 255),
    "zero": np.uint8(0),
    "kernel": np.random.default_rng(1).integers(0, 255, (7, 3, 2, 2)).astype(np.uint8),
}
SCALED = ["scale", "zero"]
NODES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "QLinearAveragePool": (["q", *SCALED, *SCALED], {"kernel_shape": [2, 2], "strides": [2, 1]}),
    "QLinearGlobalAveragePool": (["q", *SCALED, *SCALED], {}),
    "QLinearConv": (["q", *SCALED, "kernel", *SCALED, *SCALED], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 0]}),
}


def model(op: str) -> ModelProto:
    """Make a model of one op on pixels (N, 6, 5, 3); its output is the mean of each channel."""
    inputs, attributes = NODES[op]
    nodes: list[NodeProto] = [
        helper.make_node("QuantizeLinear", ["x", *SCALED], ["q"]),
        helper.make_node(op, inputs, ["pooled"], domain="com.microsoft", channels_last=1, **attributes),
        helper.make_node("DequantizeLinear", ["pooled", *SCALED], ["y"]),
        helper.make_node("ReduceMean", ["y"], ["scores"], axes=[1, 2], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "channels-last",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *X.shape[1:]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 7 if op == "QLinearConv" else 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(path: Path, *names: str) -> list[Any]:
    proto = load(path).proto
    del proto.graph.output[1:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": X}))


@pytest.mark.parametrize("op", NODES)
def test_shapes_and_masks(op: str, tmp_path: Path) -> None:
    path, hardened = tmp_path / "m.onnx", tmp_path / "h.onnx"
    path.write_bytes(model(op).SerializeToString())
    before, y = run(path, "y")
    tap = find_tap(load_bytes(path.read_bytes()), "y")
    assert tap.shape[1:] == y.shape[1:]
    assert (tap.feature_axis, tap.features) == (3, y.shape[3])
    weights = np.ones(y.shape[3], np.float32)
    weights[1] = 0
    harden_file(load(path), [Mask("y", weights)], hardened)
    (after,) = run(hardened)
    np.testing.assert_allclose(after, before * weights, rtol=1e-6)
    assert before[:, 1].min() > 0
