"""Workers of a cluster give the bytes of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.attacks.attack import attack
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.engine.batches import Engine
from cloakonnx.engines import InProcess, Ray, Shard, Threads, merge
from cloakonnx.evaluation.accuracy import accuracy
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.sweeps.sweep import sweep
from cloakonnx.scoring.analyze import analyze
from cloakonnx.selection.topk import Count
from tests.engine.test_workers import EPS, PGD, TAP, classifier, dataset, masked, pairs


def attacked(engine: Engine, folder: Path, **options: Any) -> list[bytes]:
    paths = [folder / "a0.npz", folder / "a1.npz"]
    attack(
        classifier(),
        dataset(),
        output=paths,
        attack="pgd",
        eps=[EPS, EPS / 2],
        max_iter=5,
        batch_size=7,
        engine=engine,
        **options,
    )
    return [path.read_bytes() for path in paths]


def analyzed(engine: Engine, folder: Path, **options: Any) -> list[bytes]:
    made = AttackedPairs(dataset(), classifier(), PGD)
    found = [analyze(classifier(), given, tap=TAP, batch_size=9, engine=engine, **options) for given in (pairs(), made)]
    return [each.to_json().encode() for each in found]


def evaluated(engine: Engine, folder: Path, **options: Any) -> list[bytes]:
    """With samples that are gained and lost."""
    keep = folder / "keep.npz"
    found = evaluate(masked(), dataset(), eps=[EPS], attack="quick", batch_size=9, keep=keep, engine=engine, **options)
    return [found.to_json().encode(), keep.read_bytes()]


def swept(engine: Engine, folder: Path, **options: Any) -> list[bytes]:
    analysis = analyze(classifier(), pairs(), tap=TAP, batch_size=9, engine=InProcess())
    options |= {"amounts": [Count(0), Count(4), Count(30)], "adaptive_at": [Count(4), Count(30)]}
    found = sweep(classifier(), analysis, pairs(), attack="pgd", max_iter=3, batch_size=9, engine=engine, **options)
    return [found.to_json().encode()]


RUNS = [attacked, analyzed, evaluated, swept]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_the_bytes_of_one_process(engine: Ray, tmp_path: Path, run: Any) -> None:
    folders = [tmp_path / "one", tmp_path / "cluster"]
    for folder in folders:
        folder.mkdir()
    assert run(engine, folders[1]) == run(InProcess(), folders[0])


def test_accuracy(engine: Ray) -> None:
    assert engine.workers == 3
    options: dict[str, Any] = {"batch_size": 9}
    found = [accuracy(classifier(), dataset(), engine=each, **options) for each in (engine, InProcess())]
    assert found[0] == found[1]


def test_shards(engine: Ray, tmp_path: Path) -> None:
    """One may run on a cluster and the other in this process."""
    asked: dict[str, Any] = {"attack": "pgd", "eps": EPS, "max_iter": 5, "batch_size": 7}
    engines: list[Engine] = [engine, Threads(1)]
    shards = [
        Shard(number, 2, tmp_path / f"{number}.shard").run(attack, classifier(), dataset(), **asked, engine=each)
        for number, each in enumerate(engines, 1)
    ]
    merged = merge(shards, attack, classifier(), dataset(), **asked)
    whole = attack(classifier(), dataset(), **asked, engine=engine)
    np.testing.assert_array_equal(merged.x, whole.x)
    np.testing.assert_array_equal(merged.success, whole.success)
