"""The hardened model's latency against the original's, in ONNX Runtime on the CPU.

python benchmarks/latency.py

A second session of the original runs along: its ratio to the first is what noise alone makes. The second table has a
mask after every Relu, as Mul nodes and folded into the weights, the third one masks on every weight and bias at each
granularity, with the time that a session takes to make and the size of the file.

python benchmarks/latency.py --only weights --threads 1 --cpu-time    # for a machine that others use too
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import cloakonnx as ck
from cloakonnx.graph.fold.fold import fold_file
from cloakonnx.graph.masks.granularity import granularity
from cloakonnx.graph.masks.mask import INPUT_CHANNEL, KERNEL, OUTPUT_CHANNEL, WEIGHT
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.masks.weights import list_weights

MODELS = ["cifar10_resnet20.onnx", "mnist_cnn_raw.onnx"]
UNITS = {"weight-channel": (OUTPUT_CHANNEL, INPUT_CHANNEL), "kernel": (KERNEL,), "weight": (WEIGHT,)}
Seconds = dict[str, list[float]]


def harden(path: Path, output: Path) -> str:
    """Write the model with the default tap's share of 5% removed, and say so; which features go is all one here."""
    model = ck.load(path)
    tap = find_tap(model, None)
    assert tap.features is not None
    weights = np.ones(tap.features, np.float32)
    weights[: max(1, tap.features // 20)] = 0
    mask = ck.Mask(tap.name, weights)
    ck.apply(model, [mask], output)
    return f"{len(mask.removed)} of {tap.features}"


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def sample(run: ort.InferenceSession, batch: int) -> dict[str, NDArray[np.float32]]:
    entry = run.get_inputs()[0]
    shape = (batch, *entry.shape[1:])
    return {entry.name: np.random.default_rng(0).random(shape, np.float32)}


def block(run: ort.InferenceSession, feed: dict[str, NDArray[np.float32]], options: argparse.Namespace) -> float:
    """Return the median time of a call, over calls for so many seconds; the first three are not counted."""
    now = clock(options)
    for _ in range(3):
        run.run(None, feed)
    calls: list[float] = []
    end = time.perf_counter() + options.block
    while time.perf_counter() < end or len(calls) < 5:
        start = now()
        run.run(None, feed)
        calls.append(now() - start)
    return statistics.median(calls)


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """Return what tells the time: of the clock on the wall, or the processor's time of this process."""
    return time.process_time if options.cpu_time else time.perf_counter


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
                seconds[name].append(block(running[name], feed, options))
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
    taps = [find_tap(model, node.output[0]) for node in model.proto.graph.node if node.op_type == "Relu"]
    masks = [ck.Mask(tap.name, rng.uniform(0.05, 2, tap.features or 0).astype(np.float32)) for tap in taps]
    with tempfile.TemporaryDirectory() as folder:
        mul, folded = Path(folder) / "mul.onnx", Path(folder) / "folded.onnx"
        ck.apply(model, masks, mul)
        count = sum(fate.folded for fate in fold_file(model, masks, folded))
        seconds = rounds_of({"original": path, "again": path, "mul": mul, "folded": folded}, batch, options)
    return [path.name, f"{count} of {len(masks)}", str(batch), *cells(seconds, ["mul", "folded"])]


def masks_on_weights(model: ck.Model, units: tuple[str, ...]) -> list[ck.Mask]:
    """Return seeded masks in [0.5, 1.5] on every weight and bias."""
    rng = np.random.default_rng(0)
    return [
        ck.Mask(place.name, rng.uniform(0.5, 1.5, granularity(unit).shape(place)), granularity=unit)
        for place in list_weights(model, biases=True)
        for unit in (units if place.input_axis is not None else (WEIGHT,))
    ]


def weight_rows(path: Path, options: argparse.Namespace) -> list[list[str]]:
    """Time masks on weights at each granularity: calls, and how long a session takes to make."""
    model = ck.load(path)
    with tempfile.TemporaryDirectory() as folder:
        files, numbers = {"original": path, "again": path}, {"original": "0", "again": "0"}
        for unit, units in UNITS.items():
            masks = masks_on_weights(model, units)
            for name, listed in ((unit, masks), (f"{unit}, float16", [mask.as_float16() for mask in masks])):
                files[name] = Path(folder) / f"{len(files)}.onnx"
                ck.apply(model, listed, files[name])
                numbers[name] = f"{sum(mask.weights.size for mask in masks):,}"
        made = sessions_made(files, options)
        calls = [rounds_of(files, batch, options) for batch in options.batch_sizes]
        size = path.stat().st_size
        return [
            [
                f"{path.stem}: {'a second session' if name == 'again' else name}",
                numbers[name],
                *(common.spread(common.ratios(found[name], found["original"]), 3) for found in calls),
                common.spread(common.ratios(made[name], made["original"]), 2),
                f"{statistics.median(made[name]) * 1000:.1f}",
                f"{file.stat().st_size / size:.3f}",
            ]
            for name, file in files.items()
            if name != "original"
        ]


def sessions_made(files: dict[str, Path], options: argparse.Namespace) -> Seconds:
    """Time how long sessions take to make, in turn."""
    now, names = clock(options), list(files)
    seconds: Seconds = {name: [] for name in names}
    for index in range(1 + options.sessions * 4):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            start = now()
            session(files[name], options.threads)
            if index:  # the first round is not counted
                seconds[name].append(now() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--sessions", type=int, default=6, help="how often sessions are made anew  [6]")
    parser.add_argument("--rounds", type=int, default=20, help="alternating rounds with the same sessions  [20]")
    parser.add_argument("--block", type=float, default=0.1, help="seconds of calls at a time  [0.1]")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; 0 for its default  [0]")
    parser.add_argument("--cpu-time", action="store_true", help="the processor's time of this process, not the wall's")
    parser.add_argument("--only", choices=["features", "folded", "weights"], help="one of the three tables  [all]")
    parser.add_argument("--models", nargs="+", default=MODELS, help=f"of the real ones  [{' '.join(MODELS)}]")
    options = parser.parse_args()
    print(common.machine("numpy", "onnx", "onnxruntime-gpu", "onnxruntime"))
    print(f"\nMedian of {options.sessions} x {options.rounds} alternating rounds, ratios [quartiles]:\n")
    paths = [common.assets() / "models" / name for name in options.models]
    only = options.only
    if only in {None, "features"}:
        rows = [row(path, batch, options) for path in paths for batch in options.batch_sizes]
        head = ["model", "features removed", "batch", "original, ms", "hardened, ms"]
        print(common.table([*head, "hardened / original", "original / itself"], rows), end="\n\n")
    if only in {None, "folded"}:
        rows = [folded_row(path, batch, options) for path in paths for batch in options.batch_sizes]
        head = ["model", "masks folded", "batch", "original, ms", "Mul nodes, ms", "folded, ms"]
        ends = ["Mul nodes / original", "folded / original", "original / itself"]
        print(common.table([*head, *ends], rows), end="\n\n")
    if only in {None, "weights"}:
        rows = [each for path in paths for each in weight_rows(path, options)]
        batches = [f"latency / original, batch {batch}" for batch in options.batch_sizes]
        head = ["masks on weights", "numbers", *batches, "session / original", "session, ms", "file / original"]
        print(common.table(head, rows))


if __name__ == "__main__":
    main()
