"""Batches at a time: `--workers N` against one session of all threads, on ResNet-20, beside torchattacks and ART.

    python benchmarks/workers.py [--rounds 7] [--images 512] [--workers N] [--only TEXT] [--busy] [--no-peers]

PGD-10 at batch 128 (all steps for every sample, as the peers take them) and at the default batch of 64 (samples leave
once they are fooled), an evaluation, and learning with its trials: each by the function that the command line calls.
Then the steps of learning alone, cut into as many parts as there are workers. N is the number of cores where it is not
given. `--only TEXT` takes the cases whose names have it. `--busy` keeps one core busy with another process. Needs the
environment of `make test-peers`, without the peers nothing beside cloakonnx.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, assets, machine, ratios, spread, table
from numpy.typing import NDArray

import cloakonnx as ck
from cloakonnx.attacks.methods.pgd import PGD
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.data.loaded import Loaded
from cloakonnx.data.sources import ArraySource
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.steps import Part, StepWork, outcome

EPS, STEP, STEPS = 1 / 255, 0.25 / 255, 10
Images = NDArray[np.float32]
Job = Callable[[], object]


def main() -> None:
    """Time every pair of jobs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--busy", action="store_true", help="keep one core busy with another process")
    parser.add_argument("--only", default="")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    print(machine("onnxruntime-gpu", "torch", "torchattacks", "adversarial-robustness-toolbox"))
    print("another process holds a core\n" if options.busy else "")
    busy = multiprocessing.Process(target=_spin, daemon=True)
    if options.busy:
        busy.start()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, samples, jobs in cases(options, Path(folder)):
            if options.only not in name:
                continue
            seconds = alternate(jobs, options.rounds)
            first = seconds["one session"]
            for contender, found in seconds.items():
                speed = spread([samples / s for s in found], 1)
                rows.append([f"{name}: {contender}", speed, spread(ratios(first, found))])
    print(table(["", "images/s", "times as fast as one session"], rows))


def cases(options: argparse.Namespace, folder: Path) -> list[tuple[str, int, dict[str, Job]]]:
    """Return each case: its name, how many images go through it, and its contenders."""
    path = assets() / "models" / "cifar10_resnet20.onnx"
    x, y = images("cifar10_test600", options.images)
    train, labels = images("cifar10_train4000", options.images)
    classifier = ck.Classifier(path, provider=ck.choose_provider("cpu"))
    data = ck.records.Dataset.of(ArraySource("test", x, y), classifier)
    learning = ck.records.Dataset.of(ArraySource("train", train, labels), classifier)
    weights = np.ones(64, np.float32)
    weights[:4] = 0
    masked = ck.Classifier(
        ck.apply(classifier.model, [ck.Mask(find_tap(classifier.model, None).name, weights)]),
        provider=classifier.provider,
    )
    engines: dict[str, ck.engines.Engine] = {
        "one session": ck.engines.InProcess(),
        f"{options.workers} workers": ck.engines.Threads(options.workers),
    }

    def each(run: Callable[[ck.engines.Engine], object]) -> dict[str, Job]:
        return {name: lambda engine=engine: run(engine) for name, engine in engines.items()}  # type: ignore[misc]

    def attacked(batch_size: int, **settings: Any) -> Callable[[ck.engines.Engine], object]:
        pgd = PGD(eps=EPS, eps_step=STEP, max_iter=STEPS, **settings)
        return lambda engine: ck.attack(
            classifier, data, pgd, output=folder / "a.npz", batch_size=batch_size, engine=engine
        )

    def evaluated(engine: ck.engines.Engine) -> object:
        return ck.evaluate(masked, data, eps=[EPS], attack="pgd", max_iter=STEPS, sanity=False, engine=engine)

    def learned(engine: ck.engines.Engine) -> object:
        recipe = ck.Recipe(eps=2 / 255, budget=0.04, epochs=1)
        return ck.learn(classifier, learning, recipe, select=data, over_budget=True, engine=engine)

    first = each(attacked(128, early_stop=False))
    if not options.no_peers:
        first |= peers(path, x, y, batch_size=128)
    return [
        (f"PGD-{STEPS}, batch 128, all steps", len(x), first),
        (f"PGD-{STEPS}, batch 64, early stopping", len(x), each(attacked(64))),
        ("evaluate --attack pgd, batch 64", len(x), each(evaluated)),
        ("learn, 1 epoch and its trials", len(train), each(learned)),
        (f"learn, the steps of 1 epoch, {options.workers} parts", len(train), steps(classifier, learning, engines)),
    ]


def steps(classifier: ck.Classifier, data: ck.records.Dataset, engines: dict[str, ck.engines.Engine]) -> dict[str, Job]:
    """Return the steps of an epoch without trials: whole ones in one session, and as many parts as workers."""
    recipe = ck.Recipe(eps=3 / 255, budget=0.04, granularity="weight")
    shape = data.sample_shape
    samples = Loaded.read(data)

    def job(engine: ck.engines.Engine) -> Job:
        placed = classifier.with_threads(engine.threads)
        masked = MaskedClassifier(placed, first_masks(placed.model, "weight"))
        masked.prepare(shape)
        work, first = StepWork(masked, placed, recipe, shape), masked.weights

        def run() -> None:
            with engine.open(work) as pool:
                for number, each in enumerate(samples.labelled(recipe.batch_size)):
                    masks = {key: weights * np.float32(1 + 1e-3 * number) for key, weights in first.items()}
                    step = Part(each.x, each.y, each.indices, 0, recipe.eps, masks)
                    outcome(pool, list(step.cut(engine.workers, 1)))

        return run

    return {name: job(engine) for name, engine in engines.items()}


def images(name: str, count: int) -> tuple[Images, NDArray[np.int64]]:
    """Return the first images of a file, (N, 3, 32, 32) in [0, 1], and their labels."""
    with np.load(assets() / "data" / f"{name}.npz") as data:
        x = data["x"][:count].astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
        return np.ascontiguousarray(x), data["y"][:count]


def peers(path: Path, x: Images, y: NDArray[np.int64], *, batch_size: int) -> dict[str, Job]:
    """Return the peers' PGD on all images, batch by batch, as jobs."""
    from attacks import art_job, torchattacks_job
    from resnet20 import from_onnx

    net = from_onnx(path)
    parts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
    made = {"torchattacks": torchattacks_job, "ART": art_job}

    def all_batches(jobs: list[Job]) -> Job:
        return lambda: [job() for job in jobs]

    return {name: all_batches([make(net, x[part], y[part]) for part in parts]) for name, make in made.items()}


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
