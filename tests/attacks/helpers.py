"""Classifiers to attack: the committed sample model on digits, and small networks of every kind of input and output."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from tests.fixtures.real import Asset

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "samples" / "digits_cnn.onnx"
CPU = choose_provider("cpu")

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@cache
def digits_arrays() -> tuple[Images, Labels]:
    """Return the sample's test images (N, 1, 8, 8) and labels."""
    spec = importlib.util.spec_from_file_location("samples_digits", ROOT / "samples" / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y = module.test_arrays()
    return x, y


def digits(count: int) -> tuple[Victim, Images, Labels]:
    """Return the sample classifier with the first images."""
    x, y = digits_arrays()
    return victim_of(load(DIGITS)), x[:count], y[:count]


def victim_of(loaded: Model, *, sample_shape: tuple[int, ...] | None = None, **options: Any) -> Victim:
    """Return a classifier under attack, on the CPU; ``options`` are the classifier's."""
    classifier = Classifier(loaded, provider=CPU, **options)
    classifier.prepare(sample_shape)
    return Victim(classifier)


def victim(made: onnx.ModelProto, **options: Any) -> Victim:
    """Return a classifier under attack."""
    return victim_of(load_bytes(made.SerializeToString()), **options)


def asset_victim(asset: Asset) -> Victim:
    """Return a real model, fed with pixels."""
    entry = Preprocessing(scale=asset.scale, mean=asset.mean, std=asset.std)
    return victim_of(load(asset.path), preprocessing=entry, sample_shape=asset.shape)


def asset_pixels(asset: Asset, count: int) -> Images:
    """Return a real model's first images as pixels (N, C, H, W)."""
    x = np.divide(asset.images(count), np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    shape: list[int | str],
    classes: int,
    *,
    elem_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a model from ``x`` to ``scores``, opset 17."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", elem_type, shape)],
        [helper.make_tensor_value_info("scores", elem_type, [shape[0], classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def flat(classes: int, *, dtype: Any = np.float32, final: str | None = None, features: int = 12) -> onnx.ModelProto:
    """Return Gemm, Relu, Gemm on (N, features), with a final activation or without."""
    rng = np.random.default_rng(classes)
    weights = {
        "w1": (rng.normal(size=(features, 16)) / 2).astype(dtype),
        "b1": rng.normal(size=16).astype(dtype),
        "w2": rng.normal(size=(16, classes)).astype(dtype),
    }
    if classes == 1:  # so that both signs come up
        weights["w2"] -= weights["w2"].mean()
    last = "scores" if final is None else "logits"
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], [last]),
    ]
    if final is not None:
        nodes.append(helper.make_node(final, [last], ["scores"]))
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return model(nodes, weights, ["N", features], classes, elem_type=elem_type)


def convolution(*, nhwc: bool, classes: int = 5) -> onnx.ModelProto:
    """Return Conv, Relu, mean, Gemm on (N, 3, 8, 8), or the same network on (N, 8, 8, 3)."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "head": rng.normal(size=(8, classes)).astype(np.float32) * 3,
    }
    nodes = [
        helper.make_node("Conv", ["image" if nhwc else "x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "head"], ["scores"]),
    ]
    if nhwc:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["image"], perm=[0, 3, 1, 2]))
    return model(nodes, weights, ["N", 8, 8, 3] if nhwc else ["N", 3, 8, 8], classes)
