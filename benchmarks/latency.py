"""The hardened model's latency against the original's, in ONNX Runtime on the CPU.

python benchmarks/latency.py

A second session of the original runs along: its ratio to the first is what noise alone makes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import cloakonnx as ck

MODELS = ["cifar10_resnet20.onnx", "mnist_cnn_raw.onnx"]
CONTESTANTS = ("original", "again", "hardened")
Seconds = dict[str, list[float]]


def harden(path: Path, output: Path) -> str:
    """Write the model with the default tap's share of 5% removed, and say so; which features go is all one here."""
    model = ck.load(path)
    tap = ck.find_tap(model, None)
    assert tap.features is not None
    weights = np.ones(tap.features, np.float32)
    weights[: max(1, tap.features // 20)] = 0
    mask = ck.Mask(tap.name, weights)
    ck.harden_file(model, [mask], output)
    return f"{len(mask.removed)} of {tap.features}"


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def sample(run: ort.InferenceSession, batch: int) -> dict[str, NDArray[np.float32]]:
    entry = run.get_inputs()[0]
    shape = (batch, *entry.shape[1:])
    return {entry.name: np.random.default_rng(0).random(shape, np.float32)}


def block(run: ort.InferenceSession, feed: dict[str, NDArray[np.float32]], seconds: float) -> float:
    """Return the median time of a call, over calls for so many seconds; the first three are not counted."""
    for _ in range(3):
        run.run(None, feed)
    calls: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(calls) < 5:
        start = time.perf_counter()
        run.run(None, feed)
        calls.append(time.perf_counter() - start)
    return statistics.median(calls)


def rounds_of(original: Path, hardened: Path, batch: int, options: argparse.Namespace) -> Seconds:
    """Time blocks of calls in turn, with new sessions several times: where a session's memory lies matters too."""
    seconds: Seconds = {name: [] for name in CONTESTANTS}
    for fresh in range(options.sessions):
        turned = CONTESTANTS[fresh % 3 :] + CONTESTANTS[: fresh % 3]
        files = {name: hardened if name == "hardened" else original for name in turned}
        running = {name: session(file, options.threads) for name, file in files.items()}
        feed = sample(running["original"], batch)
        for index in range(options.rounds):
            turn = index % len(turned)
            for name in turned[turn:] + turned[:turn]:
                seconds[name].append(block(running[name], feed, options.block))
        common.progress(f"{original.name}, batch {batch}: sessions {fresh + 1} of {options.sessions}")
    return seconds


def row(path: Path, batch: int, options: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "hardened.onnx"
        removed = harden(path, output)
        seconds = rounds_of(path, output, batch, options)
    times = [f"{statistics.median(seconds[name]) * 1000:.3f}" for name in ("original", "hardened")]
    found = [common.spread(common.ratios(seconds[name], seconds["original"]), 3) for name in ("hardened", "again")]
    return [path.name, removed, str(batch), *times, *found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--sessions", type=int, default=6, help="how often sessions are made anew  [6]")
    parser.add_argument("--rounds", type=int, default=20, help="alternating rounds with the same sessions  [20]")
    parser.add_argument("--block", type=float, default=0.1, help="seconds of calls at a time  [0.1]")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; 0 for its default  [0]")
    options = parser.parse_args()
    print(common.machine("numpy", "onnx", "onnxruntime-gpu", "onnxruntime"))
    print(f"\nMedian of {options.sessions} x {options.rounds} alternating rounds, ratios [quartiles]:\n")
    paths = [common.assets() / "models" / name for name in MODELS]
    rows = [row(path, batch, options) for path in paths for batch in options.batch_sizes]
    head = ["model", "features removed", "batch", "original, ms", "hardened, ms"]
    print(common.table([*head, "hardened / original", "original / itself"], rows))


if __name__ == "__main__":
    main()
