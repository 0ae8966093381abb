"""What the checks of samples and scores cost in ``evaluate --attack quick``: ``python benchmarks/checks.py``.

Needs $CLOAKONNX_ASSETS. Counted is the time of the CPU, all threads together, in what
:mod:`cloakonnx.classifier.reading` asks of the models before the attacks (samples alone, in company and in another
order, what the scores are, labels that count from one) and in the notes after them, against the whole call of
``evaluate``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import assets, machine, table

import cloakonnx as ck
from cloakonnx.evaluation import evaluate as module

CHECKS = ("reading", "about_scores", "about_data")
"""What ``evaluate`` calls for them."""

ROOT = Path(__file__).resolve().parents[1]


class Counted:
    """A function and the CPU's seconds that it took, what it gives lazily included."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it."""
        began = time.process_time()
        found = self._function(*given, **named)
        found = found if isinstance(found, tuple) else tuple(found)
        self.seconds += time.process_time() - began
        return found


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    mnist = ck.Preprocessing(mean=(0.1307,), std=(0.3081,))
    cases = {
        "mnist_cnn_raw": (assets() / "models/mnist_cnn_raw.onnx", assets() / "data/mnist_test5000.npz", mnist, 0.1),
        "digits_cnn": (ROOT / "samples/digits_cnn.onnx", ROOT / "samples/digits_test_fgsm.npz", None, 1 / 16),
    }
    print(machine("numpy", "onnx", "onnxruntime-gpu"), end="\n\n")
    rows = []
    for name, (model, data, preprocessing, eps) in cases.items():
        for beside in (False, True):
            shares = []
            for _ in range(given.rounds):
                counted = {check: Counted(getattr(module, check)) for check in CHECKS}
                for check, function in counted.items():
                    setattr(module, check, function)
                classifier = (
                    ck.Classifier(model) if preprocessing is None else ck.Classifier(model, preprocessing=preprocessing)
                )
                began = time.process_time()
                ck.evaluate(
                    classifier,
                    ck.Samples(data, limit=given.images),
                    eps=eps,
                    baseline=classifier if beside else None,
                )
                whole = time.process_time() - began
                for check, function in counted.items():
                    setattr(module, check, function._function)
                checks = sum(function.seconds for function in counted.values())
                shares.append((checks / whole, checks, whole))
            share, checks, whole = sorted(shares)[len(shares) // 2]
            rows.append((name, "yes" if beside else "no", f"{checks:.3f}", f"{whole:.1f}", f"{100 * share:.2f}%"))
    print(table(("model", "baseline", "checks, s", "evaluate, s", "share"), rows))


if __name__ == "__main__":
    main()
