"""Which tensors are taps, which is the default one, and along which axis their features lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from cloakonnx.errors import TapError
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.taps import Tap, find_tap, list_taps
from tests.fixtures.models import FIXTURES, TAP, Fixture, light_models_opset17, manifest, mlp

ASSETS = manifest() or {}
NODES = {
    "conv": helper.make_node("Conv", ["x", "k"], ["conv"]),
    "relu": helper.make_node("Relu", ["conv"], ["relu"]),
}


def loaded(proto: ModelProto) -> list[Tap]:
    return list_taps(load_bytes(proto.SerializeToString()))


def default(proto: ModelProto) -> str | None:
    return next((tap.name for tap in loaded(proto) if tap.is_default), None)


def made(nodes: list[str], weights: dict[str, tuple[int, ...]], shape: list[int | str], opset: int = 17) -> ModelProto:
    """Make a model from lines like ``y = Gemm(x, w) transB=1``; its last tensor is the output."""
    parsed = []
    for line in nodes:
        output, call = line.split(" = ")
        op_type, _, rest = call.partition("(")
        inputs, _, attributes = rest.partition(")")
        values = dict(pair.split("=") for pair in attributes.split())
        numbers = {
            key: [int(v) for v in text.split(",") if v] if "," in text else int(text) for key, text in values.items()
        }
        parsed.append(helper.make_node(op_type, inputs.replace(" ", "").split(","), output.split(","), **numbers))
    initializers = []
    for name, dims in weights.items():
        kind = np.int64 if name.startswith("i_") else np.float32
        values = np.array(dims) if kind == np.int64 else np.ones(dims)
        initializers.append(numpy_helper.from_array(values.astype(kind), name))
    graph = GraphProto(node=parsed, name="g", initializer=initializers)
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info(parsed[-1].output[0], TensorProto.FLOAT, None))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


IMAGE: list[int | str] = ["N", 3, 8, 8]
DEFAULTS = {
    "flattened after pooling": (
        ["c = Conv(x, k)", "p = GlobalAveragePool(c)", "f = Flatten(p)", "y = Gemm(f, w)"],
        {"k": (6, 3, 3, 3), "w": (6, 10)},
        IMAGE,
        ("f", 6),
    ),
    "flattened image: features fall, so before the Flatten": (
        ["c = Conv(x, k)", "r = Relu(c)", "f = Flatten(r)", "y = Gemm(f, w)"],
        {"k": (6, 3, 3, 3), "w": (216, 10)},
        IMAGE,
        ("r", 6),
    ),
    "reshaped image, then cast and dropped out": (
        [
            "c = Conv(x, k)",
            "p = MaxPool(c) kernel_shape=2,2",
            "s = Reshape(p, i_s)",
            "d = Dropout(s)",
            "y = MatMul(d, w)",
        ],
        {"k": (6, 3, 3, 3), "w": (150, 10), "i_s": (-1, 150)},
        IMAGE,
        ("p", 6),
    ),
    "never through pooling": (
        ["c = Conv(x, k)", "p = AveragePool(c) kernel_shape=6,6", "f = Flatten(p)", "y = Gemm(f, w)"],
        {"k": (6, 3, 3, 3), "w": (6, 10)},
        IMAGE,
        ("f", 6),
    ),
    "two dense layers": (
        ["a = Gemm(x, v)", "r = Relu(a)", "y = Gemm(r, w)"],
        {"v": (4, 6), "w": (6, 10)},
        ["N", 4],
        ("r", 6),
    ),
    "softmax and bias after the last dense layer": (
        ["a = Gemm(x, v)", "r = Relu(a)", "m = MatMul(r, w)", "b = Add(m, c)", "y = Softmax(b)"],
        {"v": (4, 6), "w": (6, 10), "c": (10,)},
        ["N", 4],
        ("r", 6),
    ),
    "convolutional head": (
        ["a = Conv(x, k)", "r = Relu(a)", "d = Conv(r, h)", "p = GlobalAveragePool(d)", "y = Flatten(p)"],
        {"k": (6, 3, 3, 3), "h": (10, 6, 1, 1)},
        IMAGE,
        ("r", 6),
    ),
    "attention's MatMul of two computed tensors is no head": (
        ["q = MatMul(x, v)", "a = MatMul(q, q)", "y = Relu(a)"],
        {"v": (6, 6)},
        ["N", 6, 6],
        None,
    ),
    "one layer only": (["y = Gemm(x, w)"], {"w": (4, 10)}, ["N", 4], None),
    "transposed to features last": (
        ["c = Conv(x, k)", "t = Transpose(c) perm=0,2,3,1", "f = Flatten(t)", "y = Gemm(f, w)"],
        {"k": (6, 3, 3, 3), "w": (216, 10)},
        IMAGE,
        ("t", 6),
    ),
    "pooled tokens (N, 32, 1), flattened": (
        [
            "c = Conv(x, k)",
            "s = Reshape(c, i_s)",
            "m = ReduceMean(s) axes=2, keepdims=1",
            "f = Flatten(m)",
            "y = MatMul(f, w)",
        ],
        {"k": (32, 3, 3, 3), "w": (32, 5), "i_s": (-1, 32, 36)},
        IMAGE,
        ("f", 32),
    ),
    "pooled tokens, squeezed": (
        [
            "c = Conv(x, k)",
            "s = Reshape(c, i_s)",
            "m = AveragePool(s) kernel_shape=36,",
            "f = Squeeze(m, i_2)",
            "y = Gemm(f, w)",
        ],
        {"k": (32, 3, 3, 3), "w": (32, 5), "i_s": (0, 32, -1), "i_2": (2,)},
        IMAGE,
        ("f", 32),
    ),
    "pooled tokens, transposed and reshaped": (
        [
            "c = Conv(x, k)",
            "s = Reshape(c, i_s)",
            "m = ReduceMax(s) axes=2, keepdims=1",
            "t = Transpose(m) perm=0,2,1",
            "f = Reshape(t, i_f)",
            "y = Gemm(f, w)",
        ],
        {"k": (32, 3, 3, 3), "w": (32, 5), "i_s": (0, 32, -1), "i_f": (-1, 32)},
        IMAGE,
        ("f", 32),
    ),
    "features last in (N, 1, 1, 8) between two Reshapes": (
        [
            "c = Conv(x, k)",
            "g = GlobalAveragePool(c)",
            "p = Reshape(g, i_p)",
            "f = Reshape(p, i_f)",
            "y = MatMul(f, w)",
        ],
        {"k": (8, 3, 3, 3), "w": (8, 3), "i_p": (-1, 1, 1, 8), "i_f": (-1, 8)},
        IMAGE,
        ("f", 8),
    ),
    "a MatMul contracts the last axis of (N, 1, T, 16)": (
        [
            "c = Conv(x, k)",
            "u = Unsqueeze(c, i_1)",
            "t = Transpose(u) perm=0,1,3,2",
            "p = Mul(t, t)",
            "m = MatMul(p, w)",
            "y = Relu(m)",
        ],
        {"k": (16, 1, 5), "w": (16, 6), "i_1": (1,)},
        ["N", 1, 20],
        ("p", 16),
    ),
    "a Conv reads what an LSTM gave": (
        [
            "t = Transpose(x) perm=1,0,2",
            "Y = LSTM(t, W, R) hidden_size=8",
            "s = Squeeze(Y, i_1)",
            "c = Transpose(s) perm=1,2,0",
            "r = Relu(c)",
            "z = Conv(r, k)",
            "y = ReduceMean(z) axes=2, keepdims=0",
        ],
        {"W": (1, 32, 4), "R": (1, 32, 8), "k": (3, 8, 1), "i_1": (1,)},
        ["N", 5, 4],
        ("r", 8),
    ),
    "one channel in front of a Conv, features before the Unsqueeze": (
        ["m = MatMul(x, v)", "u = Unsqueeze(m, i_1)", "y = Conv(u, k)"],
        {"v": (4, 6), "k": (3, 1, 6), "i_1": (1,)},
        ["N", 4],
        ("m", 6),
    ),
    "one feature is no default": (
        ["h = MatMul(x, v)", "r = Relu(h)", "y = MatMul(r, w)"],
        {"v": (4, 1), "w": (1, 3)},
        ["N", 4],
        None,
    ),
    "weights in front of the data": (
        ["m = MatMul(x, v)", "r = Relu(m)", "y = MatMul(w, r)"],
        {"v": (4, 6), "w": (3, 5)},
        ["N", 5, 4],
        ("r", 5),
    ),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(name: str) -> None:
    nodes, weights, shape, expected = DEFAULTS[name]
    model = made(nodes, weights, shape)
    found = [(tap.name, tap.features) for tap in loaded(model) if tap.is_default]
    assert found == ([] if expected is None else [expected])
    if expected is None:
        with pytest.raises(TapError, match="no default tap"):
            find_tap(load_bytes(model.SerializeToString()))


AXES = {
    "NCHW": (["y = Conv(x, k)"], {"k": (6, 3, 3, 3)}, IMAGE, "y", 1, 6),
    "NCHW after relu, add and batch norm": (
        ["c = Conv(x, k)", "r = Relu(c)", "a = Add(r, c)", "y = BatchNormalization(a, s, s, s, s)"],
        {"k": (6, 3, 3, 3), "s": (6,)},
        IMAGE,
        "y",
        1,
        6,
    ),
    "NHWC": (
        ["t = Transpose(x) perm=0,3,1,2", "c = Conv(t, k)", "y = Transpose(c) perm=0,2,3,1"],
        {"k": (6, 3, 3, 3)},
        ["N", 8, 8, 3],
        "y",
        3,
        6,
    ),
    "NHWC, elementwise after the Transpose": (
        ["t = Transpose(x) perm=0,3,1,2", "c = Conv(t, k)", "l = Transpose(c) perm=0,2,3,1", "y = Relu(l)"],
        {"k": (6, 3, 3, 3)},
        ["N", 8, 8, 3],
        "y",
        3,
        6,
    ),
    "NHWC input": (["y = Relu(x)"], {}, ["N", 8, 8, 3], "y", 3, 3),
    "NCHW input": (["y = Relu(x)"], {}, IMAGE, "y", 1, 3),
    "NTC": (["m = MatMul(x, w)", "y = Relu(m)"], {"w": (4, 6)}, ["N", "T", 4], "y", 2, 6),
    "NTC after a norm": (["y = LayerNormalization(x, s)"], {"s": (6,)}, ["N", 7, 6], "y", 2, 6),
    "NTC to NCT": (
        ["m = MatMul(x, w)", "y = Transpose(m) perm=0,2,1"],
        {"w": (4, 6)},
        ["N", 7, 4],
        "y",
        1,
        6,
    ),
    "NCL": (["c = Conv(x, k)", "y = Relu(c)"], {"k": (6, 2, 3)}, ["N", 2, 9], "y", 1, 6),
    "NCL to NLC": (
        ["c = Conv(x, k)", "y = Transpose(c) perm=0,2,1"],
        {"k": (6, 2, 3)},
        ["N", 2, 9],
        "y",
        2,
        6,
    ),
    "patches of a vision transformer": (
        ["c = Conv(x, k) strides=4,4", "r = Reshape(c, i_s)", "t = Transpose(r) perm=0,2,1", "y = MatMul(t, w)"],
        {"k": (6, 3, 4, 4), "w": (6, 5), "i_s": (0, 6, -1)},
        IMAGE,
        "y",
        2,
        5,
    ),
    "NTC reshaped from NCHW, turned": (
        ["c = Conv(x, k)", "r = Reshape(c, i_s)", "y = Transpose(r) perm=0,2,1"],
        {"k": (6, 3, 3, 3), "i_s": (0, 6, -1)},
        IMAGE,
        "y",
        2,
        6,
    ),
    "(N, 6, 1) from NCHW": (
        ["c = Conv(x, k)", "g = GlobalAveragePool(c)", "y = Squeeze(g, i_3)"],
        {"k": (6, 3, 3, 3), "i_3": (3,)},
        IMAGE,
        "y",
        1,
        6,
    ),
    "(N, 1, 1, 6) from NCHW": (
        ["c = Conv(x, k)", "g = GlobalAveragePool(c)", "y = Reshape(g, i_s)"],
        {"k": (6, 3, 3, 3), "i_s": (-1, 1, 1, 6)},
        IMAGE,
        "y",
        3,
        6,
    ),
    "NF": (["y = Gemm(x, w) transB=1"], {"w": (6, 4)}, ["N", 4], "y", 1, 6),
    "NCDHW": (["y = Conv(x, k)"], {"k": (6, 2, 2, 2, 2)}, ["N", 2, 3, 4, 5], "y", 1, 6),
    "unknown sequence input": (["y = Relu(x)"], {}, ["N", 7, 6], "y", 2, 6),
}


@pytest.mark.parametrize("name", AXES)
def test_feature_axis(name: str) -> None:
    nodes, weights, shape, tensor, axis, features = AXES[name]
    model = load_bytes(made(nodes, weights, shape).SerializeToString())
    tap = find_tap(model, tensor)
    assert (tap.feature_axis, tap.features) == (axis, features)
    rank = len(tap.shape)
    assert len(tap.mask_shape) == rank - axis
    assert tap.mask_shape[0] == -1
    for other in range(1, rank):
        assert find_tap(model, tensor, axis=other).feature_axis == other
        assert find_tap(model, tensor, axis=other - rank).feature_axis == other


@pytest.mark.parametrize("fixture", [pytest.param(each, id=each.name) for each in FIXTURES])
def test_fixtures(fixture: Fixture) -> None:
    taps = {tap.name: tap for tap in loaded(fixture.model)}
    assert taps[fixture.tap].feature_axis == fixture.axis
    assert taps[fixture.tap].features in {fixture.features, None}


def test_what_is_told_of_a_tap() -> None:
    taps = loaded(mlp())
    assert [tap.name for tap in taps] == ["hidden", TAP, "logits"], "in the order of the nodes"
    (tap,) = (each for each in taps if each.is_default)
    assert (tap.name, tap.producer, tap.consumers, tap.node) == (TAP, "Relu", ("Gemm",), 1)
    assert (tap.shape, tap.dtype, tap.feature_axis, tap.features) == (("N", 6), "float32", 1, 6)


def test_consumers_inside_bodies_are_told() -> None:
    fixture = next(each for each in FIXTURES if each.name == "if_only_consumer")
    tap = find_tap(load_bytes(fixture.model.SerializeToString()), TAP)
    assert tap.consumers == ("If",)


def test_a_gemm_tells_rank_and_type_of_its_input() -> None:
    """The outputs of a custom operator and of a Loop are unknown to shape inference; the Gemm behind them is not."""
    for name in ("ml_tap", "tap_from_loop"):
        fixture = next(each for each in FIXTURES if each.name == name)
        tap = find_tap(load_bytes(fixture.model.SerializeToString()))
        assert (tap.name, tap.dtype, len(tap.shape), tap.features) == (TAP, "float32", 2, 6)


@pytest.mark.parametrize("fixture", [pytest.param(each, id=each.name) for each in FIXTURES if each.runs_in_ort])
def test_a_run_has_the_shapes_that_are_told(fixture: Fixture) -> None:
    taps = [tap for tap in loaded(fixture.model) if not tap.name.startswith("features_")]
    proto = ModelProto.FromString(fixture.model.SerializeToString())
    outputs = {output.name for output in proto.graph.output}
    proto.graph.output.extend(helper.ValueInfoProto(name=tap.name) for tap in taps if tap.name not in outputs)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for tap, value in zip(taps, session.run([tap.name for tap in taps], fixture.feed), strict=True):
        assert isinstance(value, np.ndarray)
        assert value.ndim == len(tap.shape)
        told = [(size, real) for size, real in zip(tap.shape, value.shape, strict=True) if isinstance(size, int)]
        assert all(size == real for size, real in told)
        assert value.dtype.name == tap.dtype


LIGHT = {
    "light_bvlc_alexnet": 4096,
    "light_densenet121": 1024,
    "light_inception_v1": 1024,
    "light_inception_v2": 1024,
    "light_resnet50": 2048,
    "light_shufflenet": 544,
    "light_squeezenet": 512,
    "light_vgg19": 4096,
    "light_zfnet512": 1024,
}


def test_light_models() -> None:
    """The published widths of their last feature layers (the light ZFNet is narrower than the paper's)."""
    found = {}
    for name, proto in light_models_opset17():
        tap = find_tap(load_bytes(proto.SerializeToString()))
        found[name] = tap.features
        assert tap.feature_axis == 1
    assert found == LIGHT


@pytest.mark.skipif(not ASSETS, reason="no assets: $CLOAKONNX_ASSETS or ../shared/assets")
@pytest.mark.parametrize("name", ASSETS)
def test_assets(name: str) -> None:
    asset = ASSETS[name]
    tap = find_tap(load(Path(asset.path)))
    assert (tap.name, tap.features, tap.feature_axis) == (asset.tap, asset.features, 1)
