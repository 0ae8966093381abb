r"""Adversarial fine-tuning of every weight of cifar10_resnet20 in PyTorch: what learned masks are measured against.

    python benchmarks/finetune.py -o FOLDER   # an estimated 5 minutes on a quiet machine

The recipe is that of `cloakonnx learn`: the same 4,000 images, mirrored and shifted, in batches of 50; soft targets
from the source at temperature 2; FGSM from a random start with steps of 1.25 eps, at 1.5 times the eps asked for,
warmed up over the first half; the loss of the adversarial images plus half that of the random starts; Adam under a
one-cycle schedule. The top learning rate is 0.001, and an average of recent weights (decay 0.95) is what is tried: both
were best for weights. Batch norms are folded into the convolutions in the exported file, and so in the network that is
tuned: 269,034 weights and biases.

Weights of each epoch are tried on the first 200 images of cifar10_test600 as `learn` tries masks: drawn back towards
the source's, w(t) = w0 + t (w - w0), as far as the budget of clean accuracy asks for; of those within a standard error
of the most robust under our PGD-10 the latest are taken. Two files come out, the source with the tuned initializers:
tuned.onnx (within the budget) and last.onnx (the last epoch, whatever it costs), for

    cloakonnx attack FOLDER/tuned.onnx --data report400.npz --attack pgd --max-iter 40 --restarts 2 \
        --eps 1/255,2/255,4/255 --batch-size 200 -o FOLDER/tuned.adv.npz
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from common import assets, machine, table
from numpy.typing import NDArray
from onnx import numpy_helper
from resnet20 import Block, ResNet, from_onnx
from torch import Tensor, nn
from torch.nn import functional

import cloakonnx as ck
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.victim import Victim
from cloakonnx.graph.file.model import load_bytes

BATCH, CLEAN_WEIGHT, WARM_UP, STEP, SELECT = 50, 0.5, 0.5, 1.25, 200
TEMPERATURE, SHIFT, AVERAGE, EPS_FACTOR = 2.0, 4, 0.95, 1.5
BLENDS, REFINEMENTS = [round(0.1 * i, 1) for i in range(10, 0, -1)], (0.075, 0.05, 0.025)
Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Weights = dict[str, NDArray[np.float32]]
"""Arrays by the names of the initializers that they go into."""


def main() -> None:
    """Tune, choose, write two models and print how they were chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for tuned.onnx and last.onnx")
    parser.add_argument("--eps", type=float, default=2, help="in 1/255")
    parser.add_argument("--budget", type=float, default=0.04, help="clean accuracy that may be lost, as a share")
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, help="train on the first so many images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine("torch", "onnxruntime-gpu"), "\n")
    options.output.mkdir(parents=True, exist_ok=True)
    path, eps = assets() / "models" / "cifar10_resnet20.onnx", options.eps / 255
    x = images("cifar10_train4000")[0][: options.limit]
    part = SelectPart(path, *(part[:SELECT] for part in images("cifar10_test600")), eps=eps, budget=options.budget)
    net = from_onnx(path)
    torch.manual_seed(options.seed)
    check_logits(net, path, part.x)
    print(f"{sum(p.numel() for p in net.parameters())} weights\n")
    tuning = tune(net, x, eps=EPS_FACTOR * eps, rate=options.learning_rate, epochs=options.epochs)
    start, learned = time.perf_counter(), list[Weights]()
    for epoch, tuned in enumerate(tuning, 1):
        learned.append(weights_of(tuned, path))
        last, seconds = part.whole(learned[-1], epoch), time.perf_counter() - start
        print(f"epoch {epoch}: {last.clean} clean, {last.robust} robust; {seconds:.0f} s", flush=True)
    rows = [["none", "", str(part.clean_before), str(part.robust_before)]]
    best = part.choose(learned)
    for name, file, choice in (("within the budget", "tuned.onnx", best), ("last epoch", "last.onnx", last)):
        if choice is None:
            rows.append([name, "none gains", "", ""])
            continue
        (options.output / file).write_bytes(part.with_weights(choice.weights))
        rows.append([name, f"epoch {choice.epoch}, t = {choice.blend}", str(choice.clean), str(choice.robust)])
    print("\n" + table(["", "chosen", f"clean, of {SELECT}", f"PGD-10 at {options.eps:g}/255"], rows))


@dataclass(frozen=True, eq=False)
class Candidate:
    """Weights, when they were learned, how far they are from the source's (0) to them (1), what they hold."""

    weights: Weights
    epoch: int
    blend: float
    clean: int
    robust: int


class SelectPart:
    """The images that epochs are compared on."""

    def __init__(self, path: Path, x: Images, y: Labels, *, eps: float, budget: float) -> None:
        self.x, self.y, self.eps, self.proto = x, y, eps, onnx.load(path)
        self.source = {t.name: numpy_helper.to_array(t) for t in self.proto.graph.initializer}
        self.clean_before, self.robust_before = self.clean({}), self.robust({})
        self.least = self.clean_before - int(budget * len(y) + 1e-9)

    def with_weights(self, weights: Weights) -> bytes:
        """Return the source's file with these initializers in place of its own."""
        proto = copy.deepcopy(self.proto)
        for tensor in proto.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        return proto.SerializeToString()

    def clean(self, weights: Weights) -> int:
        """Return how many images are classified correctly."""
        classifier = ck.Classifier(load_bytes(self.with_weights(weights)), provider=ck.choose_provider("cpu"))
        return int((classifier.predict(self.x) == self.y).sum())

    def robust(self, weights: Weights) -> int:
        """Return how many hold against a PGD-10 made on these weights."""
        classifier = ck.Classifier(load_bytes(self.with_weights(weights)), provider=ck.choose_provider("cpu"))
        classifier.prepare(self.x.shape[1:])
        victim = Victim(classifier)
        return int((~PGD(eps=self.eps, max_iter=10).run(victim, self.x, self.y).success).sum())

    def whole(self, weights: Weights, epoch: int) -> Candidate:
        """Return what an epoch's weights hold."""
        return Candidate(weights, epoch, 1.0, self.clean(weights), self.robust(weights))

    def largest_blend(self, weights: Weights, epoch: int, blends: Sequence[float]) -> Candidate | None:
        """Return weights drawn back by the first of the blends, from large to small, that keeps within the budget."""
        for blend in blends:
            mixed = {name: old + np.float32(blend) * (weights[name] - old) for name, old in self.source.items()}
            clean = self.clean(mixed)
            if clean >= self.least:
                return Candidate(mixed, epoch, blend, clean, self.robust(mixed))
        return None

    def choose(self, learned: Sequence[Weights]) -> Candidate | None:
        """Return the weights that `learn`'s rule takes; None where nothing within the budget gains."""
        tried = [self.largest_blend(weights, epoch, BLENDS) for epoch, weights in enumerate(learned, 1)]
        inside = [each for each in tried if each is not None and each.robust > self.robust_before]
        if not inside:
            return None
        most = max(each.robust for each in inside)
        least = most - (most * (1 - most / len(self.y))) ** 0.5
        best = max((each for each in inside if each.robust >= least), key=lambda each: each.epoch)
        if best.blend < 1:
            finer = [round(best.blend + more, 3) for more in REFINEMENTS]
            found = self.largest_blend(learned[best.epoch - 1], best.epoch, finer)
            best = found if found is not None and found.robust >= best.robust else best
        return best


def tune(net: ResNet, x: Images, *, eps: float, rate: float, epochs: int) -> Iterator[ResNet]:
    """Yield an average of the network's recent weights after each epoch; the soft targets are the source's."""
    images = torch.tensor(x).contiguous(memory_format=torch.channels_last)
    source, average = copy.deepcopy(net).requires_grad_(False), copy.deepcopy(net)
    weights = list(net.parameters())
    adam = torch.optim.Adam(weights, lr=rate)
    steps = epochs * len(range(0, len(x), BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=rate, total_steps=steps)
    step = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            step += 1
            radius = eps * min(1.0, step / (WARM_UP * steps))
            batch = shifted(mirrored(images[rows]))
            targets = functional.softmax(source(batch) / TEMPERATURE, 1)
            start = (batch + (2 * torch.rand_like(batch) - 1) * radius).clamp(0, 1).requires_grad_()
            first, *easy = torch.autograd.grad(soft_loss(net(start), targets), [start, *weights])
            moved = start.detach() + STEP * radius * first.sign()
            adversarial = (batch + (moved - batch).clamp(-radius, radius)).clamp(0, 1)
            hard = torch.autograd.grad(soft_loss(net(adversarial), targets), weights)
            for weight, of_hard, of_easy in zip(weights, hard, easy, strict=True):
                weight.grad = of_hard + CLEAN_WEIGHT * of_easy
            adam.step()
            schedule.step()
            decay = min(AVERAGE, step / (step + 10))
            with torch.no_grad():
                for kept, weight in zip(average.parameters(), weights, strict=True):
                    kept.lerp_(weight, 1 - decay)
        yield average


def soft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of soft targets at the temperature."""
    return functional.cross_entropy(logits / TEMPERATURE, targets) * TEMPERATURE


def mirrored(x: Tensor) -> Tensor:
    """Return a batch with about half of its images mirrored."""
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)


def shifted(x: Tensor) -> Tensor:
    """Return a batch with each image moved by up to 4 pixels; black comes in."""
    wide = functional.pad(x, (SHIFT,) * 4)
    places = torch.randint(0, 2 * SHIFT + 1, (len(x), 2)).tolist()
    size = x.shape[2]
    cut = [image[:, i : i + size, j : j + size] for image, (i, j) in zip(wide, places, strict=True)]
    return torch.stack(cut).contiguous(memory_format=torch.channels_last)


def convolutions(net: ResNet) -> Iterator[tuple[nn.Module, str]]:
    """Yield the holder and the attribute of each convolution, in the order of the graph."""
    yield net, "conv1"
    for block in net.layers:
        assert isinstance(block, Block)
        yield from ((block, "conv1"), (block, "conv2"))


def weights_of(net: ResNet, path: Path) -> Weights:
    """Return a network's weights by the names of the initializers they came from."""
    layers: list[nn.Conv2d | nn.Linear] = []
    for holder, name in convolutions(net):
        layers.append(getattr(holder, name))
    layers.append(net.linear)
    nodes = [node for node in onnx.load(path).graph.node if node.op_type in {"Conv", "Gemm"}]
    found: Weights = {}
    for node, layer in zip(nodes, layers, strict=True):
        assert layer.bias is not None
        for name, values in zip(node.input[1:], (layer.weight, layer.bias), strict=True):
            found[name] = np.ascontiguousarray(values.detach().numpy().copy())
    return found


def images(name: str) -> tuple[Images, Labels]:
    """Return images in [0, 1], NCHW, and labels."""
    with np.load(assets() / "data" / f"{name}.npz") as data:
        return np.ascontiguousarray(data["x"].astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)), data["y"]


def check_logits(net: ResNet, path: Path, x: Images) -> None:
    """Exit where PyTorch and ONNX Runtime disagree on what is about to be tuned."""
    with torch.no_grad():
        mine = net(torch.tensor(x)).numpy()
    its = ck.Classifier(ck.load(path), provider=ck.choose_provider("cpu")).scores(x)
    error = float(np.abs(mine - its).max() / np.abs(its).max())
    print(f"logits in PyTorch and ONNX Runtime: largest difference {error:.1g} of the largest logit")
    if not error < 1e-4:
        raise SystemExit("the networks differ")


if __name__ == "__main__":
    main()
