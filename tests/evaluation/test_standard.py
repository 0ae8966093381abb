"""The preset ``standard``: its attacks and budgets, the cascade, and what it says about nets with few classes."""

from __future__ import annotations

import json
from io import StringIO
from itertools import pairwise

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from cloakonnx.attacks.presets import PRESETS, plan, replaced
from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.reporting.tables import evaluation_markdown, print_evaluation
from tests.attacks.helpers import DIGITS, ROOT, digits_arrays, flat
from tests.support.classifiers import cpu

SCHEMA = json.loads((ROOT / "docs" / "evaluation.schema.json").read_text(encoding="utf-8"))


def test_the_budgets_are_autoattacks() -> None:
    """Croce and Hein 2020 (arXiv 2003.01690): 100 steps, 9 targets, one start each; Square 5,000 queries, p 0.8."""
    attacks = [each.record() for each in plan("standard", eps=8 / 255, norm="l2", seed=3)]
    assert [each["attack"] for each in attacks] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert [each["max_iter"] for each in attacks] == [100, 100, 100, 5000]
    assert [each["restarts"] for each in attacks] == [1, 1, 1, 1]
    assert [each.get("targets") for each in attacks] == [None, 9, 9, None]
    assert attacks[3]["p_init"] == 0.8
    assert all((each["eps"], each["norm"], each["seed"]) == (8 / 255, "l2", 3) for each in attacks)


def test_each_attack_works_on_what_those_before_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer steps and queries, for time."""
    reduced = tuple({**each, "max_iter": each["max_iter"] // 20} for each in PRESETS["standard"])
    monkeypatch.setitem(PRESETS, "standard", reduced)
    model = load(DIGITS)
    x, y = digits_arrays()
    data = Dataset(ArraySource("digits.npz", x[:20], y[:20]), Preprocessing(), input_shape(model), classes=10)
    found = evaluate(cpu(model), data, baseline=cpu(model), eps=(0.09,), attack="standard")
    stages = found.results[0].baseline.stages[:4]
    assert [stage.name for stage in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert 0 < stages[3].robust < stages[0].attacked == found.clean_baseline.correct
    for before, after in pairwise(stages):
        assert after.attacked == before.robust
    left = stages[3].robust
    assert stages[1].gradients >= left * 9 * 5
    assert stages[2].gradients >= left * 9 * 5
    assert stages[3].queries >= left * 250
    assert found.notes == ()
    for text in printed(found):
        assert "left (cumulative)" in text
        assert "each stage on the survivors of those before" in text
        assert "Note:" not in text


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (
            2,
            (
                "apgd-t: the margin instead of DLR, which needs 4 classes; there are 2",
                "apgd-t and fab-t: 1 target instead of 9; there are 2 classes",
            ),
        ),
        (
            3,
            (
                "apgd-t: the margin instead of DLR, which needs 4 classes; there are 3",
                "apgd-t and fab-t: 2 targets instead of 9; there are 3 classes",
            ),
        ),
        (4, ("apgd-t and fab-t: 3 targets instead of 9; there are 4 classes",)),
        (10, ()),
    ],
)
def test_what_is_replaced(classes: int, said: tuple[str, ...]) -> None:
    assert replaced(plan("standard", eps=0.1), classes=classes) == said
    assert replaced(plan("quick", eps=0.1), classes=classes) == ()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_net_with_few_classes_says_so(classes: int) -> None:
    model = load_bytes(flat(classes).SerializeToString())
    x = np.random.default_rng(0).random((6, 12)).astype(np.float32)
    source = ArraySource("flat.npz", x, np.arange(6) % classes)
    data = Dataset(source, Preprocessing(), input_shape(model), classes=classes)
    found = evaluate(cpu(model), data, baseline=cpu(model), eps=(0.2,), attack="apgd-t", max_iter=3)
    assert len(found.notes) == 2
    content = json.loads(found.to_json())
    Draft202012Validator(SCHEMA).validate(content)
    assert content["notes"] == list(found.notes)
    assert Evaluation.from_json(found.to_json()).notes == found.notes
    for text in printed(found):
        for note in found.notes:
            assert f"Note: {note}." in text


def printed(found: Evaluation) -> tuple[str, str]:
    shown = StringIO()
    print_evaluation(found, Console(file=shown, width=140))
    return shown.getvalue(), evaluation_markdown(found)
