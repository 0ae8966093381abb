"""Whole networks, exported by both of torch's exporters, against the networks themselves in float64."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from gradient.harness import ort_run, outputs
from networks import NETWORKS, build
from torch import nn
from torch.nn.functional import cross_entropy

from cloakonnx.gradient.differentiate import differentiate
from cloakonnx.preprocessing import Preprocessing

Array = np.ndarray[Any, Any]


def export(net: nn.Module, x: torch.Tensor, dynamo: bool) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            pytest.importorskip("onnxscript")
            shapes = ({0: torch.export.Dim("N")},)
            program = torch.onnx.export(net, (x,), dynamo=True, verbose=False, dynamic_shapes=shapes)
            return program.model_proto
        file = io.BytesIO()
        axes = {"x": {0: "N"}}
        torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes)
    return onnx.load_from_string(file.getvalue())


def by_torch(net: nn.Module, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> Array:
    live = x.to(dtype).detach().clone().requires_grad_()
    cross_entropy(copy.deepcopy(net).to(dtype)(live), y, reduction="sum").backward()
    return live.grad.double().numpy()


def error(found: Array, exact: Array) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_network(name: str, dynamo: bool) -> None:
    net = build(NETWORKS[name])
    model = export(net, torch.rand(2, 3, 32, 32), dynamo)
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([1, 2, 3, 0])
    exact, narrow = (by_torch(net, x, y, dtype) for dtype in (torch.float64, torch.float32))
    allowed = max(1e-5, 2 * error(narrow, exact))
    for provider in ("cpu", "cuda"):
        graph = differentiate(model, provider=provider)
        onnx.checker.check_model(graph.proto, full_check=True)
        found = outputs(graph, {graph.image: x.numpy(), graph.labels: y.numpy()})
        assert error(found[graph.gradient], exact) <= allowed
        np.testing.assert_allclose(found[graph.logits], net(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_preprocessing_is_differentiated() -> None:
    net = build(NETWORKS["resnet18"])
    model = export(net, torch.rand(2, 3, 32, 32), False)
    how = Preprocessing(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(3, 1, 1) for v in (how.mean, how.std))
    pixels, y = torch.randint(0, 256, (2, 3, 32, 32)).double().requires_grad_(), torch.tensor([4, 5])
    wide = copy.deepcopy(net).double()
    cross_entropy(wide((pixels / 255 - mean) / std), y, reduction="sum").backward()
    graph = differentiate(model, preprocessing=how)
    feeds = {graph.image: pixels.detach().float().numpy(), graph.labels or "": y.numpy()}
    assert error(ort_run(graph.proto)(feeds)[-1], pixels.grad.numpy()) <= 1e-5
