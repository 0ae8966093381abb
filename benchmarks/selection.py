"""Greedy selection beside DeepCloak's top-k, the other criteria and random masks, at the same budget of clean accuracy.

    python benchmarks/selection.py digits            # 3 minutes
    python benchmarks/selection.py cifar10_resnet20  # needs $CLOAKONNX_ASSETS; an estimated 30 minutes in quiet

Every method sees the same three parts. On `fit` features are scored (with the inputs of a PGD made on the model as it
is) or selected. On `select`, the first 200 test images, each ranking takes as many features as the budget allows, or
as many as make its objective best, which is how greedy selection decides too. On `report`, the other test images,
everything is measured: clean, static (PGD-20 made on the unmasked model, replayed), adaptive (PGD-20 made again on the
masked model). Random masks remove as many features as DeepCloak's; three of each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import assets, machine, progress, table
from numpy.typing import NDArray

import cloakonnx as ck
from cloakonnx.attacks.base import Attack, make
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.batch import PairBatch
from cloakonnx.data.sources import ArraySource
from cloakonnx.engine.batches import InProcess, map_batches
from cloakonnx.graph.masks.taps import Tap, find_tap
from cloakonnx.scoring.criteria import CRITERIA
from cloakonnx.selection.greedy.ablation import Ablations
from cloakonnx.selection.greedy.path import Part, least_correct, mask_without
from cloakonnx.selection.greedy.select import select_greedy
from cloakonnx.selection.topk import ranking
from cloakonnx.statistics import Paired, mcnemar_exact, wilson

SELECT, RANDOM = 200, 3
CPU = ck.choose_provider("cpu")
Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """A classifier with its three parts: (images, labels) each; eps is in pixel space."""

    classifier: ck.Classifier
    fit: ck.records.Dataset
    select: ck.records.Dataset
    report: tuple[Images, Labels]
    eps: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a mask does to the samples of the report part: (N,) which ones are classified correctly."""

    clean: NDArray[np.bool_]
    static: NDArray[np.bool_]
    adaptive: NDArray[np.bool_]


def main() -> None:
    """Run one model and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["digits", "cifar10_resnet20"])
    parser.add_argument("--tap", help="another tap than the default one")
    parser.add_argument("--fit", type=int, default=1000, help="samples to score and select on")
    parser.add_argument("--report", type=int, default=400, help="samples to report on")
    parser.add_argument("--budgets", default="0.01,0.02", help="shares of the select samples")
    parser.add_argument("--rounds", type=int, default=3, help="of greedy selection, beside one round")
    options = parser.parse_args()
    problem = (digits if options.model == "digits" else resnet20)(options.fit, options.report)
    print(machine("onnxruntime-gpu", "numpy"), "\n")
    Bench(problem, options.tap).run([float(b) for b in options.budgets.split(",")], options.rounds)


class Bench:
    """The rows of the table."""

    def __init__(self, problem: Problem, tap: str | None) -> None:
        self.problem, classifier = problem, problem.classifier
        self.tap: Tap = find_tap(classifier.model, tap)
        self.scoring = make("pgd", eps=problem.eps, max_iter=10, early_stop=False)
        self.judging = make("pgd", eps=problem.eps, max_iter=20)
        self.static = self.attacked(classifier, make("pgd", eps=problem.eps, max_iter=20, early_stop=False))
        self.known: dict[bytes, Outcome] = {}
        ablations = Ablations(classifier, self.tap)
        parts = list(self.pairs(problem.select))
        y = np.concatenate([b.y for b in parts if b.y is not None])
        attacked = ablations.of([b.adversarial for b in parts])
        self.part = Part(y, ablations.of([b.clean for b in parts]), (attacked,), classifier.task)
        self.features = ablations.features(parts[0].clean)

    def run(self, budgets: Sequence[float], rounds: int) -> None:
        """Measure everything and print the tables."""
        _, y = self.problem.report
        print(f"{self.tap.name}, {self.features} features; eps {self.problem.eps:.4g}; {len(y)} report samples\n")
        adversarial = Recorded(self.problem.fit, list(self.pairs(self.problem.fit)))
        orders = {}
        for name in CRITERIA:
            try:
                scores = ck.analyze(self.problem.classifier, adversarial, tap=self.tap.name, criterion=name).scores
            except ck.CloakError as error:
                print(f"{name}: {error}\n")
                continue
            assert scores is not None
            orders[name] = ranking(scores)
        for budget in budgets:
            print(f"## Budget {100 * budget:g} points\n")
            self.print_budget(orders, budget, rounds)

    def print_budget(self, orders: dict[str, list[int]], budget: float, rounds: int) -> None:
        """Print one table."""
        none = np.ones(self.features, np.bool_)
        least = least_correct(self.part.correct(none), len(self.part.y), budget)
        baseline = self.outcome(none)
        print(table(["", "removed", "clean", "static", "adaptive", "adaptive, 95%"], []))
        self.print_row("no mask", [none])
        compared = {}
        for name, order in orders.items():
            path = [mask_without(self.features, order[:k]) for k in range(1, self.features)]
            allowed = [mask for mask in path if self.part.correct(mask) >= least]
            if not allowed:
                print(f"| {name}: no feature within the budget | | | | | |")
                continue
            for how, mask in (("most", allowed[-1]), ("best", max(allowed, key=self.part.objective))):
                self.print_row(f"{name}, {how}", [mask])
                compared[f"{name}, {how}"] = mask
        for how in ("most", "best"):
            if f"deepcloak, {how}" in compared:
                count = int((~compared[f"deepcloak, {how}"]).sum())
                self.print_row(f"random, as many as deepcloak, {how}", list(self.random(count)))
        for said, mask in self.greedy(budget, rounds).items():
            self.print_row(said, [mask])
            compared[said] = mask
        print()
        chosen = [name for name in compared if name.startswith(("greedy", "deepcloak"))]
        for first in (name for name in chosen if name.startswith("greedy")):
            for second in (*(name for name in chosen if name.startswith("deepcloak")), "no mask"):
                other = baseline if second == "no mask" else self.outcome(compared[second])
                pairs = Paired.of(self.outcome(compared[first]).adaptive, other.adaptive)
                print(
                    f"{first} against {second}, adaptive: {pairs.only_first} gained, {pairs.only_second} lost, "
                    f"McNemar p = {mcnemar_exact(pairs):.3g}"
                )
        print(flush=True)

    def greedy(self, budget: float, rounds: int) -> dict[str, NDArray[np.bool_]]:
        """Return what greedy selection keeps after one round and after all, gain on the select part or not."""
        found = select_greedy(
            self.problem.classifier,
            self.problem.fit,
            select=self.problem.select,
            budget=budget,
            attack=self.scoring,
            tap=self.tap.name,
            rounds=rounds,
            without_gain=True,
            on_progress=lambda now: progress(f"greedy round {now.round}: {len(now.step.removed)} removed"),
        )
        assert found.selection is not None
        first = mask_without(self.features, found.selection["rounds"][0]["removed"])
        return {"greedy, 1 round": first, f"greedy, up to {rounds} rounds": np.asarray(found.masks[0].weights == 1)}

    def random(self, count: int) -> Iterator[NDArray[np.bool_]]:
        """Yield masks that remove so many features."""
        for seed in range(RANDOM):
            yield mask_without(self.features, np.random.default_rng(seed).permutation(self.features)[:count].tolist())

    def print_row(self, name: str, masks: Sequence[NDArray[np.bool_]]) -> None:
        """Print a row: percent of correct samples; of several masks the mean, and no interval."""
        outcomes = [self.outcome(mask) for mask in masks]
        removed = int((~masks[0]).sum())
        counts = [[int(each.sum()) for each in (o.clean, o.static, o.adaptive)] for o in outcomes]
        shares = [100 * float(np.mean(column)) / len(outcomes[0].clean) for column in zip(*counts, strict=True)]
        cells = [f"{share:.1f}" for share in shares]
        interval = ""
        if len(masks) == 1:
            found = wilson(counts[0][2], len(outcomes[0].clean))
            interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
        print(f"| {' | '.join([name, str(removed), *cells, interval])} |", flush=True)

    def outcome(self, mask: NDArray[np.bool_]) -> Outcome:
        """Return what the hardened model makes of the report part; each mask is measured once."""
        key = mask.tobytes()
        if key not in self.known:
            x, y = self.problem.report
            weights = ck.Mask(self.tap.name, mask.astype(np.float32), self.tap.feature_axis)
            classifier = self.problem.classifier
            if not mask.all():
                classifier = classifier.beside(ck.apply(classifier.model, [weights]))
            clean, static = (self.predict(classifier, inputs) == y for inputs in (x, self.static))
            moved = self.attacked(classifier, self.judging)
            self.known[key] = Outcome(clean, static, self.predict(classifier, moved) == y)
        return self.known[key]

    def predict(self, classifier: ck.Classifier, x: Images) -> Labels:
        """Return the classes of a part."""
        return np.concatenate([classifier.predict(x[i : i + 100]) for i in range(0, len(x), 100)])

    def attacked(self, classifier: ck.Classifier, settings: Attack) -> Images:
        """Return the report part attacked."""
        x, y = self.problem.report
        classifier.prepare(x.shape[1:])
        victim = Victim(classifier)
        rows = [np.arange(i, min(i + 100, len(x))) for i in range(0, len(x), 100)]
        return np.concatenate([settings.run(victim, x[r], y[r], samples=r).x for r in rows])

    def pairs(self, dataset: ck.records.Dataset) -> Iterator[PairBatch]:
        """Yield samples with their adversarial versions, made on the model as it is."""
        pairs = AttackedPairs(dataset, self.problem.classifier, self.scoring)
        with map_batches(pairs.making(None), pairs.batches(100), engine=InProcess()) as made:
            yield from (each for _, each in made)


@dataclass(frozen=True)
class Recorded:
    """Pairs that were made already, for every criterion."""

    clean: ck.records.Dataset
    parts: list[PairBatch]
    adversarial_name: str | None = None
    attack: None = None

    def making(self, threads: int | None) -> None:
        """None: nothing is left to be made."""

    def batches(self, size: int) -> Iterator[PairBatch]:
        """Yield them."""
        yield from self.parts


def digits(fit: int, report: int) -> Problem:
    """The sample classifier: scored on its training images, chosen and reported on test images."""
    samples = Path(__file__).resolve().parents[1] / "samples"
    sys.path.insert(0, str(samples))
    import digits as source

    classifier = ck.Classifier(samples / "digits_cnn.onnx", provider=CPU)
    x, y = source.training_arrays()
    test, labels = source.test_arrays()
    return _problem(classifier, (x[:fit], y[:fit]), (test, labels), report=report, eps=0.1)


def resnet20(fit: int, report: int) -> Problem:
    """A ResNet-20: scored on its training images, chosen and reported on test images."""
    classifier = ck.Classifier(assets() / "models" / "cifar10_resnet20.onnx", provider=CPU)
    parts = []
    for name in ("cifar10_train4000", "cifar10_test600"):
        with np.load(assets() / "data" / f"{name}.npz") as data:
            x = np.ascontiguousarray(data["x"].astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255))
            parts.append((x, data["y"]))
    (x, y), test = parts
    return _problem(classifier, (x[:fit], y[:fit]), test, report=report, eps=1 / 255)


def _problem(
    classifier: ck.Classifier, fit: tuple[Images, Labels], test: tuple[Images, Labels], *, report: int, eps: float
) -> Problem:
    def dataset(name: str, x: Images, y: Labels) -> ck.records.Dataset:
        return ck.records.Dataset.of(ArraySource(name, x, y), classifier)

    x, y = test
    rest = slice(SELECT, SELECT + report)
    select = dataset("select", x[:SELECT], y[:SELECT])
    return Problem(classifier, dataset("fit", *fit), select, (x[rest], y[rest]), eps)


if __name__ == "__main__":
    main()
