"""Small values to make reports of; the browser's tests use them too."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cloakonnx.classifier.latency import Latency
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.results import AtEps, DataRecord, MaskRecord, ModelRecord, RandomMask, Robustness, Stage
from cloakonnx.evaluation.samples import Turned, TurnedSamples
from cloakonnx.evaluation.sanity.flags import MEANINGS, Flag, Sanity
from cloakonnx.evaluation.sweeps.record import Adaptive, Attacks, OfMask, Point, Scored, Sweep, Twins
from cloakonnx.graph.masks.mask import KERNEL, WEIGHT, Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.scoring.analysis import Analysis, SampleSet, TapScores
from cloakonnx.statistics import Accuracy, Paired

SOURCE, HARDENED = "a" * 64, "b" * 64
COUNT = 200
FEATURES = 40
PGD = {"attack": "pgd", "eps": 2 / 255, "max_iter": 20, "restarts": 2}


def robustness(eps: float, correct: int, clean: int) -> Robustness:
    left = min(correct + 3, clean)
    stages = (
        Stage("pgd", {**PGD, "eps": eps}, clean, left, 400, 8000),
        Stage("controls", None, left, correct, 900, 0),
    )
    return Robustness(Accuracy(correct, COUNT), Accuracy(clean, COUNT), Accuracy(left, COUNT), stages)


def at(eps: float, first: int, second: int, *, both: int | None = None, clean: tuple[int, int] = (188, 192)) -> AtEps:
    """Robust samples of the hardened model and of the baseline; as many as can be are the same ones."""
    same = min(first, second) if both is None else both
    pairs = Paired(same, first - same, second - same, COUNT - first - second + same)
    random = tuple(RandomMask(Accuracy(189, COUNT), Accuracy(second - i, COUNT)) for i in range(3))
    static = Accuracy(min(clean[0], first + 20), COUNT)
    before, after = robustness(eps, second, clean[1]), robustness(eps, first, clean[0])
    return AtEps(eps, static, after, before, pairs, random)


def flags(*fired: str) -> tuple[Flag, ...]:
    return tuple(
        Flag(name, name in fired, 5.0 if name in fired else 0.5, "points", 1.0, 2 / 255, f"measured {name}")
        for name in MEANINGS
    )


def sanity(*fired: str) -> Sanity:
    return Sanity(100, (2 / 255, 0.5), ({"attack": "pgd"},), 100, 1000, flags(*fired))


def evaluation(
    *results: AtEps,
    name: str = "model.hardened.onnx",
    fired: tuple[str, ...] | None = (),
    seen: int | None = 0,
    tap: str = "features",
    removed: int = 3,
) -> Evaluation:
    return Evaluation(
        model=ModelRecord(name, HARDENED),
        baseline=ModelRecord("model.onnx", SOURCE),
        baseline_is_stripped=True,
        masks=(MaskRecord(tap, FEATURES, removed),),
        data=DataRecord("test.npz", COUNT, "c" * 64, seen),
        preprocessing={"scale": 1.0, "mean": [0.5, 0.25], "std": [], "layout": None, "bounds": [0.0, 1.0]},
        attack="quick",
        norm="linf",
        seed=7,
        batch_size=64,
        provider="CPUExecutionProvider",
        control={"attack": "pgd", "max_iter": 20},
        clean_hardened=Accuracy(188, COUNT),
        clean=Paired(186, 2, 6, 6),
        results=results or (at(1 / 255, 150, 110), at(2 / 255, 100, 50)),
        sanity=None if fired is None else sanity(*fired),
        versions={"cloakonnx": "0.1.0", "numpy": "2.0"},
    )


def turned(found: Evaluation, *shape: int, gained: int = 3, lost: int = 1) -> TurnedSamples:
    """Samples of this shape; those gained come first, each changed by 2/255 at most."""
    rng, count = np.random.default_rng(0), gained + lost
    x = rng.random((count, *shape)).astype(np.float32)
    change = rng.choice([-2, -1, 0, 1, 2], x.shape).astype(np.float32) / 255
    y, is_gained = np.arange(count), np.arange(count) < gained
    wrong = (y + 5).astype(np.int64)
    return TurnedSamples(
        evaluation=found.sha256,
        eps=found.results[0].eps,
        turned=Turned(
            index=y * 10,
            x=x,
            adversarial=np.clip(x + change, 0, 1),
            y=y,
            hardened=np.where(is_gained, y, wrong),
            baseline=np.where(is_gained, wrong, y),
            gained=is_gained,
            counts=np.array([gained and 40, lost]),
        ),
    )


def _analysis(scores: TapScores | None, masks: tuple[Mask, ...]) -> Analysis:
    return Analysis(
        model_name="model.onnx",
        model_sha256=SOURCE,
        preprocessing=Preprocessing(),
        samples=SampleSet("clean.npz", None, 1, 0.1, ("0" * 16,)),
        provider="CPUExecutionProvider",
        scores=scores,
        masks=masks,
        versions={"cloakonnx": "0.1.0"},
    )


def scored(tap: str = "features") -> Analysis:
    """Feature i scores (7 i) mod 40; the highest are 17 (39), 34 (38), 11 (37); feature 0 is dead."""
    scores = (np.arange(FEATURES) * 7 % FEATURES).astype(np.float64)
    return _analysis(TapScores(tap, 1, "float32", "deepcloak", scores, COUNT), ())


LEARNING: dict[str, Any] = {
    "recipe": {"eps": 2 / 255, "budget": 0.04},
    "select": {
        "source": "val.npz",
        "held_out": False,
        "count": 400,
        "attacked": 300,
        "attack_steps": 10,
        "clean_before": 380,
        "robust_before": 30,
    },
    "chosen": {"epoch": 6, "blend": 0.9, "clean": 366, "robust": 138, "within_budget": True},
    "curve": [
        {"epoch": epoch, "eps": 3 / 255, "loss": 2 - epoch / 10, "select_clean": clean, "select_robust": robust}
        for epoch, clean, robust in ((2, 376, 75), (4, 370, 105), (6, 364, 141), (8, 362, 144))
    ],
}
"""How masks were learned, as an analysis has it; epoch 6 was drawn back a little."""


def learned(*more: Mask) -> Analysis:
    rng = np.random.default_rng(0)
    masks = tuple(Mask(f"tap {i}", rng.uniform(0, 2, 16).round(3).astype(np.float32), 1) for i in range(3))
    masks = (*masks, Mask("tap 3", np.array([0, 1, 1.5], np.float32), 1), *more)
    return dataclasses.replace(_analysis(None, masks), learning=LEARNING)


def kernels() -> Analysis:
    """Masks on the kernels of two layers, of which one has more than is drawn, and on a vector."""
    rng = np.random.default_rng(1)
    sizes = {"small": (4, 3, 1, 1), "large": (50, 70, 1, 1)}
    masks = [
        Mask(name, rng.uniform(0.5, 1.5, size).astype(np.float32), granularity=KERNEL) for name, size in sizes.items()
    ]
    return learned(*masks, Mask("bias", rng.uniform(0.5, 1.5, 9).astype(np.float32), granularity=WEIGHT))


def sweep() -> Sweep:
    def of_mask(clean: int, static: int) -> OfMask:
        return OfMask(Accuracy(clean, COUNT), Accuracy(static, COUNT))

    points = tuple(
        Point(
            f"{removed * 5 // 2}%",
            removed,
            Accuracy(190 - removed, COUNT),
            Accuracy(100 + removed, COUNT),
            tuple(of_mask(189 - i, 98 + i) for i in range(3)) if removed else (),
        )
        for removed in range(13)
    )
    return Sweep(
        model=ModelRecord("model.onnx", SOURCE),
        scores=Scored("features", 1, FEATURES, "deepcloak"),
        data=DataRecord("test.npz", COUNT, "c" * 64, 0),
        twins=Twins("adversarial.npz", "d" * 64, 4 / 255),
        preprocessing={},
        seed=0,
        batch_size=64,
        provider="CPUExecutionProvider",
        points=points,
        attacks=Attacks("quick", (2 / 255, 4 / 255), "linf", False, {"attack": "pgd", "max_iter": 20}),
        adaptive=tuple(
            Adaptive(
                f"{r * 5 // 2}%",
                r,
                Paired(185, 1, 4, 10),
                (at(2 / 255, 100, 90, clean=(186, 189)), at(4 / 255, 40, 45, clean=(186, 189))),
            )
            for r in (4, 12)
        ),
        asked=3,
        versions={},
    )


def latency() -> Latency:
    """A hundredth more than the baseline's, in nine pairs of sessions."""
    ratios = (0.99, 1.0, 1.0, 1.01, 1.01, 1.01, 1.02, 1.02, 1.03)
    return Latency(ratios, 0.00132, 0.00131, 1, "CPUExecutionProvider", 2, "a processor", 4)
