"""How soon PGD's steps run into an exact cycle: ``python benchmarks/cycles.py --assets FOLDER --images 100``.

For each model and eps: samples that hold, how many of them converged, at which steps they left, and the gradients
against those of 1,000 steps, made as well with ``--check``: success and inputs are compared byte by byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from cloakonnx.attacks import cycles
from cloakonnx.attacks.base import make
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.graph.file.model import load
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider

NORMALISED = {"scale": 255.0, "mean": (0.1307,), "std": (0.3081,)}
CASES: tuple[tuple[str, str, dict[str, Any], tuple[tuple[str, float], ...]], ...] = (
    ("mnist_cnn_raw", "mnist_test5000", NORMALISED, (("linf", 0.05), ("linf", 0.1), ("l2", 1.5))),
    ("cifar10_resnet20", "cifar10_test600", {}, (("linf", 0.5 / 255), ("linf", 1 / 255), ("l2", 0.1))),
)


def main() -> None:
    """Print a line of figures for each model and ball."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    look = cycles.Cycles.look
    for name, data, entry, balls in CASES:
        mean_std = {k: v for k, v in entry.items() if k != "scale"}
        model = load(given.assets / "models" / f"{name}.onnx")
        classifier = Classifier(model, provider=choose_provider("cpu"), preprocessing=Preprocessing(**mean_std))
        with np.load(given.assets / "data" / f"{data}.npz") as arrays:
            x, y = arrays["x"][: given.images], arrays["y"][: given.images]
        pixels = np.ascontiguousarray(np.divide(x, np.float32(255), dtype=np.float32).transpose(0, 3, 1, 2))
        victim = Victim(classifier, pixels.shape[1:])
        for norm, eps in balls:
            settings = make("pgd", eps=eps, norm=norm, max_iter="converged")
            leaving: list[int] = []

            def noting(self: cycles.Cycles, at: Any, step: int, to: list[int] = leaving) -> Any:
                gone = look(self, at, step)
                to.extend([step] * int(gone.sum()))
                return gone

            cycles.Cycles.look = noting  # type: ignore[method-assign]
            before = victim.counts.gradients
            found = settings.run(victim, pixels, y)
            asked = victim.counts.gradients - before
            cycles.Cycles.look = look  # type: ignore[method-assign]
            holds = int((~found.success).sum())
            steps = np.percentile(leaving, (50, 90, 99)).round() if leaving else "none"
            line = f"{name} {norm} {eps:.4g}: {holds} hold, {int(found.converged.sum())} converged, leave at {steps}"
            print(line, f"{asked} gradients", end=" ", flush=True)
            if given.check:
                cycles.Cycles.look = lambda self, at, step: np.zeros(len(at), np.bool_)  # type: ignore[method-assign]
                before = victim.counts.gradients
                every = settings.run(victim, pixels, y)
                cycles.Cycles.look = look  # type: ignore[method-assign]
                same = int((every.x == found.x).reshape(len(y), -1).all(axis=1).sum())
                print(
                    f"against {victim.counts.gradients - before}; success differs for "
                    f"{int((every.success != found.success).sum())}, inputs the same for {same} of {len(y)}",
                    end="",
                )
            print(flush=True)


if __name__ == "__main__":
    main()
