"""ResNet-50 with random weights, its batch norms folded into the convolutions as exporters do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = _folded(before, width, 1, 1)
        self.conv2 = _folded(width, width, 3, stride)
        self.conv3 = _folded(width, after, 1, 1)
        self.short = _folded(before, after, 1, stride) if before != after or stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(self.relu(self.conv2(self.relu(self.conv1(x)))))
        return torch.relu_(out + self.short(x))


def _folded(before: int, after: int, kernel: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.BatchNorm2d(after)
    norm.running_var.fill_(2.0)  # type: ignore[operator, union-attr]  # keeps random activations in range over 50 layers
    folded: nn.Module = fuse_conv_bn_eval(conv.eval(), norm.eval())
    return folded


def folded_resnet50(classes: int = 1000) -> nn.Module:
    """Return the network (He et al., arXiv 1512.03385, table 1, 50-layer), seeded, in evaluation mode."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [_folded(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(depth):
            layers.append(_Bottleneck(before, width, 2 if block == 0 and stage else 1))
            before = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)).eval()
