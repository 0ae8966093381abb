"""The preset `standard` beside torchattacks' AutoAttack on the same weights and images: what happens to each image.

`OMP_NUM_THREADS=1 python -m tests.peers.attacks.autoattack --images 100 --eps 1/255 --out FOLDER`, from the root of the
checkout; `--model cifar10_resnet56` for the other one. Needs the environment of `make test-peers` and the real models
and data. Results are written batch by batch, and what is there already is not run again.

torchattacks 3.5.1 runs APGD, APGD-T and FAB-T for 10 steps each in its AutoAttack, where the paper and its published
code have 100; they are set to 100 here. `--who torchattacks-as-is` leaves them at 10.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cloakonnx.attacks.ball import Norm, ball
from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.presets import plan
from cloakonnx.text import parse_number
from tests.peers.attacks import quality

BATCH = 25
STEPS, QUERIES = 100, 5000
CLEAN = "clean"
NAMES = {"apgd-ce": "APGD-CE", "apgd-t": "APGD-T", "fab-t": "FAB-T", "square": "Square"}


@dataclass(frozen=True)
class Outcome:
    """What became of some images.

    Attributes:
        fell_to: For each image the attack that fooled, `clean` where none was needed, None where it stands.
        disagreed: For how many images the same network in torch predicts otherwise on what was found.
        seconds: It took.
    """

    fell_to: list[str | None]
    disagreed: int
    seconds: float

    @property
    def stands(self) -> NDArray[np.bool_]:
        """(N,) whether an image is robust."""
        return np.array([each is None for each in self.fell_to])

    def __add__(self, other: Outcome) -> Outcome:
        """Join the outcomes of two batches."""
        return Outcome(self.fell_to + other.fell_to, self.disagreed + other.disagreed, self.seconds + other.seconds)


@dataclass(frozen=True)
class Task:
    """What is attacked, and with which budgets."""

    model: str
    eps: float
    norm: Norm = "linf"
    steps: int = STEPS
    queries: int = QUERIES

    def batch(self, start: int, stop: int) -> tuple[quality.Images, quality.Labels]:
        """Return images and labels."""
        x, y = quality.samples(stop)
        return x[start:stop], y[start:stop]

    def attacks(self) -> list[Attack]:
        """Return the preset's attacks, with the budgets of this task."""
        budgets = {name: self.queries if name == "square" else self.steps for name in NAMES}
        return [replace(each, max_iter=budgets[each.name]) for each in plan("standard", eps=self.eps, norm=self.norm)]


def predicted(model: str, x: quality.Images) -> NDArray[np.int64]:
    """Return the classes that torch predicts."""
    return _classes(quality.network(model), x)


def _classes(net: torch.nn.Module, x: quality.Images) -> NDArray[np.int64]:
    with torch.no_grad():
        return np.asarray(net(torch.from_numpy(x)).argmax(1).numpy())


def ours(task: Task, start: int, stop: int) -> Outcome:
    """Run the preset."""
    x, y = task.batch(start, stop)
    began = time.monotonic()
    victim = quality.victim(task.model)
    fell_to: list[str | None] = [CLEAN if wrong else None for wrong in victim.predict(x) != y]
    found = x.copy()
    for settings in task.attacks():
        rows = np.array([i for i, each in enumerate(fell_to) if each is None], np.int64)
        if not len(rows):
            break
        result = settings.run(victim, x[rows], y[rows], samples=start + rows)
        for row, fooled, image in zip(rows, result.success, result.x, strict=True):
            if fooled:
                fell_to[row], found[row] = settings.name, image
    seconds = time.monotonic() - began
    _check(found, x, task)
    stands = np.array([each is None for each in fell_to])
    return Outcome(fell_to, int(((predicted(task.model, found) == y) != stands).sum()), seconds)


def of_torchattacks(task: Task, start: int, stop: int) -> Outcome:
    """Run AutoAttack, with the paper's budgets."""
    return _autoattack(task, start, stop, as_is=False)


def of_torchattacks_as_is(task: Task, start: int, stop: int) -> Outcome:
    """Run AutoAttack as the package has it."""
    return _autoattack(task, start, stop, as_is=True)


def _autoattack(task: Task, start: int, stop: int, *, as_is: bool) -> Outcome:
    x, y = task.batch(start, stop)
    return autoattack(quality.network(task.model), x, y, task, as_is=as_is)


def autoattack(
    net: torch.nn.Module, x: quality.Images, y: quality.Labels, task: Task, *, seed: int = 0, as_is: bool = False
) -> Outcome:
    """Run torchattacks' AutoAttack on a network, attack by attack on what those before have left."""
    import torchattacks

    began = time.monotonic()
    kind = {"linf": "Linf", "l2": "L2"}[task.norm]
    made: Any = torchattacks.AutoAttack(net, norm=kind, eps=task.eps, version="standard", n_classes=10, seed=seed)
    stages = made._autoattack.attacks  # APGD, APGD-T, FAB-T, Square, in this order
    if not as_is:
        for stage in stages[:3]:
            stage.steps = task.steps
        stages[3].n_queries = task.queries
    fell_to: list[str | None] = [CLEAN if wrong else None for wrong in _classes(net, x) != y]
    for name, stage in zip(NAMES, stages, strict=True):
        rows = np.array([i for i, each in enumerate(fell_to) if each is None], np.int64)
        if not len(rows):
            break
        found = stage(torch.from_numpy(x[rows]), torch.from_numpy(y[rows])).detach().numpy()
        _check(found, x[rows], task)
        for row, fooled in zip(rows, _classes(net, found) != y[rows], strict=True):
            if fooled:
                fell_to[row] = name
    return Outcome(fell_to, 0, time.monotonic() - began)


def _check(found: quality.Images, x: quality.Images, task: Task) -> None:
    size = ball(task.norm, 0).measure(found - x.astype(np.float64)).max()
    if size > task.eps + 1e-5 or found.min() < 0 or found.max() > 1:
        raise AssertionError(f"outside ball or bounds: {size:g}")


WHO: dict[str, Callable[[Task, int, int], Outcome]] = {
    "cloakonnx": ours,
    "torchattacks": of_torchattacks,
    "torchattacks-as-is": of_torchattacks_as_is,
}


def outcomes(who: str, task: Task, images: int, folder: Path | None = None) -> Outcome:
    """Attack the first images batch by batch; what the folder has already is taken from there."""
    whole = Outcome([], 0, 0.0)
    for start in range(0, images, BATCH):
        stop = min(start + BATCH, images)
        name = f"{who}-{task.model}-{task.norm}-{task.eps * 255:g}-{task.steps}-{task.queries}-{start}-{stop}.json"
        file = None if folder is None else folder / name
        if file is not None and file.exists():
            part = Outcome(**json.loads(file.read_text()))
        else:
            part = WHO[who](task, start, stop)
            if file is not None:
                file.write_text(json.dumps(part.__dict__))
                print(f"{file.name}: {int(part.stands.sum())} stand, {part.seconds:.0f} s", flush=True)
        whole += part
    return whole


def main() -> None:
    """Print what each library left standing, and every image on which they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=quality.MODEL)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--eps", default="1/255")
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--who", nargs="+", choices=list(WHO), default=["cloakonnx", "torchattacks"])
    parser.add_argument("--out", type=Path, help="folder of results, to go on from")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    task = Task(options.model, parse_number(options.eps), options.norm)
    found = {who: outcomes(who, task, options.images, options.out) for who in options.who}
    print(f"{options.model}, {options.images} images, {options.norm} {options.eps}")
    print("| who | clean | " + " | ".join(NAMES.values()) + " | stand | torch disagrees | seconds |")
    print("|---|" + "---:|" * (len(NAMES) + 4))
    for who, each in found.items():
        falls = [sum(fell == name for fell in each.fell_to) for name in (CLEAN, *NAMES)]
        left = [len(each.fell_to) - sum(falls[: i + 1]) for i in range(len(falls))]
        cells = [who, *left, left[-1], each.disagreed, f"{each.seconds:.0f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    names = list(found)
    for other in names[1:]:
        differ = np.flatnonzero(found[names[0]].stands != found[other].stands)
        print(f"{names[0]} and {other} differ on {len(differ)}:")
        for i in differ:
            print(f"  image {i}: {found[names[0]].fell_to[i] or 'stands'} / {found[other].fell_to[i] or 'stands'}")


if __name__ == "__main__":
    main()
