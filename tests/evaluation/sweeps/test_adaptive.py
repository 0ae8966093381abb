"""The evaluation on the sample digits: what must hold between its numbers, its file, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import helper
from rich.console import Console

from cloakonnx.attacks.presets import PRESETS, plan
from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import CloakError, DataError, ModelError, OptionError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import STATEMENT, Evaluation
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.reporting.tables import evaluation_markdown, print_evaluation
from tests.attacks.helpers import DIGITS, digits_arrays, flat
from tests.evaluation.digits import COUNT, EPS, SCHEMA, dataset, evaluated, flat_data, known, quantised, sides
from tests.support.classifiers import cpu

TAP = "/6/Relu_output_0"


def weights() -> Any:
    removed = np.ones(64, np.float32)
    removed[[3, 17, 40, 41]] = 0
    return removed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path: Path = tmp_path_factory.mktemp("evaluate") / "digits.hardened.onnx"
    harden_file(load(DIGITS), [Mask(TAP, weights())], path)
    return load(path)


@pytest.fixture(scope="module")
def found(model: Model) -> Evaluation:
    return evaluated(model, eps=EPS)


def test_the_worst_case_is_the_worst(found: Evaluation) -> None:
    for side in sides(found):
        assert side.robust.correct <= min(side.noise.correct, side.control.correct)
        assert side.robust.correct == side.stages[-1].robust
        for before, after in zip(side.stages, side.stages[1:], strict=False):
            assert after.attacked == before.robust
            assert after.robust <= after.attacked
    for each in found.results:
        assert each.hardened.robust.correct <= each.static.correct <= found.clean_hardened.correct
        assert each.static.correct == each.hardened.stages[0].robust
        assert each.hardened.stages[0].attacked == found.clean_hardened.correct
        assert each.baseline.stages[0].attacked == found.clean_baseline.correct
    small, large = found.results
    assert large.hardened.robust.correct < small.hardened.robust.correct
    assert large.baseline.robust.correct < small.baseline.robust.correct


def test_replayed_attacks_flatter_the_mask(found: Evaluation) -> None:
    """The reason for adaptive attacks: static gain that is gone once the attack is made again."""
    large = found.results[1]
    assert large.static.correct - large.baseline.robust.correct >= 5
    assert large.static.correct - large.hardened.robust.correct >= 5


def test_noise_is_no_attack(found: Evaluation) -> None:
    for side in sides(found):
        assert side.noise.correct > side.robust.correct


def test_the_pairs_are_the_shares(found: Evaluation) -> None:
    for each in found.results:
        assert each.pairs.count == found.data.count == COUNT
        assert each.pairs.both + each.pairs.only_first == each.hardened.robust.correct
        assert each.pairs.both + each.pairs.only_second == each.baseline.robust.correct
        assert each.pairs.difference == pytest.approx(each.hardened.robust.value - each.baseline.robust.value)


def test_both_models_get_the_same_attacks(found: Evaluation) -> None:
    names = [attack["name"] for attack in PRESETS["quick"]]
    for each in found.results:
        assert [stage.name for stage in each.hardened.stages] == ["replayed inputs", *names, "controls"]
        assert [stage.name for stage in each.baseline.stages] == [*names, "replayed inputs", "controls"]
        settings = [{s.name: s.settings for s in side.stages} for side in (each.hardened, each.baseline)]
        assert settings[0] == settings[1]
        assert settings[0]["pgd"] is not None
        assert settings[0]["pgd"]["restarts"] == 2
        assert all(stage.gradients for stage in each.hardened.stages if stage.name in {"pgd", "apgd-ce"})
        assert all(stage.gradients == 0 for stage in each.hardened.stages if stage.name == "square")


def test_random_masks_remove_as_many(found: Evaluation) -> None:
    assert [(m.tap, m.features, m.removed) for m in found.masks] == [(TAP, 64, 4)]
    for each in found.results:
        assert len(each.random_masks) == 3
        assert all(0 < mask.control.correct <= mask.clean.correct for mask in each.random_masks)


def test_the_file(found: Evaluation) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    text = found.to_json()
    content = json.loads(text)
    Draft202012Validator(SCHEMA).validate(content)
    assert Evaluation.from_json(text) == dataclasses.replace(found, preprocessing=content["preprocessing"])
    assert Evaluation.from_json(text).to_json() == text
    assert content["statement"] == STATEMENT
    assert content["results"][0]["difference"]["mcnemar_p"] <= 1


@pytest.mark.parametrize("key", ["model", "results", "clean", "control", "versions", "baseline_is_stripped", "seed"])
def test_a_damaged_file(found: Evaluation, key: str) -> None:
    content = json.loads(found.to_json())
    del content[key]
    with pytest.raises(DataError, match=f"x.json is damaged: the entry {key} is missing"):
        Evaluation.from_json(json.dumps(content), name="x.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an evaluation"),
        ('{"format": "cloakonnx.analysis"}', "is not an evaluation"),
        ('{"format": "cloakonnx.evaluation", "version": 9}', "has version 9"),
    ],
)
def test_no_evaluation(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Evaluation.from_json(text)


def test_more_correct_than_there_are(found: Evaluation) -> None:
    content = json.loads(found.to_json())
    content["results"][0]["static"]["correct"] = COUNT + 1
    with pytest.raises(DataError, match="49 of 48 samples are correct"):
        Evaluation.from_json(json.dumps(content))


def test_what_people_read(found: Evaluation) -> None:
    printed = StringIO()
    print_evaluation(found, Console(file=printed, width=140))
    for text in (printed.getvalue(), evaluation_markdown(found)):
        assert STATEMENT in text
        assert "no claim" in text
        assert f"n = {COUNT}" in text
        for each in found.results:
            assert f"{each.hardened.robust.value:.1%} [" in text
        assert "random mask 3" in text
        assert "cumulative" in text
    assert "| clean | 9" in evaluation_markdown(found)


def test_batches_change_no_outcome(model: Model) -> None:
    whole, parts = (evaluated(model, count=24, attack="pgd", max_iter=5, batch_size=size) for size in (24, 7))
    assert dataclasses.replace(parts, batch_size=24) == whole


def test_the_same_again(model: Model) -> None:
    first, second = (evaluated(model, count=16, attack="pgd", max_iter=3).to_json() for _ in range(2))
    assert first == second


def test_progress(model: Model) -> None:
    """After every batch, and while it is attacked: never back, never a whole batch before it is done."""
    done: list[float] = []
    evaluated(model, count=20, attack="pgd", max_iter=5, batch_size=8, eps=EPS, on_progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 20
    for start, end in ((0, 8), (8, 16), (16, 20)):
        assert end in done
        within = [each for each in done if start < each < end]
        assert len(within) > 50
        assert within[-1] > start + 0.99 * (end - start)
        assert np.diff([start, *within]).max() < 0.5 * (end - start)


def test_a_baseline_of_ones_own() -> None:
    """Two equal models: nothing differs, and there is no mask to shuffle."""
    plain = load(DIGITS)
    found = evaluated(plain, count=24, attack="pgd", max_iter=5, baseline=cpu(DIGITS))
    (each,) = found.results
    assert found.clean.difference == each.pairs.difference == 0
    assert not found.baseline_is_stripped
    assert not each.random_masks
    assert not found.masks
    assert "no masks" in evaluation_markdown(found)


def test_what_fools_one_is_tried_on_the_other() -> None:
    """A model whose gradients mislead withstands its own PGD, but not what was made on the baseline."""
    false = quantised()
    (each,) = evaluated(false, baseline=cpu(DIGITS), attack="pgd", max_iter=10).results
    replayed, own, _ = each.hardened.stages
    assert replayed.attacked - replayed.robust >= 10
    assert own.attacked - own.robust <= 2
    assert each.hardened.control.correct >= each.hardened.robust.correct + 10
    (turned,) = evaluated(load(DIGITS), baseline=cpu(false), attack="pgd", max_iter=10).results
    assert turned.baseline.stages[1].name == "replayed inputs"
    assert turned.baseline.stages[1].attacked - turned.baseline.stages[1].robust >= 10


def test_l2(model: Model) -> None:
    found = evaluated(model, count=16, attack="pgd", max_iter=5, norm="l2", eps=(0.5,))
    assert found.norm == "l2"
    assert found.results[0].hardened.robust.correct < 16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": ()}, "eps needs numbers that differ"),
        ({"eps": (0.1, 0.1)}, "eps needs numbers that differ"),
        ({"eps": (0.0,)}, "eps 0 must be above 0"),
        ({"eps": (-0.1,)}, "eps -0.1 must be above 0"),
        ({"eps": (0.1, 8.0)}, r"eps 8 is wider than pixel space, \[0, 1\], in linf"),
        ({"eps": (9.0,), "norm": "l2"}, r"eps 9 is wider than pixel space, \[0, 1\], in l2 \(8\)"),
        ({"attack": "qiuck"}, "there is no attack or preset 'qiuck'.*did you mean 'quick'"),
        ({"max_iter": "converged"}, "quick .* takes a number of max_iter"),
        ({"restarts": 5}, "quick has its own restarts"),
        ({"attack": "noise", "max_iter": 5}, "noise takes no max_iter"),
    ],
)
def test_bad_options(model: Model, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        evaluated(model, **options)


def test_no_labels(model: Model) -> None:
    with pytest.raises(DataError, match=r"digits\.npz has no labels"):
        evaluate(cpu(model), dataset(model, 4, labels=False), eps=EPS)


def test_samples_gained_need_a_baseline(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"samples gained and lost are kept beside a baseline, .*baseline"):
        evaluated(load(DIGITS), keep=tmp_path / "samples.npz")


@pytest.mark.parametrize(("classes", "features", "said"), [(3, 12, "takes inputs of shape"), (7, 64, "takes inputs")])
def test_a_baseline_with_other_inputs(model: Model, classes: int, features: int, said: str) -> None:
    other = load_bytes(flat(classes, features=features).SerializeToString())
    with pytest.raises(ModelError, match=said):
        evaluated(model, baseline=cpu(other))


def test_a_baseline_with_other_classes() -> None:
    first, second = (load_bytes(flat(classes).SerializeToString()) for classes in (3, 4))
    with pytest.raises(ModelError, match="has 3 classes, the baseline model 4"):
        evaluate(cpu(first), flat_data(first), baseline=cpu(second), eps=(0.1,))


def test_a_label_that_is_no_class() -> None:
    model = load_bytes(flat(3).SerializeToString())
    source = ArraySource("flat.npz", np.zeros((2, 12), np.float32), np.array([0, 5]))
    for classes in (3, None):
        data = Dataset(source, Preprocessing(), input_shape(model), classes=classes)
        with pytest.raises(CloakError, match="label 5"):
            evaluate(cpu(model), data, baseline=cpu(model), eps=(0.1,))


def test_plans() -> None:
    assert known("quick") == ("pgd", "apgd-ce", "square")
    assert known("apgd-t") == ("apgd-t",)
    assert plan("pgd", eps=0.1, max_iter=7, restarts=3, seed=5)[0].record()["restarts"] == 3


def test_scores_that_are_no_numbers_are_told_of() -> None:
    made = onnx.load(DIGITS)
    steps = [helper.make_node("Sqrt", ["image"], ["root"]), helper.make_node("Mul", ["root", "root"], ["square"])]
    for node in made.graph.node:
        node.input[:] = ["square" if name == "image" else name for name in node.input]
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*steps, *nodes])
    model = load_bytes(made.SerializeToString())
    x, y = digits_arrays()
    below = x[:24].copy()
    below[[2, 5, 20], 0, 0, 0] = -0.5
    classifier, beside = (cpu(each, preprocessing=Preprocessing(bounds=(-1, 1))) for each in (model, load(DIGITS)))
    data = Dataset.of(ArraySource("d.npz", below, y[:24]), classifier)
    options: dict[str, Any] = {"eps": EPS[:1], "attack": "square", "max_iter": 5, "sanity": False}
    found = evaluate(classifier, data, baseline=beside, batch_size=8, **options)
    with pytest.raises(DataError, match="fitted with other preprocessing"):
        evaluate(cpu(model), data, baseline=beside, batch_size=8, **options)
    said = "model gives scores that are no numbers (NaN) for 3 clean samples, which count as wrong"
    assert said in found.notes
    assert found.clean_hardened.correct == found.clean_baseline.correct - 3


def test_paths_may_be_text(model: Model, tmp_path: Path) -> None:
    options: dict[str, Any] = {"count": 8, "attack": "fgsm", "sanity": False}
    outputs = {"output": str(tmp_path / "e.json"), "keep": str(tmp_path / "s.npz")}
    found = evaluated(model, **options, **outputs)
    assert (tmp_path / "e.json").read_text(encoding="utf-8") == found.to_json()
    assert {each.name for each in tmp_path.iterdir()} == {"e.json", "s.npz"}
    found.save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "e.json").read_bytes()


def test_labels_that_are_predictions_are_told_of(model: Model) -> None:
    x, y = digits_arrays()
    source = ArraySource("own.npz", x[:8], y[:8], has_predicted_labels=True)
    data = Dataset(source, Preprocessing(), input_shape(model), classes=10)
    found = evaluate(cpu(model), data, eps=EPS[:1], attack="fgsm", sanity=False)
    assert any(note.startswith("the labels of own.npz are a model's own predictions") for note in found.notes)


def test_steps_of_a_presets_attacks_by_gradients() -> None:
    for name in PRESETS:
        own, raised = plan(name, eps=0.1), plan(name, eps=0.1, max_iter=300)
        for before, after in zip(own, raised, strict=True):
            steps = 300 if before.by_gradient else before.record()["max_iter"]
            assert after == before.with_settings(max_iter=steps)
