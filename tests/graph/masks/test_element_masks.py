"""Masks with one weight for every element of a sample: one Mul node, there and back to the byte."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from cloakonnx.errors import MaskError
from cloakonnx.graph.file.edit import canonical_buffer, edit_bytes, joined
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.harden import hardened, plan
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.strip import read_masks, reinserted
from cloakonnx.graph.masks.taps import activation_taps
from tests.graph.helpers import stripped_bytes


def made(rank: int = 4, ir_version: int = 8) -> bytes:
    """x -> Relu -> h -> Sigmoid -> y, of rank 3 or 4; rank 3 has its features last, after a MatMul."""
    shape = ["N", 3, 4, 5] if rank == 4 else ["N", 4, 5]
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sigmoid", ["h"], ["y"])]
    weights = []
    if rank == 3:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), nodes[1]]
        weights = [onnx.numpy_helper.from_array(np.eye(5, dtype=np.float32), "w")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=opset).SerializeToString()


@pytest.mark.parametrize(("rank", "ir_version"), [(4, 8), (3, 8), (4, 3)])
def test_there_and_back(rank: int, ir_version: int) -> None:
    source = load_bytes(made(rank, ir_version))
    shape = (3, 4, 5) if rank == 4 else (4, 5)
    rng = np.random.default_rng(0)
    weights = rng.random(shape).astype(np.float32)
    mask = Mask("h", weights)
    file = joined(source.buf, edit_bytes(canonical_buffer(source), plan(source, [mask])))
    masked = load_bytes(file)
    assert [n.op_type for n in masked.proto.graph.node].count("Mul") == 1
    (again,) = read_masks(masked)
    assert np.array_equal(again.weights, weights)
    assert reinserted(masked).proto == masked.proto
    assert stripped_bytes(masked) == made(rank, ir_version)
    x = rng.normal(0, 1, (2, *shape)).astype(np.float32)
    (found,) = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    before = np.maximum(x, 0) if rank == 4 else x
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-before * weights)), rtol=1e-6)


def test_an_element_mask_of_a_tap_of_one_position_is_a_mask_of_its_features() -> None:
    source = load_bytes(made())
    with pytest.raises(MaskError, match=r"shape \(3, 1, 1\), but a sample of it has \(3, 4, 5\)"):
        hardened(source, [Mask("h", np.ones((3, 1, 1), np.float32))])


def test_an_open_size_is_refused() -> None:
    proto = onnx.ModelProto.FromString(made())
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "H"
    source = load_bytes(proto.SerializeToString())
    with pytest.raises(MaskError, match=r"a sample of it has \(3, open, 5\)"):
        hardened(source, [Mask("h", np.ones((3, 4, 5), np.float32))])


def test_activations_that_feed_linear_layers() -> None:
    """Followed back through pools, sums and constant factors; gates are products; not the last activation."""
    constant = onnx.numpy_helper.from_array
    weights = [
        constant(np.ones((3, 3, 1, 1), np.float32), "w"),
        constant(np.ones((3, 4), np.float32), "head"),
        constant(np.float32(0.5), "half"),
        constant(np.ones(4, np.float32), "scale"),
        constant(np.ones((4, 2), np.float32), "last"),
    ]
    steps = [
        ("Conv", ["x", "w"], "a"),
        ("Relu", ["a"], "relu"),
        ("Sigmoid", ["a"], "sigmoid"),
        ("Mul", ["a", "sigmoid"], "silu"),
        ("Mul", ["silu", "half"], "halved"),
        ("Add", ["relu", "halved"], "sum"),
        ("Conv", ["sum", "w"], "b"),
        ("Add", ["b", "relu"], "residual"),
        ("Relu", ["residual"], "top"),
        ("GlobalAveragePool", ["top"], "pooled"),
        ("Flatten", ["pooled"], "flat"),
        ("Gemm", ["flat", "head"], "c"),
        ("LayerNormalization", ["c", "scale"], "normal"),
        ("MatMul", ["normal", "last"], "d"),
        ("Tanh", ["d"], "y"),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output]) for op, inputs, output in steps],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        weights,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    taps = activation_taps(load_bytes(model.SerializeToString()))
    assert [tap.name for tap in taps] == ["relu", "silu", "top", "normal"]
