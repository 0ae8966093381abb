"""A sweep over 31 masks against one plain evaluation, and against DeepCloak's loop in PyTorch, on ResNet-20.

    python benchmarks/sweep.py [--rounds 3] [--images 600] [--batch-size 64]

The 600 CIFAR-10 test images and their FGSM versions. DeepCloak's own script runs the whole network on all clean and all
adversarial images for each mask; here that is written out in PyTorch with the same weights, scores and masks. The
sweep has three random masks beside each of its own, which neither of the others has. Needs the environment of
`make test-peers`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from common import alternate, assets, machine, ratios, spread, table
from numpy.typing import NDArray
from resnet20 import ResNet, from_onnx
from torch import Tensor

import cloakonnx as ck

Counts = list[tuple[int, int]]
SHARES = [ck.Share(i / 100) for i in range(31)]
MOST_OVER_PLAIN, LEAST_UNDER_LOOP = 1.3, 15.0


def main() -> None:
    """Time the three and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    print(machine("onnxruntime-gpu", "onnxruntime", "torch", "numpy"), "\n")
    path = assets() / "models" / "cifar10_resnet20.onnx"
    classifier = ck.Classifier(path, provider=ck.choose_provider("cpu"))
    analysis = ck.analyze(classifier, opened(classifier, options.images))
    masks = masks_of(analysis)
    jobs: dict[str, Callable[[], Counts]] = {
        "sweep, 31 masks": lambda: swept(classifier, analysis, options.images, options.batch_size),
        "plain evaluation, no mask": lambda: plain(classifier, options.images, options.batch_size),
        "DeepCloak's loop, 31 masks (PyTorch)": lambda: loop(
            from_onnx(path), opened(classifier, options.images), masks, options.batch_size
        ),
    }
    check(jobs)
    seconds = alternate(jobs, options.rounds, warm=0)  # check() has run each once
    ours = seconds["sweep, 31 masks"]
    print(table(["", "s"], [[name, spread(found)] for name, found in seconds.items()]), "\n")
    over = ratios(ours, seconds["plain evaluation, no mask"])
    under = ratios(seconds["DeepCloak's loop, 31 masks (PyTorch)"], ours)
    rows = [
        ["sweep / plain evaluation", f"<= {MOST_OVER_PLAIN}", spread(over)],
        ["DeepCloak's loop / sweep", f">= {LEAST_UNDER_LOOP:g}", spread(under, 1)],
    ]
    print(table(["", "target", "found"], rows))


def opened(classifier: ck.Classifier, images: int) -> ck.records.FittedPairs:
    """Open the images and their adversarial versions."""
    files = ("cifar10_test600.npz", "cifar10_resnet20_test600_fgsm4.npz")
    sources = (assets() / "data" / file for file in files)
    return ck.records.FittedPairs(*(ck.records.Dataset.of(each, classifier, limit=images) for each in sources))


def masks_of(analysis: ck.Analysis) -> list[NDArray[np.float32]]:
    """Return the 31 masks as weights."""
    assert analysis.scores is not None
    none = np.ones(len(analysis.scores.scores), np.float32)
    return [none, *(ck.select(analysis.scores, share).weights for share in SHARES[1:])]


def swept(classifier: ck.Classifier, analysis: ck.Analysis, images: int, batch_size: int) -> Counts:
    """Sweep; return clean and static counts for each mask."""
    found = ck.sweep(
        classifier,
        analysis,
        opened(classifier, images),
        amounts=SHARES,
        adaptive_at=(),
        batch_size=batch_size,
    )
    return [(point.mask.clean.correct, point.mask.static.correct) for point in found.points]


def plain(classifier: ck.Classifier, images: int, batch_size: int) -> Counts:
    """Return clean and static counts without a mask, evaluated once."""
    pairs = opened(classifier, images)
    clean, static = (
        ck.accuracy(classifier, data, batch_size=batch_size).correct for data in (pairs.clean, pairs.adversarial)
    )
    return [(clean, static)]


def loop(net: ResNet, pairs: ck.records.FittedPairs, masks: list[NDArray[np.float32]], batch_size: int) -> Counts:
    """Run the whole network twice for each mask, as DeepCloak's script does."""
    weights = torch.ones(1)
    net.flatten.register_forward_hook(lambda _module, _inputs, output: output * weights)
    batches = [
        (torch.tensor(b.clean), torch.tensor(b.adversarial), torch.tensor(b.y)) for b in pairs.batches(batch_size)
    ]
    counts = []
    for mask in masks:
        weights = torch.tensor(mask)  # the hook reads it
        with torch.no_grad():
            clean = sum(right(net, x, y) for x, _, y in batches)
            static = sum(right(net, x, y) for _, x, y in batches)
        counts.append((clean, static))
    return counts


def right(net: ResNet, x: Tensor, y: Tensor) -> int:
    """Return how many samples the network classifies correctly."""
    return int((net(x).argmax(1) == y).sum())


def check(jobs: dict[str, Callable[[], Counts]]) -> None:
    """Stop where the contenders don't count alike; PyTorch rounds otherwise, so one sample may differ."""
    sweep, alone, theirs = (job() for job in jobs.values())
    if sweep[0] != alone[0]:
        raise SystemExit(f"the sweep counts {sweep[0]} without a mask, the evaluation {alone[0]}")
    apart = max(abs(a - b) for ours, other in zip(sweep, theirs, strict=True) for a, b in zip(ours, other, strict=True))
    if apart > 1:
        raise SystemExit(f"the sweep and DeepCloak's loop differ by {apart} samples")
    print(f"the 62 counts agree with PyTorch's within {apart} samples\n")


if __name__ == "__main__":
    main()
