"""PGD-10 images per second on ResNet-20, batch 128, against torchattacks and ART on the same weights and settings.

    python benchmarks/attacks.py [--rounds 5]

No sample leaves early, for the peers have no such thing; ours with early stopping is a line of its own. Needs the
environment of `make test-peers`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from common import alternate, assets, machine, ratios, spread, table
from numpy.typing import NDArray
from resnet20 import from_onnx
from torch import nn

import cloakonnx as ck
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.attacks.victim import Victim

EPS, STEP, STEPS, BATCH = 1 / 255, 0.25 / 255, 10, 128
Job = Callable[[], NDArray[np.float32]]


def main() -> None:
    """Time the three libraries and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine("onnxruntime-gpu", "torch", "torchattacks", "adversarial-robustness-toolbox"), "\n")
    path = assets() / "models" / "cifar10_resnet20.onnx"
    with np.load(assets() / "data" / "cifar10_test600.npz") as data:
        x = np.ascontiguousarray(data["x"][:BATCH].astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255))
        y = data["y"][:BATCH]
    net = from_onnx(path)
    jobs = {
        "cloakonnx": ours(ck.load(path), x, y, early_stop=False),
        "cloakonnx, early stopping": ours(ck.load(path), x, y, early_stop=True),
        "torchattacks": torchattacks_job(net, x, y),
        "ART": art_job(net, x, y),
    }
    for name, job in jobs.items():
        wrong = (net(torch.tensor(job())).argmax(1).numpy() != y).sum()
        print(f"{name}: {BATCH - wrong} of {BATCH} still correct")
    seconds = alternate(jobs, options.rounds)
    rows = [
        [name, spread([BATCH / s for s in found], 1), spread(ratios(found, seconds["cloakonnx"]))]
        for name, found in seconds.items()
    ]
    print()
    print(table([f"PGD-{STEPS}", "images/s", "cloakonnx, times as fast"], rows))


def ours(model: ck.Model, x: NDArray[np.float32], y: NDArray[np.int64], *, early_stop: bool) -> Job:
    """Return our attack as a job."""
    classifier = ck.Classifier(model, provider=ck.choose_provider("cpu"))
    classifier.prepare(x.shape[1:])
    victim = Victim(classifier)
    return lambda: PGD(eps=EPS, eps_step=STEP, max_iter=STEPS, early_stop=early_stop).run(victim, x, y).x


def torchattacks_job(net: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> Job:
    """Return torchattacks' PGD as a job."""
    import torchattacks

    attack = torchattacks.PGD(net, eps=EPS, alpha=STEP, steps=STEPS, random_start=True)
    return lambda: attack(torch.tensor(x), torch.tensor(y)).detach().numpy()


def art_job(net: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> Job:
    """Return ART's PGD (its PyTorch version) as a job."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        net, loss=nn.CrossEntropyLoss(), input_shape=x.shape[1:], nb_classes=10, clip_values=(0, 1), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=EPS, eps_step=STEP, max_iter=STEPS, num_random_init=1, batch_size=BATCH, verbose=False
    )
    return lambda: attack.generate(x, y)


if __name__ == "__main__":
    main()
