r"""Images per second of learning channel masks at ResNet-20's 19 activations, against the same loop in PyTorch.

    python benchmarks/learn.py [--rounds 7] [--steps 3]

A step takes a batch of 100: FGSM from a random start at 2/255 on the masked net, cross-entropy of the twins plus half
that of the clean images, its gradient by the 688 weights, Adam. Flips and shuffling are left out on both sides; batch
norms are folded into the convolutions, and no weight of the net has a gradient. Needs the environment of
`make test-peers`.

The figures of docs/learning.md come from the command line (minutes on a quiet machine, A for $CLOAKONNX_ASSETS):

    cloakonnx learn A/models/cifar10_resnet20.onnx --data A/data/cifar10_train4000.npz --select-data select200.npz \
        --eps 2/255 --budget 4% -o resnet20.cloak.json
    cloakonnx apply A/models/cifar10_resnet20.onnx --analysis resnet20.cloak.json -o resnet20.hardened.onnx
    cloakonnx evaluate resnet20.hardened.onnx --data report400.npz --attack pgd --max-iter 40 --restarts 2 \
        --eps 1/255,2/255 --analysis resnet20.cloak.json --batch-size 200

where select200.npz holds the first 200 images of cifar10_test600.npz and report400.npz the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import alternate, assets, machine, ratios, spread, table
from numpy.typing import NDArray
from resnet20 import Block, ResNet, from_onnx
from torch import Tensor, nn
from torch.nn import functional

import cloakonnx as ck
from cloakonnx.attacks.random import Stream
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.graph.masks.taps import activation_taps
from cloakonnx.selection.learn.adam import Adam
from cloakonnx.selection.learn.objective import Objective

EPS, BATCH, RATE, CLEAN_WEIGHT = 2 / 255, 100, 0.001, 0.5
Job = Callable[[], object]


def main() -> None:
    """Time both loops and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="batches a round")
    options = parser.parse_args()
    print(machine("onnxruntime-gpu", "torch"), "\n")
    path = assets() / "models" / "cifar10_resnet20.onnx"
    with np.load(assets() / "data" / "cifar10_train4000.npz") as data:
        x = np.ascontiguousarray(data["x"][:BATCH].astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255))
        y = data["y"][:BATCH]
    net = MaskedResNet(from_onnx(path))
    jobs = {"cloakonnx": ours(path, x, y, options.steps), "torch eager": peer(net, x, y, options.steps)}
    seconds = alternate(jobs, options.rounds)
    rows = [
        [
            name,
            spread([BATCH * options.steps / s for s in found], 1),
            spread(ratios(found, seconds["cloakonnx"])),
        ]
        for name, found in seconds.items()
    ]
    print(table(["learning", "images/s", "cloakonnx is so many times as fast"], rows))


def ours(path: Path, x: NDArray[np.float32], y: NDArray[np.int64], steps: int) -> Job:
    """Return our loop as a job."""
    classifier = ck.Classifier(path, provider=ck.choose_provider("cpu"))
    masked = MaskedClassifier(classifier, [ones(tap) for tap in activation_taps(classifier.model)])
    masked.prepare(x.shape[1:])
    objective = Objective(masked, ck.Recipe(eps=EPS, budget=0.04, clean_weight=CLEAN_WEIGHT), rank=4)
    adam = Adam(masked.weights)

    def job() -> None:
        for _ in range(steps):
            masked.weights = adam.values
            found = objective(x, y, eps=EPS, stream=Stream.of(0, "learn", adam.steps, np.arange(len(y))))
            adam.step(found.gradients, rate=RATE)
            for values in adam.values.values():
                np.clip(values, 0, 4, out=values)

    return job


class MaskedResNet(nn.Module):
    """The network with a constant for every channel after each of its 19 ReLUs, all 1 at first."""

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        widths = [16, *(c for b in net.layers if isinstance(b, Block) for c in [b.conv1.out_channels] * 2)]
        self.masks = nn.ParameterList(nn.Parameter(torch.ones(1, width, 1, 1)) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        net, masks = self.net, iter(self.masks)
        out = functional.relu(net.conv1((x - net.mean) / net.std)) * next(masks)
        for block in net.layers:
            assert isinstance(block, Block)
            inner = block.conv2(functional.relu(block.conv1(out)) * next(masks))
            if block.stride > 1:
                out = functional.pad(out[:, :, ::2, ::2], (0, 0, 0, 0, block.padding, block.padding))
            out = functional.relu(inner + out) * next(masks)
        logits = net.linear(net.flatten(net.pool(out)))
        assert isinstance(logits, Tensor)
        return logits


def peer(net: MaskedResNet, x: NDArray[np.float32], y: NDArray[np.int64], steps: int) -> Job:
    """Return the loop as a PyTorch user writes it."""
    images, labels = torch.tensor(x).contiguous(memory_format=torch.channels_last), torch.tensor(y)
    adam = torch.optim.Adam(net.masks.parameters(), lr=RATE)

    def job() -> None:
        for _ in range(steps):
            start = (images + (2 * torch.rand_like(images) - 1) * EPS).clamp(0, 1).requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(net(start), labels), start)
            moved = start.detach() + 1.25 * EPS * gradient.sign()
            twins = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
            loss = functional.cross_entropy(net(twins), labels)
            loss = loss + CLEAN_WEIGHT * functional.cross_entropy(net(images), labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                for mask in net.masks:
                    mask.clamp_(0, 4)

    return job


if __name__ == "__main__":
    main()
