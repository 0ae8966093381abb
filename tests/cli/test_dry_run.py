"""``--dry-run`` of sweep and learn: how long it takes, as expected and at most, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.selection.learn.duration import Held, LearningEstimate

from .conftest import Run, files

SWEEP = (
    "sweep",
    "m.onnx",
    "--analysis",
    "a.json",
    "--data",
    "clean.npz",
    "--adversarial",
    "adversarial.npz",
    "-o",
    "s.json",
)
LEARN = ("learn", "m.onnx", "--data", "many.npz", "--eps", "0.1", "--budget", "10%", "-o", "l.json")


@pytest.fixture
def ready(folder: Path, run: Run) -> Path:
    np.savez("many.npz", x=np.random.default_rng(0).random((60, 4)).astype(np.float32), y=np.arange(60) % 3)
    pairs = ("--data", "clean.npz", "--adversarial", "adversarial.npz")
    assert run("analyze", "m.onnx", *pairs, "-o", "a.json").code == 0
    return folder


@pytest.mark.parametrize(
    ("more", "batches", "rounds"),
    [
        ((), 1, None),
        (("--eps", "0.1,0.2", "--attack", "fgsm"), 1, None),
        (("--remove", "0%..50%:10%", "--adaptive-at", "20%,50%", "--batch-size", "5"), 6, 2),
    ],
)
def test_sweep(ready: Path, run: Run, more: tuple[str, ...], batches: int, rounds: int | None) -> None:
    before = files(ready)
    code, out, _ = run(*SWEEP, *more, "--workers", "1", "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["samples"], found["batches"], found.get("rounds")) == (12, batches, rounds)
    assert found["expected"]["tried"] == 12
    assert 0 < found["expected"]["seconds"] <= found["at_most"]["seconds"]
    assert [each["workers"] for each in found["on_workers"]] == ([1, 8] if batches == 6 else [1])
    code, out, _ = run(*SWEEP, *more, "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["12", "expected", "at", "of"]
    assert "a curve of" in out
    assert files(ready) == before


def test_a_sweep_without_attacks(ready: Path, run: Run) -> None:
    """Its time does not depend on the samples."""
    code, out, _ = run(*SWEEP, "--adaptive-at", "none", "--dry-run")
    assert code == 0
    first, most = out.splitlines()
    assert first == "12 samples, no attack; a curve of 31 amounts; 1 batch of 64"
    assert most.startswith("at most ")
    assert json.loads(run(*SWEEP, "--adaptive-at", "none", "--dry-run", "--json").out)["expected"] is None


def test_a_sweep_of_pairs_that_tell_no_radius(ready: Path, run: Run) -> None:
    found = run(*SWEEP[:6], "--adversarial", "clean.npz", "--dry-run")
    assert found.code == 2
    assert "tell no eps" in found.err


@pytest.mark.parametrize("more", [(), ("--select-data", "clean.npz"), ("--tap", "features", "--norm", "l2")])
def test_learn(ready: Path, run: Run, more: tuple[str, ...]) -> None:
    before = files(ready)
    code, out, _ = run(*LEARN, *more, "--epochs", "3", "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    samples = 60 if "--select-data" in more else 48
    assert (found["samples"], found["select"], found["epochs"], found["steps"]) == (
        samples,
        12,
        3,
        3 * -(-samples // 50),
    )
    assert found["expected"]["tried"] == 12
    assert 0 < found["expected"]["seconds"] <= found["at_most"]["seconds"]
    assert files(ready) == before


def test_learn_in_parts(ready: Path, run: Run) -> None:
    more = ("--parts", "4", "--batch-size", "6", "--epochs", "2", "--workers", "4")
    code, out, _ = run(*LEARN, *more, "--dry-run")
    assert code == 0
    first, expected, most, tried, last = out.splitlines()
    assert first == "48 samples to learn on, 12 to choose on; 2 epochs of 8 steps in 4 parts"
    assert expected.startswith("expected ")
    assert " on 4" in most
    assert tried.startswith("of the first 12 samples to choose on ")
    assert last.startswith("more than 4 workers find nothing to do; --parts cuts each step")


def test_what_learning_takes_on_workers() -> None:
    """Two epochs of 400 samples, and four trials of 100 samples: a pass, and ten steps of an attack."""
    found = LearningEstimate(
        0.01,
        0.001,
        0.002,
        samples=400,
        select=100,
        epochs=2,
        parts=4,
        batch_size=50,
        tried=Held(64, 0.9, 0.5, used=0.6),
    )
    steps, forward, attack = 2 * 400 * 0.01, 4 * 100 * 0.001, 4 * 100 * 10 * 0.002
    assert found.at_most(1) == pytest.approx(steps + forward + attack)
    assert found.expected(1) == pytest.approx(steps + forward + 0.6 * attack)
    assert found.at_most(2) == pytest.approx((steps + forward + attack) / 2)
    assert found.at_most(3) == pytest.approx(steps / 2 + (forward + attack) / 2)  # a part waits for another
    assert found.at_most(64) == pytest.approx(steps / 4 + (forward + attack) / 2)  # no more parts, and two batches


@pytest.mark.parametrize(
    "more",
    [
        ("--flip",),
        ("--shift", "1"),
        ("--select-data", "labelled.npz"),
        ("--tap", "features", "--granularity", "kernel"),
        ("--bounds", "0,0.5"),
    ],
)
def test_learning_is_refused_as_its_estimate_is(ready: Path, run: Run, more: tuple[str, ...]) -> None:
    np.savez("labelled.npz", x=np.zeros((4, 4), np.float32), y=np.array([0, 1, 2, 9]))
    before = files(ready)
    learned, estimated = run(*LEARN, *more), run(*LEARN, *more, "--dry-run")
    assert (learned.code, estimated.code, estimated.out) == (2, 2, "")
    assert learned.err == estimated.err
    assert files(ready) == before


@pytest.mark.parametrize("line", [SWEEP, LEARN], ids=["sweep", "learn"])
def test_what_is_wrong_is_said(line: tuple[str, ...], ready: Path, run: Run) -> None:
    before = files(ready)
    for more in (("--eps", "2"), ("--data", "missing.npz"), ("--label-column", "nope")):
        found = run(*line, *more, "--dry-run")
        assert (found.code, found.out) == (2, "")
    assert files(ready) == before
