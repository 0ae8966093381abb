"""The hardened model's latency against the original's, in ONNX Runtime on the CPU.

python benchmarks/latency.py

A second session of the original runs along: its ratio to the first is what noise alone makes. The second table has a
mask after every Relu, as Mul nodes and folded into the weights.
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


def rounds_of(files: dict[str, Path], batch: int, options: argparse.Namespace) -> Seconds:
    """Time blocks of calls in turn, with new sessions several times: where a session's memory lies matters too."""
    names = list(files)
    seconds: Seconds = {name: [] for name in names}
    for fresh in range(options.sessions):
        turned = names[fresh % len(names) :] + names[: fresh % len(names)]
        running = {name: session(files[name], options.threads) for name in turned}
        feed = sample(running["original"], batch)
        for index in range(options.rounds):
            turn = index % len(turned)
            for name in turned[turn:] + turned[:turn]:
                seconds[name].append(block(running[name], feed, options.block))
        common.progress(f"{files['original'].name}, batch {batch}: sessions {fresh + 1} of {options.sessions}")
    return seconds


def cells(seconds: Seconds, names: list[str]) -> list[str]:
    """Return times of the original and some others, and ratios of these and of the original to itself."""
    times = [f"{statistics.median(seconds[name]) * 1000:.3f}" for name in ("original", *names)]
    found = [common.spread(common.ratios(seconds[name], seconds["original"]), 3) for name in (*names, "again")]
    return [*times, *found]


def row(path: Path, batch: int, options: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "hardened.onnx"
        removed = harden(path, output)
        seconds = rounds_of({"original": path, "again": path, "hardened": output}, batch, options)
    return [path.name, removed, str(batch), *cells(seconds, ["hardened"])]


def folded_row(path: Path, batch: int, options: argparse.Namespace) -> list[str]:
    """Time a model with seeded masks in [0.05, 2] after every Relu, as Mul nodes and folded."""
    model = ck.load(path)
    rng = np.random.default_rng(0)
    taps = [ck.find_tap(model, node.output[0]) for node in model.proto.graph.node if node.op_type == "Relu"]
    masks = [ck.Mask(tap.name, rng.uniform(0.05, 2, tap.features or 0).astype(np.float32)) for tap in taps]
    with tempfile.TemporaryDirectory() as folder:
        mul, folded = Path(folder) / "mul.onnx", Path(folder) / "folded.onnx"
        ck.harden_file(model, masks, mul)
        count = sum(fate.folded for fate in ck.fold_file(model, masks, folded))
        seconds = rounds_of({"original": path, "again": path, "mul": mul, "folded": folded}, batch, options)
    return [path.name, f"{count} of {len(masks)}", str(batch), *cells(seconds, ["mul", "folded"])]


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
    print()
    rows = [folded_row(path, batch, options) for path in paths for batch in options.batch_sizes]
    head = ["model", "masks folded", "batch", "original, ms", "Mul nodes, ms", "folded, ms"]
    print(common.table([*head, "Mul nodes / original", "folded / original", "original / itself"], rows))


if __name__ == "__main__":
    main()
