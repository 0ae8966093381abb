"""Past the cores at hand: batches timed here, then played through on 1 to 4,096 workers.

    python benchmarks/scale.py [--attack quick] [--images 128] [--batch-sizes 8,16,32,64] [--samples 10000]
                               [--seconds-per-image X] [--failures 0.01] [--dispatch S --wait S --start S]

ResNet-20 of $CLOAKONNX_ASSETS at eps 1/255. Batches are uneven, for samples leave an attack once they fall; so each is
run for real, in sessions of one thread, and its CPU time is taken, which other work on the machine hardly changes. The
driver's time for a batch and a worker's start are measured on a local Ray where that is installed; elsewhere name
them: --dispatch (seconds a batch), --wait (seconds a batch for each worker that is waited for) and --start. Batches of
a job of --samples images are drawn from those timed; with --seconds-per-image once more as if a model took so long for
an image. Failures are per node and hour; a node has 8 workers.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from common import assets, machine, progress, table
from workers import images

import cloakonnx as ck
from cloakonnx.data.batch import Batch
from cloakonnx.engine.batches import Tell
from cloakonnx.engine.schedule import Overheads, Schedule, schedule
from cloakonnx.evaluation.preparation import Prepared
from cloakonnx.text import spoken

EPS = 1 / 255
WORKERS = (1, 4, 16, 64, 256, 1024, 4096)
EMPTY = 300
"""Batches without work, by which the driver's time is measured."""


class Driver(NamedTuple):
    """What a run on Ray costs beside its batches, in seconds.

    Attributes:
        dispatch: Of the driver, for a batch.
        wait: Of the driver, for a batch and each worker that it waits for.
        start: Until a worker handles its first batch.
    """

    dispatch: float
    wait: float
    start: float

    def overheads(self, workers: int, *, failures: float) -> Overheads:
        """Return them for a number of workers that have batches."""
        return Overheads(self.dispatch + self.wait * workers, self.start, failures, per_node=8)


def main() -> None:
    """Time batches and the driver, and print what workers would make of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", default="quick")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-sizes", default="8,16,32,64")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seconds-per-image", type=float)
    parser.add_argument("--failures", type=float, default=0.01)
    for name in ("--dispatch", "--wait", "--start"):
        parser.add_argument(name, type=float)
    options = parser.parse_args()
    print(machine("onnxruntime-gpu", "ray"))
    times = {
        int(size): batch_times(options.attack, options.images, int(size)) for size in options.batch_sizes.split(",")
    }
    print(f"\nevaluate --attack {options.attack}, ResNet-20, eps 1/255, {options.images} images, CPU time\n")
    print(
        table(
            ["batch", "batches", "s a batch: least", "median", "most", "s an image"], list(map(spread, times.items()))
        )
    )
    driver = measured_driver() if options.start is None else Driver(options.dispatch, options.wait, options.start)
    shown = f"{driver.dispatch * 1e3:.2g} ms a batch, {driver.wait * 1e6:.2g} us more for each worker"
    print(f"\ndriver: {shown}; a worker starts in {driver.start:.2g} s\n")
    head = ["workers", "batch", "time", "efficiency", "idle at the end: median", "99%", "time lost to failures", ""]
    job = Job(options.samples, 1.0, driver, options.failures)
    print(table(head, rows(times, job)))
    if options.seconds_per_image is not None:
        longer = options.seconds_per_image * max(times) / statistics.fmean(times[max(times)])
        print(f"\nas if an image took {options.seconds_per_image:g} s at batch {max(times)}: times x {longer:.3g}\n")
        print(table(head, rows(times, job._replace(longer=longer))))


def batch_times(attack: str, count: int, size: int) -> list[float]:
    """Return CPU seconds of each batch of an evaluation, in sessions of one thread."""
    x, y = images("cifar10_test600", count)
    model = ck.Classifier(assets() / "models" / "cifar10_resnet20.onnx", provider=ck.choose_provider("cpu"))
    engine = ck.engines.Threads(1)
    asked = Prepared.of(model, (x, y), eps=EPS, attack=attack, baseline=None, batch_size=size, engine=engine)
    handle = asked.work.start()
    found = []
    for number, batch in enumerate(asked.batches()):
        if not number:
            handle(batch.take(np.arange(1)), lambda share: None)  # the first run makes the sessions
        start = time.process_time()
        handle(batch, lambda share: None)
        found.append(time.process_time() - start)
        progress(f"batch size {size}: {number + 1} of {math.ceil(count / size)}")
    return found


def spread(measured: tuple[int, list[float]]) -> list[str]:
    """Return how uneven batches of a size are, as a row."""
    size, times = measured
    shown = (min(times), statistics.median(times), max(times), statistics.fmean(times) / size)
    return [str(size), str(len(times)), *(f"{each:.3g}" for each in shown)]


@dataclass(frozen=True)
class Nothing:
    """Work that takes no time."""

    record: Any = None
    result: type[int] = int

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], int]:
        return lambda batch, tell: batch.size


def measured_driver() -> Driver:
    """Measure on a Ray of this machine, with one worker and batches of 64 images that travel and need no work."""
    import ray

    engine = ck.engines.Ray(workers=1)
    x, y = images("cifar10_test600", 64)
    with engine.open(Nothing()) as pool:
        first, dispatch = _timed_run(pool, x, y)
    waits = _waits(ray)
    del engine
    return Driver(dispatch, waits, first)


def _timed_run(pool: Any, x: Any, y: Any) -> tuple[float, float]:
    """Return seconds until the first batch is done, and for each after that."""
    start = time.perf_counter()
    batches = ((number, Batch(x, y, 64 * number)) for number in range(EMPTY + 1))
    done = pool.run(batches, lambda number, share: None)
    next(done)
    first = time.perf_counter()
    for _ in done:
        pass
    return first - start, (time.perf_counter() - first) / EMPTY


def _waits(ray: Any) -> float:
    """Return seconds that waiting for one of many batches takes, for each worker with two of them."""

    class Sleeper:
        def nap(self) -> None:
            time.sleep(600)

    sleeper = ray.remote(num_cpus=0)(Sleeper).remote()
    seconds = []
    for count in (1024, 8192):
        references = [sleeper.nap.remote() for _ in range(count)]
        start = time.perf_counter()
        for _ in range(5):
            ray.wait(references, num_returns=1, timeout=0)
        seconds.append((time.perf_counter() - start) / 5)
    ray.kill(sleeper)
    return max(2 * (seconds[1] - seconds[0]) / (8192 - 1024), 0.0)


class Job(NamedTuple):
    """What is played through.

    Attributes:
        samples: How many.
        longer: How many times as long a batch takes as those that were timed.
        driver: What a run costs beside its batches.
        failures: Of a node, in an hour.
    """

    samples: int
    longer: float
    driver: Driver
    failures: float

    def on(self, workers: int, times: Sequence[float], size: int) -> Schedule:
        """Play it through: its batches are drawn from those that were timed."""
        drawn = np.random.default_rng(0).choice(times, math.ceil(self.samples / size)) * self.longer
        overheads = self.driver.overheads(min(workers, len(drawn)), failures=self.failures)
        return schedule(drawn.tolist(), workers, overheads=overheads)


def rows(times: dict[int, list[float]], job: Job) -> Iterator[list[str]]:
    """Yield a row for each number of workers and batch size; the size with the shortest time is marked.

    Efficiency is the work of the cheapest size in the time of all workers, so that small batches, which take longer for
    an image, do not look good.
    """
    for workers in WORKERS:
        played = {size: job.on(workers, found, size) for size, found in times.items()}
        best = min(played, key=lambda size: played[size].seconds)
        least = min(each.work for each in played.values())
        for size, found in played.items():
            yield [
                str(workers),
                str(size),
                spoken(found.seconds),
                f"{least / (workers * found.seconds):.0%}",
                spoken(float(np.quantile(found.tails, 0.5))),
                spoken(float(np.quantile(found.tails, 0.99))),
                f"{found.lost / found.work:.1%}",
                "shortest" if size == best else "",
            ]
        progress(f"{workers} workers")


if __name__ == "__main__":
    main()
