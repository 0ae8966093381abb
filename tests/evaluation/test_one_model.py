"""An evaluation of one model without a baseline, and of two models that are not one with and without masks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cloakonnx.errors import DataError, OptionError
from cloakonnx.evaluation.evaluation import Evaluation, load_evaluation
from cloakonnx.evaluation.gates import check_gates, parse_gate
from cloakonnx.evaluation.verdict import verdict
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.reporting.page import report_html
from cloakonnx.reporting.tables import evaluation_markdown
from cloakonnx.text import eps_text, parse_number
from tests.attacks.helpers import DIGITS
from tests.evaluation.digits import EPS, SCHEMA, evaluated
from tests.evaluation.sweeps.test_adaptive import TAP, weights
from tests.support.classifiers import cpu
from tests.support.pages import without_spans

ROBUST = DIGITS.with_name("digits_robust.onnx")


@pytest.fixture(scope="module")
def alone() -> Evaluation:
    return evaluated(load(DIGITS), eps=EPS)


@pytest.fixture(scope="module")
def beside() -> Evaluation:
    """The same model as the baseline of another."""
    return evaluated(load(ROBUST), eps=EPS, baseline=cpu(load(DIGITS)))


def test_the_numbers_of_one_model_are_those_that_a_comparison_has(alone: Evaluation, beside: Evaluation) -> None:
    assert alone.clean_hardened == beside.clean_baseline
    for one, other in zip(alone.results, beside.results, strict=True):
        assert (one.static, one.baseline, one.pairs, one.random_masks) == (None, None, None, ())
        baseline = other.compared().baseline
        assert one.hardened.noise == baseline.noise
        assert one.hardened.control == baseline.control
        own = [stage.robust for stage in one.hardened.stages if stage.name not in ("controls", "replayed inputs")]
        assert own == [stage.robust for stage in baseline.stages if stage.name not in ("controls", "replayed inputs")]
        assert one.hardened.robust.correct >= baseline.robust.correct, "the other model's inputs are tried there, too"


def test_its_file_can_be_read_again(alone: Evaluation, tmp_path: Path) -> None:
    alone.save(tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text())
    Draft202012Validator(SCHEMA).validate(content)
    assert content["baseline"] is content["clean"]["baseline"] is content["results"][0]["difference"] is None
    assert load_evaluation(tmp_path / "e.json") == alone


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("baseline",), {"name": "m", "sha256": "0" * 64}, "one of them is null"),
        (("results", 0, "static"), {"correct": 1, "count": 60}, "null without a baseline"),
        (("clean", "hardened", "correct"), 61, "clean.hardened: 61 of 48"),
        (("clean", "hardened", "correct"), 3, "results\\[0\\].hardened"),
    ],
)
def test_a_file_that_contradicts_itself(alone: Evaluation, path: tuple[Any, ...], value: Any, said: str) -> None:
    content = json.loads(alone.to_json())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=said):
        Evaluation.from_json(json.dumps(content))


def test_no_flag_asks_for_a_static_gain(alone: Evaluation, beside: Evaluation) -> None:
    for found in (alone, beside):
        assert found.sanity is not None
        assert "static-gain" not in {flag.name for flag in found.sanity.flags}
        assert all(flag.fired is not None for flag in found.sanity.flags), "flags==0 can be decided"


def test_gates(alone: Evaluation) -> None:
    verdicts = check_gates(alone, [parse_gate(f"robust>=1%@{EPS[0]}"), parse_gate("clean>=50%")])
    assert [each.verdict for each in verdicts] == ["pass", "pass"]
    for text in ("clean-drop<=1%", f"robust-gain>=1%@{EPS[0]}"):
        with pytest.raises(OptionError, match="compares with a baseline, and this is an evaluation of one model"):
            check_gates(alone, [parse_gate(text)])


def test_words_and_tables_of_one_model(alone: Evaluation) -> None:
    judged = verdict(alone)
    assert judged.kind in ("measured", "unsure")
    assert f"{alone.results[0].hardened.robust.value:.1%}" in judged.sentence
    markdown = evaluation_markdown(alone)
    assert "| hardened |" not in markdown
    assert "baseline |" not in markdown
    assert "One model, no baseline." in markdown
    assert "Accuracy before and after" not in report_html(alone)


def test_replayed_inputs_between_two_models_are_transfer(beside: Evaluation) -> None:
    assert not beside.baseline_is_source
    assert json.loads(beside.to_json())["baseline_is_source"] is False
    assert ", transfer: made on the baseline, replayed" in evaluation_markdown(beside)
    judged = verdict(beside)
    assert "the masks" not in judged.sentence
    if judged.kind != "none":
        assert "digits_robust.onnx" in judged.sentence
        assert "digits_cnn.onnx" in judged.sentence


def test_the_source_as_a_named_baseline_is_the_static_protocol(tmp_path: Path) -> None:
    harden_file(load(DIGITS), [Mask(TAP, weights())], tmp_path / "h.onnx")
    found = evaluated(load(tmp_path / "h.onnx"), eps=EPS[:1], baseline=cpu(load(DIGITS)), sanity=False)
    assert found.baseline_is_source
    assert "static: made on the baseline" in evaluation_markdown(found)
    other = evaluated(load(tmp_path / "h.onnx"), eps=EPS[:1], baseline=cpu(load(ROBUST)), sanity=False)
    assert not other.baseline_is_source


def test_eps_is_shown_as_it_was_written(tmp_path: Path) -> None:
    """2/16 stays 2/16, in memory and in the file; the number is what counts."""
    found = evaluated(load(DIGITS), eps=[parse_number("1.5/16"), 0.125], sanity=False, output=tmp_path / "e.json")
    for each in (found, load_evaluation(tmp_path / "e.json")):
        assert [at.eps for at in each.results] == [0.09375, 0.125]
        assert [eps_text(at.eps) for at in each.results] == ["1.5/16", "0.125"]
        assert "at 1.5/16" in evaluation_markdown(each)
        assert "--eps 1.5/16,0.125" in without_spans(report_html(each))
    content = json.loads(found.to_json())
    Draft202012Validator(SCHEMA).validate(content)
    assert [at.get("eps_text") for at in content["results"]] == ["1.5/16", None]
    copied = pickle.loads(pickle.dumps(found.results[0].eps))
    assert (copied, copied.text) == (0.09375, "1.5/16")


@pytest.mark.parametrize("text", ["3/16", "::error::/2", "0/0"])
def test_the_text_of_an_eps_has_to_be_its_number(alone: Evaluation, text: str) -> None:
    content = json.loads(alone.to_json())
    content["results"][0]["eps_text"] = text
    with pytest.raises(DataError, match=r"results\[0\]"):
        Evaluation.from_json(json.dumps(content))
