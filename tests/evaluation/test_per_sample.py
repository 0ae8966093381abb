"""What became of each sample: in the record, as files of inputs that won, and inputs made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.attacks.ball import ball
from cloakonnx.errors import DataError
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.graph.file.model import load
from cloakonnx.reporting.page import report_html
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.evaluation.digits import COUNT, EPS, evaluated
from tests.support.classifiers import cpu


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("won")


@pytest.fixture(scope="module")
def found(folder: Path) -> Evaluation:
    return evaluated(load(DIGITS), eps=EPS, sanity=False, save_adversarial=folder / "won.npz")


def test_outcomes_add_up(found: Evaluation) -> None:
    samples = found.samples
    assert samples is not None
    x, y = digits_arrays()
    assert samples.labels == tuple(y[:COUNT])
    assert samples.predicted == tuple(cpu(load(DIGITS)).predict(x[:COUNT]))
    for outcomes, at in zip(samples.outcomes, found.results, strict=True):
        assert outcomes.count("robust") == at.hardened.robust.correct
        assert outcomes.count("wrong") == COUNT - found.clean_hardened.correct
        left = found.clean_hardened.correct
        for stage in at.hardened.stages:
            assert left - stage.robust == outcomes.count(stage.name)
            left = stage.robust
    assert sum(each.clean.correct for each in samples.per_class) == found.clean_hardened.correct
    for i, at in enumerate(found.results):
        assert sum(each.robust[i].correct for each in samples.per_class) == at.hardened.robust.correct


def test_what_a_file_states_by_class_follows_from_the_outcomes(found: Evaluation) -> None:
    text = found.to_json()
    assert Evaluation.from_json(text).to_json() == text
    for key, value in (("correct", 99), ("share", 0.123), ("interval", [0.0, 1.0])):
        content = json.loads(text)
        content["samples"]["per_class"][3]["robust"][1][key] = value
        with pytest.raises(DataError, match=rf"samples\.per_class\[3\]\.robust\[1\]\.{key}.* follows from the counts"):
            Evaluation.from_json(json.dumps(content))


def test_inputs_that_won(found: Evaluation, folder: Path) -> None:
    """Every input lies in its ball, fools the model, and is of the sample that its index names."""
    assert found.samples is not None
    x, y = digits_arrays()
    classifier = cpu(load(DIGITS))
    with np.load(folder / "won.npz") as arrays:
        made = dict(arrays)
    assert set(made) == {"x", "y", "index", "attack", "eps", "norm", "predicted", "adversarial_predicted"}
    fell = sum(found.clean_hardened.correct - at.hardened.robust.correct for at in found.results)
    assert len(made["x"]) == fell
    assert (made["y"] == y[made["index"]]).all()
    assert (made["predicted"] == made["y"]).all()
    assert (made["adversarial_predicted"] != made["y"]).all()
    assert (classifier.predict(made["x"]) == made["adversarial_predicted"]).all()
    for eps, outcomes in zip(EPS, found.samples.outcomes, strict=True):
        rows = made["eps"] == eps
        assert (ball("linf", eps).measure(made["x"][rows] - x[made["index"][rows]]) <= eps * (1 + 1e-6)).all()
        assert list(made["attack"][rows]) == [outcomes[index] for index in made["index"][rows]]


def test_inputs_made_elsewhere_join_the_worst_case(found: Evaluation, folder: Path) -> None:
    """A weak attack, and the inputs that a strong one found: no better than the strong one."""
    weak: dict[str, Any] = {"attack": "fgsm", "sanity": False}
    alone = evaluated(load(DIGITS), eps=EPS, **weak)
    joined = evaluated(load(DIGITS), eps=EPS, adversarial=folder / "won.npz", **weak)
    for own, both, strong in zip(alone.results, joined.results, found.results, strict=True):
        assert both.hardened.robust.correct <= min(own.hardened.robust.correct, strong.hardened.robust.correct)
        stage = next(each for each in both.hardened.stages if each.name == "given inputs")
        assert stage.gradients == 0
    assert stage.robust < stage.attacked, "FGSM misses some at the larger eps"
    assert any("won.npz: " in note and "inputs lie within eps" in note for note in joined.notes)


def test_only_inputs_within_the_ball_count(folder: Path) -> None:
    x, y = digits_arrays()
    np.savez(folder / "far.npz", x=1 - x[:COUNT], y=y[:COUNT])
    far = evaluated(load(DIGITS), eps=EPS[:1], attack="fgsm", sanity=False, adversarial=folder / "far.npz")
    (at,) = far.results
    stage = next(each for each in at.hardened.stages if each.name == "given inputs")
    assert stage.attacked == stage.robust
    assert any(f"0 of {COUNT} inputs lie within eps" in note for note in far.notes)


def test_batches_without_an_input(folder: Path) -> None:
    """The inputs are of two samples of one batch, one sample twice, in no order; the other batches have none."""
    x, y = digits_arrays()
    index = np.array([9, 8, 9])
    np.savez(folder / "few.npz", x=1 - x[index], y=y[index], index=index)
    settings: dict[str, Any] = {"eps": (1.0,), "attack": "noise", "sanity": False, "batch_size": 8}
    found = evaluated(load(DIGITS), adversarial=folder / "few.npz", **settings)
    assert any("few.npz: 3 of 3 inputs lie within eps 1" in note for note in found.notes)
    (outcomes,) = found.samples.outcomes
    alone = cpu(load(DIGITS)).predict(1 - x[[8, 9]]) == y[[8, 9]]
    for sample, stands in zip((8, 9), alone, strict=True):
        assert outcomes[sample] != "robust" or stands
    assert "given inputs" not in outcomes[:8] + outcomes[10:]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"count": 5}, "has 5 inputs for 48 samples; save the number of each input's sample"),
        ({"count": 5, "index": np.arange(4)}, "index has type int64 and shape"),
        ({"count": 5, "index": np.arange(5) + 58}, "index has 62, but there are 48 samples"),
        ({"count": 5, "index": np.arange(5.0)}, "index has type float64"),
    ],
)
def test_inputs_that_belong_to_no_sample(folder: Path, arrays: dict[str, Any], said: str) -> None:
    x, y = digits_arrays()
    count = arrays.pop("count")
    np.savez(folder / "odd.npz", x=x[:count], y=y[:count], **arrays)
    with pytest.raises(DataError, match=said):
        evaluated(load(DIGITS), eps=EPS[:1], attack="fgsm", sanity=False, adversarial=folder / "odd.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["labels"].pop(), r"samples.labels has 47 entries, not 48"),
        (lambda s: s["outcomes"].pop(), r"samples.outcomes has 1 entries, not 2"),
        (lambda s: s["outcomes"][0].__setitem__(0, "wrong"), "samples wrong, the counts say"),
        (lambda s: s["outcomes"][0].__setitem__(0, "magic"), "'magic', which is no stage"),
    ],
)
def test_outcomes_that_contradict_the_counts(found: Evaluation, change: Any, said: str) -> None:
    content = json.loads(found.to_json())
    change(content["samples"])
    with pytest.raises(DataError, match=said):
        Evaluation.from_json(json.dumps(content))


def test_the_page_has_classes_and_samples(found: Evaluation) -> None:
    page = report_html(found)
    assert 'id="class-table"' in page
    assert 'id="outcome-table"' in page
