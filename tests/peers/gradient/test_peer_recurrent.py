"""Recurrent networks, attention and sampling as torch exports them, against torch's own gradients."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from gradient.harness import outputs
from torch import nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, scaled_dot_product_attention

from cloakonnx.gradient.differentiate import differentiate

STEPS, WIDTH, CLASSES = 6, 5, 3


class Recurrent(nn.Module):
    """A recurrent layer, and a linear one on its last state."""

    def __init__(self, kind: type[nn.RNNBase], **settings: object) -> None:
        super().__init__()
        self.layer = kind(WIDTH, 7, batch_first=True, **settings)
        self.head = nn.Linear(7 * (2 if self.layer.bidirectional else 1), CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Attending(nn.Module):
    """Self-attention with a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(WIDTH, 24), nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(x).reshape(-1, STEPS, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v)
        return self.head(y.transpose(1, 2).flatten(2).mean(1))


class Turning(nn.Module):
    """A spatial transformer: an image sampled where the image itself says."""

    def __init__(self) -> None:
        super().__init__()
        self.where, self.head = nn.Linear(36, 6), nn.Linear(36, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.flatten(1)[:, :25].reshape(-1, 1, 5, 5)
        image = nn.functional.pad(image, (0, 1, 0, 1))
        theta = self.where(image.flatten(1)).reshape(-1, 2, 3) * 0.3 + torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        grid = affine_grid(theta, [int(x.shape[0]), 1, 6, 6], align_corners=False)
        return self.head(grid_sample(image, grid, align_corners=False).flatten(1))


NETS = {
    "LSTM": lambda: Recurrent(nn.LSTM),
    "LSTM both ways": lambda: Recurrent(nn.LSTM, bidirectional=True, num_layers=2),
    "GRU": lambda: Recurrent(nn.GRU),
    "GRU both ways": lambda: Recurrent(nn.GRU, bidirectional=True),
    "RNN": lambda: Recurrent(nn.RNN),
    "RNN relu": lambda: Recurrent(nn.RNN, nonlinearity="relu"),
    "attention": Attending,
    "spatial transformer": Turning,
}
DYNAMO = {"attention": 23, "spatial transformer": 20, "LSTM": 18, "GRU": 18}
"""Nets that torch's dynamo exporter takes, and the opset that it is asked for."""


def exported(net: nn.Module, x: torch.Tensor, opset: int | None) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if opset is not None:
            pytest.importorskip("onnxscript")
            program = torch.onnx.export(net, (x,), dynamo=True, verbose=False, opset_version=opset)
            return program.model_proto
        file = io.BytesIO()
        torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    return onnx.load_from_string(file.getvalue())


CASES = [(name, None) for name in NETS if name != "spatial transformer"] + list(DYNAMO.items())


@pytest.mark.parametrize(("name", "opset"), CASES, ids=[f"{n} {o or 'torchscript'}" for n, o in CASES])
def test_gradient(name: str, opset: int | None) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    x, y = torch.rand(3, STEPS, WIDTH), torch.tensor([0, 1, 2])
    model = exported(net, x, opset)
    live = x.double().requires_grad_()
    cross_entropy(net.double()(live), y, reduction="sum").backward()
    exact = live.grad.numpy()
    graph = differentiate(model)
    found = outputs(graph, {graph.image: x.numpy(), graph.labels: y.numpy()})[graph.gradient]
    assert np.linalg.norm(found - exact) <= 1e-5 * np.linalg.norm(exact)
