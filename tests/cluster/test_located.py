"""Workers read their own batches where they see the files; the bytes are the same where they do not."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cloakonnx.attacks.attack import attack
from cloakonnx.data.given import Pairs, Samples
from cloakonnx.data.located import Located, without_pixels
from cloakonnx.data.samples import FittedPairs
from cloakonnx.engine.batches import Engine
from cloakonnx.engines import InProcess, Ray
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.scoring.analyze import analyze
from tests.engine.test_workers import EPS, TAP, X, Y, classifier, masked

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")

SIZE = 7
BATCHES = -(-len(X) // SIZE)
FEW = 3000
"""Bytes of a batch without pixels; one with them has more than three times as many."""

Given = dict[str, str]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Return the paths of pairs and of images, by what they are."""
    moved = np.clip(X + np.float32(EPS) * np.sign(np.random.default_rng(0).normal(size=X.shape)), 0, 1)
    np.savez(tmp_path / "clean.npz", x=X, y=Y)
    np.savez(tmp_path / "moved.npz", x=moved.astype(np.float32), y=Y)
    for number, (sample, label) in enumerate(zip(X, Y, strict=True)):
        path = tmp_path / "images" / str(label) / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(sample[0] * 255).astype(np.uint8)).save(path)
    return {name: str(tmp_path / name) for name in ("clean.npz", "moved.npz", "images")}


@pytest.fixture
def hidden(tmp_path: Path, given: Given) -> Iterator[Given]:
    """Return paths to the same files that only this process has."""
    folder = os.open(tmp_path, os.O_RDONLY)
    yield {name: f"/proc/self/fd/{folder}/{name}" for name in given}
    os.close(folder)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the bytes of each batch that is given to a worker without its pixels, as far as that was."""
    sizes: list[int] = []

    def spy(batch: Any) -> Located | None:
        found = without_pixels(batch)
        if found is not None:
            sizes.append(len(pickle.dumps(found)))
        return found

    monkeypatch.setattr("cloakonnx.engine.cluster._crew.without_pixels", spy)
    return sizes


def attacked(engine: Engine, given: Given, folder: Path) -> bytes:
    path = folder / "a.npz"
    attack(classifier(), given["images"], "pgd", eps=EPS, max_iter=3, output=path, batch_size=SIZE, engine=engine)
    return path.read_bytes()


def evaluated(engine: Engine, given: Given, folder: Path) -> bytes:
    options: dict[str, Any] = {"attack": "fgsm", "sanity": False, "batch_size": SIZE, "engine": engine}
    return evaluate(masked(), Samples(given["clean.npz"]), eps=[EPS], **options).to_json().encode()


def analyzed(engine: Engine, given: Given, folder: Path) -> bytes:
    pairs = FittedPairs.of(Pairs(given["clean.npz"], given["moved.npz"]), classifier())
    return analyze(classifier(), pairs, tap=TAP, batch_size=SIZE, engine=engine).to_json().encode()


RUNS = [attacked, evaluated, analyzed]
Run = Callable[[Engine, Given, Path], bytes]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_workers_that_see_the_files_read_them(
    engine: Ray, tmp_path: Path, given: Given, sent: list[int], run: Run
) -> None:
    assert run(engine, given, tmp_path) == run(InProcess(), given, tmp_path)
    assert len(sent) == BATCHES  # each went once, and none as a whole after that
    assert max(sent) < FEW < 64 * 4 * SIZE * 2


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_pixels_travel_to_workers_that_do_not(
    engine: Ray, tmp_path: Path, hidden: Given, sent: list[int], run: Run
) -> None:
    assert run(engine, hidden, tmp_path) == run(InProcess(), hidden, tmp_path)
    assert 1 <= len(sent) <= 2 * engine.workers  # a worker that lacks the files is asked only until it says so


def test_a_file_that_was_written_over_is_not_taken(engine: Ray, tmp_path: Path, given: Given) -> None:
    """The driver has read the first one; other pixels of the same size would be other results."""
    samples = Samples(given["clean.npz"])
    found = [samples.source.count()]
    np.savez(given["clean.npz"], x=1 - X, y=Y)
    options: dict[str, Any] = {"eps": EPS, "max_iter": 3, "batch_size": SIZE}
    one, two = (attack(classifier(), samples, "pgd", **options, engine=each) for each in (engine, InProcess()))
    assert found == [len(X)]
    np.testing.assert_array_equal(one.x, two.x)
