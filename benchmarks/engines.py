"""Ray's workers: what dispatch costs, how two scale, the driver's memory, and how often a large model is sent.

    python benchmarks/engines.py overhead [--rounds 5] [--images 600]
    python benchmarks/engines.py scaling  [--rounds 5] [--images 600]
    python benchmarks/engines.py memory   [--samples 10000,100000]
    python benchmarks/engines.py model    [--megabytes 300]

overhead: `evaluate --attack quick` of ResNet-20 by one worker of Ray against one thread in this process. scaling: the
same by two workers of one thread each against two plain processes side by side, each with half of the images. memory:
the driver's peak while noise is added to few and to many samples. model: a model in memory on a cluster of three nodes.
Needs the environment of `make test-cluster`, and $CLOAKONNX_ASSETS for the first two.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import alternate, assets, machine, ratios, spread, table
from onnx import TensorProto, helper, numpy_helper

import cloakonnx as ck
from cloakonnx.data.sources import ArraySource
from cloakonnx.graph.file.model import load_bytes

EPS = 1 / 255
SHAPE = (1, 8, 8)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "scaling", "memory", "model", "driver"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--samples", default="10000,100000")
    parser.add_argument("--megabytes", type=int, default=300)
    options = parser.parse_args()
    if options.what == "driver":  # one measurement of memory, in a process of its own
        print(driver(int(options.samples)))
        return
    print(machine("onnxruntime-gpu", "ray"))
    {"overhead": overhead, "scaling": scaling, "memory": memory, "model": model}[options.what](options)


def evaluated(engine: ck.engines.Engine, images: slice) -> None:
    """Evaluate ResNet-20 on some of the test images."""
    classifier = ck.Classifier(assets() / "models" / "cifar10_resnet20.onnx", provider=ck.choose_provider("cpu"))
    archive = np.load(assets() / "data" / "cifar10_test600.npz")
    x = archive["x"][images]
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
    data = ck.records.Dataset.of(ArraySource("test", x, archive["y"][images]), classifier)
    ck.evaluate(classifier, data, eps=[EPS], attack="quick", batch_size=BATCH, sanity=False, engine=engine)


def overhead(options: argparse.Namespace) -> None:
    """Time one worker of Ray against one thread here; the worker has started, and its sessions are new each time."""
    engines = {"one thread": ck.engines.Threads(1), "one worker of Ray": ck.engines.Ray(workers=1)}
    images = slice(options.images)
    seconds = alternate(
        {name: lambda engine=engine: evaluated(engine, images) for name, engine in engines.items()},  # type: ignore[misc]
        options.rounds,
    )
    first = seconds["one thread"]
    rows = [[name, spread(found, 1), spread(ratios(found, first), 3)] for name, found in seconds.items()]
    print(table([f"{options.images} images", "s", "times as long as one thread"], rows))


def scaling(options: argparse.Namespace) -> None:
    """Time two workers of Ray against two plain processes, which are there already and start together."""
    ray = ck.engines.Ray(workers=2)
    context = multiprocessing.get_context("spawn")
    half = options.images // 2 // BATCH * BATCH or options.images // 2
    parts = [slice(half), slice(half, options.images)]
    pipes, processes = [], []
    for part in parts:
        here, there = context.Pipe()
        processes.append(context.Process(target=plain, args=(there, part), daemon=True))
        processes[-1].start()
        pipes.append(here)

    def side_by_side() -> None:
        for pipe in pipes:
            pipe.send("go")
        for pipe in pipes:
            pipe.recv()

    jobs = {"two plain processes": side_by_side, "two workers of Ray": lambda: evaluated(ray, slice(options.images))}
    seconds = alternate(jobs, options.rounds)
    first = seconds["two plain processes"]
    rows = [[name, spread(found, 1), spread(ratios(first, found), 3)] for name, found in seconds.items()]
    print(table([f"{options.images} images", "s", "times as fast as two processes"], rows))
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send("end")
        process.join()


def plain(pipe: Any, part: slice) -> None:
    """Evaluate some images whenever asked to."""
    while pipe.recv() == "go":
        evaluated(ck.engines.Threads(1), part)
        pipe.send("done")


class Drawn:
    """Samples that are drawn again whenever they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self.count, BATCH):
            size = min(BATCH, self.count - start)
            random = np.random.default_rng(start)
            yield random.random((size, *SHAPE), np.float32), random.integers(0, 10, size)


def driver(count: int) -> str:
    """Return the peak of this process's memory before and after noise was added to samples, in MB."""
    engine = ck.engines.Ray(workers=2)
    with tempfile.TemporaryDirectory() as folder:

        def peak(samples: int) -> float:
            ck.attack(
                "samples/digits_cnn.onnx",
                Drawn(samples),
                ck.attacks.Noise(eps=1 / 16),
                output=Path(folder) / "noise.npz",
                batch_size=BATCH,
                engine=engine,
            )
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        before = peak(20 * BATCH)  # graphs, sessions and the connection are there from now on
        return f"{before:.1f} {peak(count):.1f}"


def memory(options: argparse.Namespace) -> None:
    """Print the peaks for each number of samples, each from a process of its own."""
    rows = []
    for count in options.samples.split(","):
        asked = [sys.executable, __file__, "driver", "--samples", count]
        found = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        before, after = found.stdout.split()
        rows.append([count, before, after, f"{float(after) - float(before):.1f}"])
    print(table(["samples", f"peak after {20 * BATCH}, MB", "peak after all, MB", "growth, MB"], rows))


def large(megabytes: int) -> ck.Model:
    """Return a classifier in memory whose weights take this many megabytes."""
    width = int((megabytes << 20) / 4 / (64 + 10))
    random = np.random.default_rng(0)
    weights = {
        "first": random.normal(size=(64, width)).astype(np.float32) / 8,
        "second": random.normal(size=(width, 10)).astype(np.float32) / np.sqrt(width).astype(np.float32),
    }
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["rectified"]),
        helper.make_node("MatMul", ["rectified", "second"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.onnx"
        onnx.save(proto, path)
        mask = np.ones(width, np.float32)
        mask[0] = 0
        made = ck.apply(ck.load(path), [ck.Mask("rectified", mask)])
        return load_bytes(made.content[:])


def model(options: argparse.Namespace) -> None:
    """Count how often a model is put into Ray's store, and how many nodes get it."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.experimental import get_object_locations

    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.environ["RAY_TMPDIR"] = folder
        (Path(folder) / "ray").mkdir()
        cluster = Cluster()
        for _ in range(3):
            cluster.add_node(num_cpus=2, object_store_memory=(4 * options.megabytes) << 20, include_dashboard=False)
        stored: list[Any] = []
        put = ray.put

        def counted(value: Any, **given: Any) -> Any:
            stored.append(put(value, **given))
            return stored[-1]

        ray.put = counted
        engine = ck.engines.Ray(cluster.address)
        classifier = ck.Classifier(large(options.megabytes), provider=ck.choose_provider("cpu"))
        began = time.perf_counter()
        ck.attack(classifier, Drawn(60 * BATCH), ck.attacks.Noise(eps=1 / 16), batch_size=BATCH, engine=engine)
        seconds = time.perf_counter() - began
        rows = []
        for each in get_object_locations(stored).values():
            size = (each["object_size"] or 0) / (1 << 20)
            if size >= options.megabytes / 2:
                rows.append([f"{size:.0f} MB", str(len(each["node_ids"])), str(engine.alive), "60", f"{seconds:.1f}"])
        print(table(["put into the store", "nodes that have it", "workers", "batches", "s"], rows))
        engine.close()
        cluster.shutdown()


if __name__ == "__main__":
    main()
