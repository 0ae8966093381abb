"""Gradients by masks on channels are those that the weight's own gradient gives, and take no gradient by the weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cloakonnx.gradient._channels import LEAST
from cloakonnx.gradient.differentiate import GradientGraph, differentiate
from cloakonnx.graph.masks.weights import WeightMask

from .harness import evaluator, ort_run

CLASSES, BATCH = 3, 2


@dataclass(frozen=True)
class Layer:
    """A convolution between a first one and a head.

    Attributes:
        op: Conv or ConvTranspose.
        group: Its groups; channels are twice as many, or as many where ``depthwise``.
        tail: What follows: nothing, a Relu, or a residual Add and a Relu.
    """

    op: str = "Conv"
    group: int = 1
    depthwise: bool = False
    stride: int = 1
    dilation: int = 1
    kernel: int = 3
    bias: bool = True
    tail: str = "relu"
    seed: int = 0


def model(layer: Layer, dtype: type = np.float64) -> onnx.ModelProto:
    rng = np.random.default_rng(layer.seed)
    wide = layer.group * (1 if layer.depthwise else 2)
    pad = layer.dilation * (layer.kernel // 2)
    weights = {
        "first.weight": rng.normal(size=(wide, 2, 1, 1)),
        "w": rng.normal(size=(wide, wide // layer.group, layer.kernel, layer.kernel)),
        "b": rng.normal(size=wide),
        "fc": rng.normal(size=(wide, CLASSES)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first.weight"], ["c0"]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node(
            layer.op,
            ["r0", "w", *(["b"] if layer.bias else [])],
            ["c"],
            group=layer.group,
            strides=[layer.stride] * 2,
            dilations=[layer.dilation] * 2,
            pads=[pad] * 4,
        ),
    ]
    last = "c"
    if layer.tail == "add":
        nodes += [helper.make_node("Add", ["r0", "c"], ["sum"]), helper.make_node("Relu", ["sum"], ["r"])]
        last = "r"
    elif layer.tail == "relu":
        nodes.append(helper.make_node("Relu", ["c"], ["r"]))
        last = "r"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["n", 2, 5, 6])],
        [helper.make_tensor_value_info("y", kind, ["n", CLASSES])],
        [
            numpy_helper.from_array(value.astype(dtype), name)
            for name, value in weights.items()
            if name != "b" or layer.bias
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def masks_of(proto: onnx.ModelProto, names: tuple[str, ...] = ("first.weight", "w")) -> dict[str, WeightMask]:
    shapes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    found = {}
    for name in names:
        out, inner = shapes[name][:2]
        found[f"{name} 0"] = WeightMask(name, (out, 1, 1, 1))
        found[f"{name} 1"] = WeightMask(name, (1, inner, 1, 1))
    return found


def gradients(graph: GradientGraph, values: dict[str, NDArray], seed: int = 0) -> tuple[dict[str, NDArray], NDArray]:
    """Return the gradient by each mask at values of the masks, and the losses."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    for tensor in proto.graph.initializer:
        for key, name in graph.weight_masks.items():
            if tensor.name == name:
                kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.raw_data = values[key].astype(kind).reshape(tuple(tensor.dims)).tobytes()
    is_double = proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    rng = np.random.default_rng(seed)
    x = rng.random((BATCH, 2, 5, 6)).astype(np.float64 if is_double else np.float32)
    run = (evaluator if is_double else ort_run)(proto)  # ONNX Runtime has no convolutions of float64
    results = run({graph.image: x, str(graph.labels): rng.integers(0, CLASSES, BATCH)})
    found = dict(zip([output.name for output in proto.graph.output], results, strict=True))
    return {key: found[name] for key, name in graph.mask_gradients.items()}, found[str(graph.loss)]


def values_of(masks: dict[str, WeightMask], seed: int = 1) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed)
    return {key: rng.uniform(0.3, 1.7, mask.shape) for key, mask in masks.items()}


@contextmanager
def by_the_weight() -> Iterator[None]:
    """Take gradients by the weight, as for other masks."""
    with patch("cloakonnx.gradient._forward.channel_axes", lambda index, masks: []):
        yield


def built(proto: onnx.ModelProto, masks: dict[str, WeightMask]) -> GradientGraph:
    return differentiate(proto, weight_masks=masks, mask_gradients=True, input_shape=[None, 2, 5, 6])


def products(graph: GradientGraph) -> int:
    return sum(node.op_type in {"Conv", "ConvTranspose", "MatMul"} for node in graph.proto.graph.node)


layers = st.builds(
    Layer,
    op=st.sampled_from(["Conv", "ConvTranspose"]),
    group=st.sampled_from([1, 2, 3]),
    depthwise=st.booleans(),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 3]),
    bias=st.booleans(),
    tail=st.sampled_from(["", "relu"]),
    seed=st.integers(0, 100),
)


@settings(deadline=None, max_examples=30)
@given(layers)
def test_as_by_the_weight(layer: Layer) -> None:
    proto = model(layer)
    masks = masks_of(proto)
    values = values_of(masks)
    graph = built(proto, masks)
    with by_the_weight():
        other = built(proto, masks)
    found, wanted = gradients(graph, values)[0], gradients(other, values)[0]
    for key in masks:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-9, atol=1e-11)
    assert products(graph) < products(other)


@pytest.mark.parametrize("tail", ["relu", "add"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_behind_a_residual_sum(tail: str, dtype: type) -> None:
    """The Relu behind stands in for the convolution's output, which stays fused."""
    proto = model(Layer(tail=tail, group=4), dtype)
    masks = masks_of(proto)
    graph = built(proto, masks)
    with by_the_weight():
        other = built(proto, masks)
    values = values_of(masks)
    found, wanted = gradients(graph, values)[0], gradients(other, values)[0]
    exact = dtype == np.float64
    for key in masks:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-9 if exact else 1e-4, atol=1e-11 if exact else 1e-5)
    readers = [node.op_type for node in graph.proto.graph.node if "c" in node.input]
    assert readers == ["Add" if tail == "add" else "Relu"]


def test_finite_differences() -> None:
    proto = model(Layer(group=2, tail="add"))
    masks = masks_of(proto)
    values, graph, step = values_of(masks), built(proto, masks), 1e-6
    found = gradients(graph, values)[0]
    for key, mask in values.items():
        for place in np.ndindex(mask.shape):
            around = []
            for sign in (1, -1):
                moved = mask.copy()
                moved[place] += sign * step
                around.append(gradients(graph, values | {key: moved})[1].sum())
            assert found[key][place] == pytest.approx((around[0] - around[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_channels_at_0(dtype: type) -> None:
    """The gradient is there as well: how the loss grows when the channel comes back."""
    proto = model(Layer(tail="add"), dtype)
    masks = masks_of(proto)
    values = values_of(masks)
    for mask in values.values():
        mask.reshape(-1)[0] = 0
    graph = built(proto, masks)
    with by_the_weight():
        other = built(proto, masks)
    found, (wanted, losses) = gradients(graph, values)[0], gradients(other, values)
    for key in masks:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-3, atol=1e-4)
    assert max(np.abs(found[key].reshape(-1)[0]) for key in masks) > 1e-3
    np.testing.assert_allclose(gradients(graph, values)[1], losses, rtol=1e2 * LEAST)


def test_where_the_weight_is_needed() -> None:
    """A kernel's mask, a weight that two layers read, masks that are only applied."""
    proto = model(Layer())
    kernels = {"w": WeightMask("w", (2, 2, 1, 1))}
    assert products(built(proto, kernels)) == products(built(proto, {"w": WeightMask("w", (2, 2, 3, 3))}))
    plain = differentiate(proto, weight_masks=masks_of(proto), mask_gradients=False, input_shape=[None, 2, 5, 6])
    assert not any(node.output[0].startswith("weights/Max") for node in plain.proto.graph.node)
    shared = model(Layer(bias=False, tail=""))
    shared.graph.node.insert(3, helper.make_node("Conv", ["r0", "w"], ["c2"], pads=[1] * 4))
    shared.graph.node.insert(4, helper.make_node("Add", ["c", "c2"], ["both"]))
    next(node for node in shared.graph.node if node.op_type == "GlobalAveragePool").input[0] = "both"
    masks = masks_of(shared, ("w",))
    values = values_of(masks)
    found = gradients(built(shared, masks), values)[0]
    with by_the_weight():
        wanted = gradients(built(shared, masks), values)[0]
    for key in masks:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-12)
