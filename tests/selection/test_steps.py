"""Steps of learning in parts: the bytes depend on the parts, not on who handles them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.engine.batches import Engine, InProcess
from cloakonnx.engine.threads import Threads
from cloakonnx.errors import OutputError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.learn.learn import learn
from cloakonnx.selection.learn.progress import Progress
from cloakonnx.selection.learn.recipe import Recipe
from cloakonnx.selection.learn.steps import Part, StepWork, outcome
from tests.attacks.helpers import digits_arrays
from tests.selection.helpers import EPS, learning_data, model, select_data
from tests.support.classifiers import cpu

pytest.importorskip("sklearn")

TAP = "/6/Relu_output_0"


def learned(
    engine: Engine, *, on_progress: Callable[[Progress], None] = lambda progress: None, **settings: Any
) -> Analysis:
    recipe = Recipe(eps=EPS, budget=0.5, epochs=3, batch_size=40, **settings)
    data, select = learning_data(120), select_data(60)
    return learn(cpu(model()), data, recipe, select=select, over_budget=True, engine=engine, on_progress=on_progress)


@pytest.mark.parametrize(
    "settings",
    [{"granularity": "feature", "loss": "trades"}, {"granularity": "weight", "inner_steps": 2}, {"flip": True}],
    ids=str,
)
def test_any_number_of_workers_gives_the_same_bytes(settings: dict[str, Any]) -> None:
    found = [
        learned(engine, parts=3, **settings).to_json() for engine in (Threads(1), Threads(2), Threads(4), Threads(3))
    ]
    assert len(set(found)) == 1
    assert learned(Threads(2), parts=2, **settings).to_json() != found[0]


class Opening:
    """Counts how often the workers of each work are opened."""

    threads, workers = 1, 2

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()

    def open(self, work: Any) -> Any:
        self.opened[type(work).__name__] += 1
        return Threads(2).open(work)


def test_the_workers_of_steps_stay_while_masks_are_tried() -> None:
    engine = Opening()
    found = learned(engine, parts=2, granularity="feature")
    assert engine.opened["StepWork"] == 1
    assert engine.opened["TrialWork"] > 3  # epochs
    assert found.to_json() == learned(Threads(2), parts=2, granularity="feature").to_json()


def test_in_this_process_too() -> None:
    """Sums are made in the order of the parts, also where one thread handles them."""
    found = [learned(engine, parts=3, granularity="kernel") for engine in (InProcess(), Threads(2))]
    masks = [[mask.weights.tobytes() for mask in each.masks] for each in found]
    assert masks[0] == masks[1]
    assert all(each.learning is not None and each.learning["recipe"]["parts"] == 3 for each in found)


def test_the_sums_of_parts_are_those_of_the_whole() -> None:
    classifier = MaskedClassifier(cpu(model()), [ones(find_tap(model(), TAP))])
    work = StepWork(classifier, cpu(model()), Recipe(eps=EPS, budget=0), (1, 8, 8))
    x, y = (a[:30] for a in digits_arrays())
    step = Part(x, y, np.arange(30) + 7, 2, EPS, classifier.weights)
    with InProcess().open(work) as pool:
        whole, *others = (outcome(pool, list(step.cut(parts, 1))) for parts in (1, 2, 4, 30))
    for each in others:
        assert (each.samples, each.start, each.adversarial) == (whole.samples, whole.start, whole.adversarial)
        assert each.loss == pytest.approx(whole.loss, rel=1e-5)
        for key, total in whole.sums.items():
            np.testing.assert_allclose(each.sums[key], total, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(each.gradients[key] * 30, each.sums[key], rtol=1e-12)


@pytest.mark.parametrize(
    ("size", "parts", "unit", "sizes"),
    [(10, 3, 1, [3, 3, 4]), (10, 20, 1, [1] * 10), (12, 2, 4, [4, 8]), (4, 3, 4, [4]), (7, 1, 1, [7])],
)
def test_parts_are_whole_batches(size: int, parts: int, unit: int, sizes: list[int]) -> None:
    x, rows = np.arange(size, dtype=np.float32)[:, None], np.arange(size)
    found = list(Part(x, rows, rows, 0, EPS, {}).cut(parts, unit))
    assert [each.size for each in found] == sizes
    assert np.concatenate([each.x for each in found]).tobytes() == x.tobytes()
    assert np.concatenate([each.rows for each in found]).tolist() == rows.tolist()


def test_a_fixed_batch() -> None:
    proto = load_bytes(model().buf[:]).proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    fixed = load_bytes(proto.SerializeToString())
    recipe = Recipe(eps=EPS, budget=0.5, epochs=1, batch_size=40, parts=3)
    found = [
        learn(cpu(fixed), learning_data(80), recipe, select=select_data(40), over_budget=True, engine=engine).to_json()
        for engine in (Threads(1), Threads(3))
    ]
    assert found[0] == found[1]


def test_other_parts_are_other_settings(tmp_path: Path) -> None:
    output = tmp_path / "m.cloak.json"
    data, options = learning_data(80), {"select": select_data(40), "over_budget": True, "output": output}

    def stop(progress: Any) -> None:
        if progress.epoch is not None:  # now something is kept
            raise KeyboardInterrupt

    recipe = Recipe(eps=EPS, budget=0.5, epochs=1, batch_size=40, parts=2)
    with pytest.raises(KeyboardInterrupt):
        learn(cpu(model()), data, recipe, **options, on_progress=stop)  # type: ignore[arg-type]
    recipe = Recipe(eps=EPS, budget=0.5, epochs=1, batch_size=40, parts=1)
    with pytest.raises(OutputError, match=r"other settings \(recipe\)"):
        learn(cpu(model()), data, recipe, **options, resume=True)  # type: ignore[arg-type]


def test_the_work_can_be_pickled() -> None:
    classifier = MaskedClassifier(cpu(model()), [ones(find_tap(model(), TAP))])
    classifier.passes_straight = True
    work = StepWork(classifier, cpu(model()), Recipe(eps=EPS, budget=0), (1, 8, 8))
    again = pickle.loads(pickle.dumps(work))
    assert again.record == work.record
    assert again.classifier.passes_straight
    x, y = (a[:10] for a in digits_arrays())
    part = Part(x, y, np.arange(10), 0, EPS, classifier.weights)
    assert part.digest() == pickle.loads(pickle.dumps(part)).digest()
    found = [each.start()(part, lambda share: None).sums for each in (work, again)]
    assert all(found[0][key].tobytes() == found[1][key].tobytes() for key in found[0])
