"""Small definitions of the architectures that classifiers are mostly made of, randomly initialised."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(
    i: int, o: int, k: int = 3, stride: int = 1, *, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Module:
    layers = [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class _Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            m = o // 4
            self.body = nn.Sequential(_conv(i, m, 1), _conv(m, m, 3, stride), _conv(m, o, 1, act=None))
        else:
            self.body = nn.Sequential(_conv(i, o, 3, stride), _conv(o, o, act=None))
        self.short = nn.Identity() if i == o and stride == 1 else _conv(i, o, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def resnet(depths: tuple[int, ...], bottleneck: bool, width: int = 64, classes: int = 1000) -> nn.Module:
    """ResNet (He et al. 2016); width 64 is the published one."""
    layers: list[nn.Module] = [_conv(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    i = width
    for stage, depth in enumerate(depths):
        o = width * 2**stage * (4 if bottleneck else 1)
        for k in range(depth):
            layers.append(_Residual(i, o, 2 if k == 0 and stage else 1, bottleneck))
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, classes))


class _Inverted(nn.Module):
    """Inverted residual; with squeeze and excitation and SiLU it is EfficientNet's block."""

    def __init__(
        self, i: int, o: int, stride: int, k: int = 3, *, act: type[nn.Module] = nn.ReLU6, se: bool = False
    ) -> None:
        super().__init__()
        m = i * 4
        self.expand = _conv(i, m, 1, act=act)
        self.depthwise = _conv(m, m, k, stride, groups=m, act=act)
        self.squeeze = nn.Sequential(nn.Conv2d(m, m // 8, 1), act(), nn.Conv2d(m // 8, m, 1)) if se else None
        self.project = _conv(m, o, 1, act=None)
        self.skip = i == o and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        if self.squeeze is not None:
            y = y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
        y = self.project(y)
        return x + y if self.skip else y


def mobilenet() -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018), narrow."""
    body = [_Inverted(16, 24, 2), _Inverted(24, 24, 1), _Inverted(24, 32, 2), _Inverted(32, 32, 1)]
    head = [_conv(32, 64, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10)]
    return nn.Sequential(_conv(3, 16, 3, 2, act=nn.ReLU6), *body, *head)


def efficientnet() -> nn.Module:
    """EfficientNet (Tan & Le 2019), narrow."""
    how = {"act": nn.SiLU, "se": True}
    body = [_Inverted(16, 24, 2, 5, **how), _Inverted(24, 24, 1, **how), _Inverted(24, 32, 2, **how)]
    head = [_conv(32, 64, 1, act=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(_conv(3, 16, 3, 2, act=nn.SiLU), *body, *head)


class _Permuted(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ConvNextBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.mix = nn.Sequential(nn.LayerNorm(c, eps=1e-6), nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
        self.scale = nn.Parameter(torch.rand(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.scale * y


def convnext() -> nn.Module:
    """ConvNeXt (Liu et al. 2022), narrow."""
    stem = [nn.Conv2d(3, 16, 4, 4), _Permuted(16), _ConvNextBlock(16)]
    down = [_Permuted(16), nn.Conv2d(16, 32, 2, 2), _ConvNextBlock(32)]
    return nn.Sequential(*stem, *down, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 10))


class _Dense(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, growth, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet() -> nn.Module:
    """DenseNet (Huang et al. 2017), narrow."""
    block = [_Dense(16, 8), _Dense(24, 8), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.AvgPool2d(2)]
    tail = [_Dense(16, 8), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)]
    return nn.Sequential(_conv(3, 16, 3, 2), *block, *tail)


def vgg() -> nn.Module:
    """VGG (Simonyan & Zisserman 2015), narrow."""
    layers: list[nn.Module] = []
    i = 3
    for o in (16, 32, 64):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        i = o
    head = [nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, *head)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5, -1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(n, t, d))


class _Vit(nn.Module):
    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.place = nn.Parameter(torch.randn(1, 17, dim))
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList(_Attention(dim, 4) for _ in range(2))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: resnet((2, 2, 2, 2), False, 16, 10),
    "resnet50": lambda: resnet((3, 4, 6, 3), True, 8, 10),
    "mobilenet_v2": mobilenet,
    "efficientnet": efficientnet,
    "convnext": convnext,
    "densenet": densenet,
    "vgg": vgg,
    "vit": _Vit,
}


def build(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network in evaluation mode with batch statistics that are not trivial."""
    torch.manual_seed(seed)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()
