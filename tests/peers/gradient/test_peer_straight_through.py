"""Straight-through gradients of quantisation against PyTorch's fake quantisation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from gradient.harness import ort_run
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.gradient.differentiate import differentiate

RNG = np.random.default_rng(7)
X = (RNG.normal(size=(5, 4, 3)) * 3).astype(np.float32)
C = RNG.normal(size=(5, 12)).astype(np.float32)
LIMITS = {np.uint8: (0, 255), np.int8: (-128, 127)}


def quantised(scale: np.ndarray, zero: np.ndarray, axis: int) -> onnx.ModelProto:
    """A model that quantises its input, brings it back, and gives it out flat."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], axis=axis),
        helper.make_node("Flatten", ["d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12])],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 19)])


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("axis", [None, 1, 2])
@pytest.mark.parametrize("at", ["end", "middle"])
def test_fake_quantisation(kind: type, axis: int | None, at: str) -> None:
    """Where the range begins with 0 gradients end with it, as PyTorch's do; else they pass."""
    low, high = LIMITS[kind]
    size = () if axis is None else (X.shape[axis],)
    scale = np.asarray(RNG.uniform(0.01, 0.02, size), np.float32)
    zero = np.full(size, low if at == "end" else (low + high) // 2 + 1, kind)
    graph = differentiate(quantised(scale, zero, axis or 1), loss="cotangent", straight_through=True)
    names = [each.name for each in graph.proto.graph.output]
    found = dict(zip(names, ort_run(graph.proto)({graph.image: X, graph.cotangent or "": C}), strict=True))
    x = torch.tensor(X, requires_grad=True)
    if axis is None:
        y = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), low, high)
    else:
        y = torch.fake_quantize_per_channel_affine(
            x, torch.tensor(scale), torch.tensor(zero.astype(np.int32)), axis, low, high
        )
    (y.reshape(5, 12) * torch.tensor(C)).sum().backward()
    assert x.grad is not None
    wanted = x.grad.numpy() if at == "end" else C.reshape(X.shape)
    assert 0.02 < (x.grad.numpy() == 0).mean() < 0.98
    np.testing.assert_allclose(found[graph.logits], y.detach().numpy().reshape(5, 12), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[graph.gradient], wanted, rtol=1e-5)
