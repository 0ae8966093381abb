"""The CIFAR ResNets as a PyTorch user has them, with the weights of cifar10_resnet20.onnx and its like."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions (batch norm folded into them, as in the exported file) and a parameter-free shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.padding = (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu_(out + x)


class ResNet(nn.Module):
    """He et al., arXiv 1512.03385, section 4.2, for pixels in [0, 1]: normalisation is inside.

    Args:
        blocks: In each of the three stages: 3 make the ResNet-20, 9 the ResNet-56.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.relu = nn.ReLU()
        self.layers = nn.Sequential(
            *(Block(16, 16) for _ in range(blocks)),
            Block(16, 32),
            *(Block(32, 32) for _ in range(blocks - 1)),
            Block(32, 64),
            *(Block(64, 64) for _ in range(blocks - 1)),
        )
        self.pool = nn.AvgPool2d(8)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.conv1((x - self.mean) / self.std))
        out = self.linear(self.flatten(self.pool(self.layers(out))))
        assert isinstance(out, Tensor)
        return out


def from_onnx(path: Path) -> ResNet:
    """Return the network with an exported file's weights: convolutions and the Gemm in their order, mean and std."""
    graph = onnx.load(path).graph
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constants = {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    nodes = [n for n in graph.node if n.op_type in {"Conv", "Gemm"}]
    net = ResNet(blocks=(len(nodes) - 2) // 6)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for node, layer in zip(nodes, layers, strict=True):
            layer.weight.copy_(torch.tensor(weights[node.input[1]]))
            assert layer.bias is not None
            layer.bias.copy_(torch.tensor(weights[node.input[2]]))
        for op, buffer in (("Sub", net.mean), ("Div", net.std)):
            node = next(n for n in graph.node if n.op_type == op)
            buffer.copy_(torch.tensor(constants[node.input[1]]))
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net.eval()
