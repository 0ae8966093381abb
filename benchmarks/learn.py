r"""Images per second of a step of `learn` on ResNet-20, at every granularity, against the same step in PyTorch.

    python benchmarks/learn.py [--rounds 5] [--steps 2] [--granularity weight ...]

A step takes a batch of 50 as the defaults do: soft targets from the network without masks, a random start at 3/255,
whose pass gives the gradients by the input and by the masks, one step up, the gradients there, Adam, bounds. Shifts and
mirroring are left out on all sides; batch norms are folded into the convolutions. PyTorch runs eagerly, in its own
layout (NCHW) and channels last. Everything on one thread, timed by the processor's time, in turns. Needs the
environment of `make test-peers`.

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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from common import alternate, assets, machine, ratios, spread, table
from numpy.typing import NDArray
from resnet20 import Block, ResNet, from_onnx
from torch import Tensor, nn
from torch.nn import functional

import cloakonnx as ck
from cloakonnx.attacks.random import Stream
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.gradient.losses import TEMPERATURE
from cloakonnx.selection.learn.adam import Adam
from cloakonnx.selection.learn.objective import Objective
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.recipe import Granularity

EPS, BATCH, RATE, CLEAN_WEIGHT, STEP = 3 / 255, 50, 0.001, 0.5, 1.25
LAYOUTS = {"torch NCHW": torch.contiguous_format, "torch channels last": torch.channels_last}
Job = Callable[[], object]


def main() -> None:
    """Time the steps and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="batches a round")
    parser.add_argument("--granularity", nargs="*", choices=get_args(Granularity), default=get_args(Granularity))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("torch", "onnxruntime-gpu"), "\n")
    path = assets() / "models" / "cifar10_resnet20.onnx"
    with np.load(assets() / "data" / "cifar10_train4000.npz") as data:
        pixels, y = data["x"][:BATCH], data["y"][:BATCH].astype(np.int64)
    x = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    rows = []
    for granularity in options.granularity:
        masks, mine = ours(path, x, y, granularity, options.steps)
        jobs = {"cloakonnx": mine}
        jobs |= {name: peer(path, x, granularity, layout, options.steps) for name, layout in LAYOUTS.items()}
        seconds = alternate(jobs, options.rounds, clock=time.process_time)
        rows.append(
            [granularity, f"{masks:,}"]
            + [spread([BATCH * options.steps / s for s in seconds[name]], 0) for name in jobs]
            + [spread(ratios(seconds[name], seconds["cloakonnx"])) for name in LAYOUTS]
        )
    head = ["masks", "numbers", *(f"{name}, images/s" for name in jobs), *(f"as fast as {name}" for name in LAYOUTS)]
    print(table(head, rows))


def ours(
    path: Path, x: NDArray[np.float32], y: NDArray[np.int64], granularity: Granularity, steps: int
) -> tuple[int, Job]:
    """Return how many numbers there are, and our steps as a job."""
    classifier = ck.Classifier(path, provider=ck.choose_provider("cpu").with_threads(1))
    masked = MaskedClassifier(classifier, first_masks(classifier.model, granularity))
    masked.prepare(x.shape[1:])
    objective = Objective(masked, classifier, ck.Recipe(eps=EPS, budget=0.04), x.shape[1:])
    adam = Adam(masked.weights)

    def job() -> None:
        for _ in range(steps):
            masked.weights = adam.values
            found = objective(x, y, eps=EPS, stream=Stream.of(0, "learn", adam.steps, np.arange(len(y))))
            adam.step(found.gradients, rate=RATE)
            for values in adam.values.values():
                np.clip(values, 0, 4, out=values)

    return sum(values.size for values in adam.values.values()), job


class Masked:
    """The network as a function of masks on its weights, or after each of its 19 ReLUs; all 1 at first."""

    def __init__(self, net: ResNet, granularity: Granularity, layout: torch.memory_format, size: int) -> None:
        self.net = net.requires_grad_(False).to(memory_format=layout)
        self.layers = [each for each in net.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
        self.on: list[list[Tensor]] = [[] for _ in self.layers]
        self.after: list[Tensor] = []
        if granularity in {"feature", "element"}:
            sides = [size] * 7 + [size // 2] * 6 + [size // 4] * 6
            widths = [layer.weight.shape[0] for layer in self.layers[:-1]]
            spatial = [(side, side) if granularity == "element" else (1, 1) for side in sides]
            self.after = [leaf(1, width, *at) for width, at in zip(widths, spatial, strict=True)]
        else:
            self.on = [shapes_of(layer.weight, granularity) for layer in self.layers]
        has_bias = granularity == "weight-channel"
        self.biases = [leaf(layer.weight.shape[0]) if has_bias else None for layer in self.layers]
        on_weights = [mask for masks in self.on for mask in masks]
        self.leaves = [*self.after, *on_weights, *(bias for bias in self.biases if bias is not None)]

    def __call__(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Return the logits under the masks, or without them."""
        net, number = self.net, iter(range(len(self.layers)))
        after = iter(self.after) if self.after and not plain else None

        def layer(value: Tensor, stride: int = 1) -> Tensor:
            index = next(number)
            own, weight = self.layers[index], self.layers[index].weight
            bias, of_bias = own.bias, self.biases[index]
            for mask in () if plain else self.on[index]:
                weight = weight * mask
            if of_bias is not None and not plain:
                assert bias is not None
                bias = bias * of_bias
            if isinstance(own, nn.Linear):
                return functional.linear(value, weight, bias)
            return functional.conv2d(value, weight, bias, stride, 1)

        def active(value: Tensor) -> Tensor:
            found = functional.relu(value)
            return found if after is None else found * next(after)

        out = active(layer((x - net.mean) / net.std))
        for block in net.layers:
            assert isinstance(block, Block)
            inner = layer(active(layer(out, block.stride)))
            if block.stride > 1:
                out = functional.pad(out[:, :, ::2, ::2], (0, 0, 0, 0, block.padding, block.padding))
            out = active(inner + out)
        return layer(net.flatten(net.pool(out)))


def leaf(*shape: int) -> Tensor:
    """Return a mask of 1."""
    return torch.ones(*shape, requires_grad=True)


def shapes_of(weight: Tensor, granularity: Granularity) -> list[Tensor]:
    """Return the masks on a weight."""
    out, inner, *kernel = weight.shape
    if granularity == "weight":
        return [leaf(*weight.shape)]
    flat = [1] * len(kernel)
    return [leaf(out, inner, *flat)] if granularity == "kernel" else [leaf(out, 1, *flat), leaf(1, inner, *flat)]


def peer(path: Path, x: NDArray[np.float32], granularity: Granularity, layout: torch.memory_format, steps: int) -> Job:
    """Return the steps as a PyTorch user writes them."""
    masked = Masked(from_onnx(path), granularity, layout, x.shape[-1])
    images = torch.tensor(x).contiguous(memory_format=layout)
    adam = torch.optim.Adam(masked.leaves, lr=RATE)

    def loss(value: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(masked(value) / TEMPERATURE, targets) * TEMPERATURE

    def job() -> None:
        for _ in range(steps):
            with torch.no_grad():
                targets = functional.softmax(masked(images, plain=True) / TEMPERATURE, 1)
            start = (images + (2 * torch.rand_like(images) - 1) * EPS).clamp(0, 1).requires_grad_()
            gradient, *easy = gradients(loss(start, targets), [start, *masked.leaves])
            moved = start.detach() + STEP * EPS * gradient.sign()
            adversarial = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
            hard = gradients(loss(adversarial, targets), masked.leaves)
            for mask, of_hard, of_easy in zip(masked.leaves, hard, easy, strict=True):
                mask.grad = of_hard + CLEAN_WEIGHT * of_easy
            adam.step()
            with torch.no_grad():
                for mask in masked.leaves:
                    mask.clamp_(0, 4)

    return job


def gradients(value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the gradients of a value by leaves."""
    return torch.autograd.grad(value, leaves)


if __name__ == "__main__":
    main()
