"""Attack quality beside torchattacks and ART, on the same weights, images and settings.

    python -m tests.peers.attacks.quality --full

prints a Markdown table: cifar10_resnet20, the first 200 images of cifar10_test600 (Square: 100), eps 1/255 (Linf) and
0.25 (L2). Without --full: 60 images (Square: 30) and fewer queries, as the tests run it. Needs the environment of
`make test-peers` and the real models and data.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.resnet20 import from_onnx
from cloakonnx.attacks.ball import Norm, ball
from cloakonnx.attacks.base import make
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.runtime.provider import choose_provider
from tests.fixtures.real import manifest

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Attack = Callable[[Images, Labels], Images]

EPS: dict[Norm, float] = {"linf": 1 / 255, "l2": 0.25}
MODEL = "cifar10_resnet20"
BATCH = 100


@cache
def network(model: str = MODEL) -> torch.nn.Module:
    """Return a ResNet in torch with the file's weights, laid out as torchattacks needs them."""
    net = from_onnx(path(model))
    for parameter in net.parameters():
        parameter.data = parameter.data.contiguous()
    return net


def path(model: str = MODEL) -> Path:
    """Return a ResNet's file."""
    return (manifest() or {})[model].path


@cache
def samples(count: int) -> tuple[Images, Labels]:
    """Return the first test images and labels."""
    asset = (manifest() or {})[MODEL]
    labels = asset.labels(count)
    assert labels is not None
    return asset.inputs(asset.images(count)), labels


@cache
def victim(model: str = MODEL) -> Victim:
    """Return a ResNet under our own attacks."""
    classifier = Classifier(path(model), provider=choose_provider("cpu"))
    classifier.prepare((3, 32, 32))
    return Victim(classifier)


@dataclass(frozen=True)
class Case:
    """An attack that all three have, with the same settings.

    Attributes:
        name: As in the table.
        ours: Our name of it.
        max_iter: Steps or queries.
        share: Of the images.
    """

    name: str
    ours: str
    max_iter: int
    share: float = 1.0

    def count(self, images: int) -> int:
        """Return how many images it is run on."""
        return int(images * self.share)


def cases(*, steps: int = 40, queries: int = 1000) -> list[Case]:
    """Return the attacks of the comparison."""
    return [
        Case("PGD-10", "pgd", 10),
        Case(f"PGD-{steps}", "pgd", steps),
        Case(f"APGD-CE, {steps} steps", "apgd-ce", steps),
        Case(f"APGD-DLR, {steps} steps", "apgd-dlr", steps),
        Case(f"Square, {queries:,} queries", "square", queries, share=0.5),
    ]


def robust(found: Images, x: Images, y: Labels, norm: Norm) -> int:
    """Return how many samples torch still classifies as labelled, once the ball has been checked."""
    assert ball(norm, 0).measure(found - x.astype(np.float64)).max() <= EPS[norm] + 1e-5
    assert found.min() >= 0
    assert found.max() <= 1
    with torch.no_grad():
        predicted = torch.cat([network()(part) for part in torch.from_numpy(found).split(BATCH)]).argmax(1)
    return int((predicted.numpy() == y).sum())


def ours(case: Case, norm: Norm) -> Attack:
    """Return our attack."""

    def attack(x: Images, y: Labels) -> Images:
        settings = make(case.ours, eps=EPS[norm], norm=norm, max_iter=case.max_iter)
        parts = [
            settings.run(victim(), x[i : i + BATCH], y[i : i + BATCH], samples=np.arange(i, i + BATCH))
            for i in range(0, len(x), BATCH)
        ]
        return np.concatenate([part.x for part in parts])

    return attack


def of_torchattacks(case: Case, norm: Norm) -> Attack:
    """Return torchattacks' attack."""
    import torchattacks

    eps, step = EPS[norm], 2.5 * EPS[norm] / case.max_iter
    kind = {"linf": "Linf", "l2": "L2"}[norm]
    made: Any
    if case.ours == "pgd" and norm == "linf":
        made = torchattacks.PGD(network(), eps=eps, alpha=step, steps=case.max_iter)
    elif case.ours == "pgd":
        made = torchattacks.PGDL2(network(), eps=eps, alpha=step, steps=case.max_iter)
    elif case.ours == "square":
        made = torchattacks.Square(network(), norm=kind, eps=eps, n_queries=case.max_iter)
    else:
        loss = case.ours.removeprefix("apgd-")
        made = torchattacks.APGD(network(), norm=kind, eps=eps, steps=case.max_iter, loss=loss)

    def attack(x: Images, y: Labels) -> Images:
        torch.manual_seed(0)
        parts = [
            made(torch.from_numpy(x[i : i + BATCH]), torch.from_numpy(y[i : i + BATCH])).detach().numpy()
            for i in range(0, len(x), BATCH)
        ]
        return np.concatenate(parts)

    return attack


def of_art(case: Case, norm: Norm) -> Attack:
    """Return ART's attack."""
    from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent, SquareAttack
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        network(), torch.nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    kind: Any = {"linf": np.inf, "l2": 2}[norm]
    eps, step = EPS[norm], 2.5 * EPS[norm] / case.max_iter
    common: dict[str, Any] = {"norm": kind, "eps": eps, "max_iter": case.max_iter, "batch_size": BATCH}
    made: Any
    if case.ours == "pgd":
        made = ProjectedGradientDescent(estimator, eps_step=step, num_random_init=1, verbose=False, **common)
    elif case.ours == "square":
        made = SquareAttack(estimator, verbose=False, **common)
    else:
        loss = {"apgd-ce": "cross_entropy", "apgd-dlr": "difference_logits_ratio"}[case.ours]
        made = AutoProjectedGradientDescent(
            estimator, eps_step=2 * eps, nb_random_init=1, loss_type=loss, verbose=False, **common
        )

    def attack(x: Images, y: Labels) -> Images:
        np.random.seed(0)
        random.seed(0)
        torch.manual_seed(0)
        found: Images = made.generate(x, y).astype(np.float32)
        return found

    return attack


def compare(case: Case, norm: Norm, images: int) -> dict[str, float]:
    """Return the robust accuracy in percent under each library's attack, and the clean one."""
    x, y = samples(case.count(images))
    found = {"clean": x}
    for name, side in (("cloakonnx", ours), ("torchattacks", of_torchattacks), ("ART", of_art)):
        try:
            found[name] = side(case, norm)(x, y)
        except Exception as error:  # a peer that cannot do it is no reference
            if name == "cloakonnx":
                raise
            print(f"{name} cannot run {case.name} ({norm}): {type(error).__name__}: {error}", file=sys.stderr)
    return {name: 100 * robust(each, x, y, norm) / len(x) for name, each in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="200 images (Square 100, 1,000 queries)")
    images, chosen = (200, cases()) if parser.parse_args().full else (60, cases(steps=20, queries=200))
    print("| norm | attack | images | clean | cloakonnx | torchattacks | ART |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for norm in EPS:
        for case in chosen:
            found = compare(case, norm, images)
            names = ("clean", "cloakonnx", "torchattacks", "ART")
            numbers = " | ".join(f"{found[name]:.1f}" if name in found else "cannot" for name in names)
            print(f"| {norm} | {case.name} | {case.count(images)} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
