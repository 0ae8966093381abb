"""The real models, run by torch functions in float64, and onnx-ad as a second oracle."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_torch
import pytest
import torch
from gradient.harness import ort_run, outputs
from networks import NETWORKS, build
from test_peer_networks import error, export
from torch.nn.functional import cross_entropy

from cloakonnx.gradient.differentiate import differentiate

Array = np.ndarray[Any, Any]
ASSETS = Path(os.environ.get("CLOAKONNX_ASSETS", Path(__file__).parents[3] / ".." / "shared" / "assets"))
MODELS = {
    "cifar10_resnet20": ("cifar10_test600", 1.0),
    "cifar10_resnet20_dynamo": ("cifar10_test600", 1.0),
    "cifar10_resnet20_raw": ("cifar10_test600", 2.0),
    "cifar10_resnet56": ("cifar10_test600", 1.0),
    "mnist_cnn_raw": ("mnist_test5000", 3.0),
    "mnist_cntk_ir3": ("mnist_test5000", 255.0),
    "text_direction_rapidocr": ("", 1.0),
}


def images(data: str, top: float, count: int) -> Array:
    if not data:
        return np.random.default_rng(0).normal(size=(count, 3, 48, 192)).astype(np.float32)
    with np.load(ASSETS / "data" / f"{data}.npz") as file:
        x = file["x"][:count]
    x = x[..., None] if x.ndim == 3 else x
    return (x.transpose(0, 3, 1, 2) / 255 * top).astype(np.float32)


def by_torch(model: onnx.ModelProto, x: Array, y: Array, dtype: torch.dtype, *, softmax: bool) -> Array:
    live = torch.from_numpy(x).to(dtype).requires_grad_()
    weights = {t.name for t in model.graph.initializer}
    name = next(v.name for v in model.graph.input if v.name not in weights)
    z = onnx_torch.run(model, {name: live}, dtype)[model.graph.output[0].name].reshape(len(x), -1)
    cross_entropy(torch.log(z) if softmax else z, torch.from_numpy(y), reduction="sum").backward()
    return live.grad.double().numpy()


def beside_kinks(found: Array, exact: Array, gradient: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    """Return the exact gradients, of an image on a kink the one of the side that float32 took.

    Where an activation lies on the kink of a Relu, rounding decides the side, and the gradient jumps by far more than
    rounding does. Which image this is depends on the processor. The exact gradient a rounding away has the other side.
    """
    sides, rng = exact.copy(), np.random.default_rng(1)
    for i in range(len(x)):
        for _ in range(8):
            if error(found[i], sides[i]) <= 1e-5:
                break
            shifted = x[i : i + 1] + 1e-6 * x[i].std() * rng.normal(size=x[i : i + 1].shape)
            side = gradient(shifted, y[i : i + 1])[0]
            sides[i] = min(sides[i], side, key=lambda each: error(found[i], each))
    return sides


@pytest.mark.parametrize("name", list(MODELS))
def test_model(name: str) -> None:
    path = ASSETS / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"the asset {name}.onnx is not here; set CLOAKONNX_ASSETS")
    model = onnx.load(path)
    data, top = MODELS[name]
    x = images(data, top, 1 if "cntk" in name else 16)
    graph = differentiate(model)
    feeds = {graph.image: x, graph.labels: np.zeros(len(x), np.int64)}
    logits = outputs(graph, feeds)[graph.logits]
    y = (logits.argmax(1) + 1) % graph.classes  # wrong labels: no gradient vanishes
    found = outputs(graph, feeds | {graph.labels: y})[graph.gradient]
    plain = onnx.version_converter.convert_version(model, 18) if model.opset_import[0].version < 13 else model
    softmax = graph.stripped == "Softmax"
    by = partial(by_torch, plain, softmax=softmax)
    exact, narrow = (by(x, y, dtype=dtype) for dtype in (torch.float64, torch.float32))
    exact = beside_kinks(found, exact, partial(by, dtype=torch.float64), x, y)
    assert error(found, exact) <= max(1e-5, 2 * error(narrow, exact))


@pytest.mark.parametrize("name", ["vgg", "mobilenet_v2", "densenet", "efficientnet"])
def test_onnx_ad_agrees(name: str) -> None:
    onnx_ad = pytest.importorskip("onnx_ad")
    model = export(build(NETWORKS[name]), torch.rand(2, 3, 32, 32), False)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model = onnx.shape_inference.infer_shapes(model)
    graph = differentiate(model, loss="cotangent")
    rng = np.random.default_rng(0)
    x, c = rng.uniform(size=(2, 3, 32, 32)).astype(np.float32), rng.normal(size=(2, 10)).astype(np.float32)
    ours = ort_run(graph.proto)({graph.image: x, graph.cotangent or "": c})[-1]
    other = onnx_ad.reverse(model, layout="onnx")
    names = [v.name for v in other.graph.input]
    theirs = ort_run(other)({names[0]: x, names[-1]: c[..., None]})[-1]
    assert error(ours, theirs.reshape(x.shape).astype(np.float64)) <= 1e-5
