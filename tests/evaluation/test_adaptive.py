"""The evaluation on the sample digits: what must hold between its numbers, its file, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import helper, numpy_helper
from rich.console import Console

from cloakonnx.attacks.presets import PRESETS, plan
from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import CloakError, DataError, DifferentiationError, ModelError, OptionError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import STATEMENT, Evaluation
from cloakonnx.evaluation.results import Robustness
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import harden_file, hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.report._accuracy import command
from cloakonnx.report.tables import evaluation_markdown, print_evaluation
from tests.attacks.helpers import DIGITS, ROOT, digits_arrays, flat
from tests.fixtures import false_defences
from tests.support.classifiers import cpu

SCHEMA = json.loads((ROOT / "docs" / "evaluation.schema.json").read_text(encoding="utf-8"))
TAP = "/6/Relu_output_0"
EPS = (1 / 16, 2 / 16)
COUNT = 48


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


def evaluated(model: Model, *, count: int = COUNT, **options: Any) -> Evaluation:
    return evaluate(cpu(model), dataset(model, count), **{"eps": EPS[1:], **options})


def dataset(model: Model, count: int, *, labels: bool = True) -> Dataset:
    x, y = digits_arrays()
    source = ArraySource("digits.npz", x[:count], y[:count] if labels else None)
    return Dataset(source, Preprocessing(), input_shape(model), classes=10)


def sides(found: Evaluation) -> list[Robustness]:
    return [side for each in found.results for side in (each.hardened, each.baseline)]


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


def quantised() -> Model:
    """The sample model behind rounding, less a trace of the input: its gradient points backwards. A false defence."""
    made = onnx.load(DIGITS)
    entry = made.graph.input[0].name
    for node in made.graph.node:
        for i, name in enumerate(node.input):
            if name == entry:
                node.input[i] = "levels"
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(16, np.float32), "sixteen"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.001, np.float32), "trace"))
    steps = [
        helper.make_node("Mul", [entry, "sixteen"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Div", ["rounded", "sixteen"], ["steps"]),
        helper.make_node("Mul", [entry, "trace"], ["slight"]),
        helper.make_node("Sub", ["steps", "slight"], ["levels"]),
    ]
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*steps, *nodes])
    return load_bytes(made.SerializeToString())


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


def without_gradient() -> Model:
    """CumSum has no rule."""
    made = flat(3)
    nodes = list(made.graph.node)
    nodes[1].output[0] = "r"
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "axis"))
    nodes.insert(2, helper.make_node("CumSum", ["r", "axis"], ["a"]))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return load_bytes(made.SerializeToString())


def flat_data(model: Model) -> Dataset:
    x = np.random.default_rng(0).random((10, 12)).astype(np.float32)
    return Dataset(ArraySource("flat.npz", x, np.arange(10) % 3), Preprocessing(), input_shape(model), classes=3)


def test_a_model_without_gradients_is_attacked_by_its_scores() -> None:
    plain = without_gradient()
    model = hardened(plain, [Mask("a", np.r_[np.zeros(2), np.ones(14)])])
    options: dict[str, Any] = {"eps": (0.1,), "baseline": cpu(plain), "max_iter": 20}
    found = evaluate(cpu(model), flat_data(model), attack="square", **options)
    assert found.control["attack"] == "square"
    with pytest.raises(DifferentiationError, match="CumSum"):
        evaluate(cpu(model), flat_data(model), attack="pgd", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": ()}, "--eps needs numbers that differ"),
        ({"eps": (0.1, 0.1)}, "--eps needs numbers that differ"),
        ({"eps": (0.0,)}, "--eps 0 must be above 0"),
        ({"eps": (-0.1,)}, "--eps -0.1 must be above 0"),
        ({"eps": (0.1, 8.0)}, r"--eps 8 is wider than pixel space, \[0, 1\], in linf"),
        ({"eps": (9.0,), "norm": "l2"}, r"--eps 9 is wider than pixel space, \[0, 1\], in l2 \(8\)"),
        ({"attack": "qiuck"}, "there is no attack or preset 'qiuck'.*did you mean 'quick'"),
        ({"max_iter": 5}, "quick has its own --max-iter"),
        ({"restarts": 5}, "quick has its own --max-iter"),
        ({"attack": "noise", "max_iter": 5}, "noise takes no --max-iter"),
    ],
)
def test_bad_options(model: Model, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        evaluated(model, **options)


def test_no_labels(model: Model) -> None:
    with pytest.raises(DataError, match=r"digits\.npz has no labels"):
        evaluate(cpu(model), dataset(model, 4, labels=False), eps=EPS)


def test_nothing_to_compare_with() -> None:
    with pytest.raises(ModelError, match=r"carries no cloakonnx masks .* --baseline"):
        evaluated(load(DIGITS))


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


@cache
def known(name: str) -> tuple[str, ...]:
    return tuple(each.name for each in plan(name, eps=0.1))


def test_plans() -> None:
    assert known("quick") == ("pgd", "apgd-ce", "square")
    assert known("apgd-t") == ("apgd-t",)
    assert plan("pgd", eps=0.1, max_iter=7, restarts=3, seed=5)[0].record()["restarts"] == 3


def rounded() -> Model:
    """A model of the sample digits behind rounded pixels: every gradient is 0."""
    return load_bytes(false_defences.quantised().SerializeToString())


def in_integers() -> Model:
    """The same behind integers, where straight-through gradients end as well."""
    return load_bytes(false_defences.integers().SerializeToString())


def stages(found: Evaluation) -> dict[str, list[str]]:
    return {who: [s.name for s in side.stages] for who, side in zip(("model", "baseline"), sides(found), strict=True)}


@pytest.mark.parametrize("which", ["the model", "the baseline", "either model"])
def test_presets_go_on_without_the_attacks_that_find_no_gradient(which: str) -> None:
    plain, dead = load(DIGITS), in_integers()
    model = plain if which == "the baseline" else dead
    baseline = plain if which == "the model" else dead
    found = evaluated(model, baseline=cpu(baseline), count=24, sanity=which == "the model")
    (note,) = found.notes
    assert note.startswith(
        f"pgd, apgd-ce not made on {which}, which gives no gradient: QuantizeLinear (node 'quantise')"
    )
    assert "is an upper bound by black-box attacks only (square and replayed inputs)" in note
    short, whole = ["square"], ["pgd", "apgd-ce", "square"]
    made = stages(found)
    assert made["model"] == ["replayed inputs", *(whole if which == "the baseline" else short), "controls"]
    assert made["baseline"] == [*(whole if which == "the model" else short), "replayed inputs", "controls"]
    assert found.control["attack"] == "square"
    assert Evaluation.from_json(found.to_json()) == found
    Draft202012Validator(SCHEMA).validate(json.loads(found.to_json()))
    if which == "the model":
        assert found.sanity is not None
        assert {"zero-gradients", "non-differentiable"} <= {flag.name for flag in found.sanity.fired}
        each = found.results[0]  # rounding hides nothing from what is replayed
        assert each.static.correct < found.clean_hardened.correct
    with pytest.raises(DifferentiationError, match="QuantizeLinear"):
        evaluated(model, baseline=cpu(baseline), count=8, attack="pgd", max_iter=2, sanity=False)


def with_a_determinant() -> Model:
    """The sample digits with the same number, a determinant of pixels, added to all scores: an op without a rule."""
    made = onnx.load(DIGITS)
    (score,) = (node for node in made.graph.node if made.graph.output[0].name in node.output)
    score.output[0] = "before"
    made.graph.initializer.append(numpy_helper.from_array(np.array([0, 4, 4, 4]), "parts"))
    made.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    made.graph.node.extend(
        [
            helper.make_node("Reshape", [made.graph.input[0].name, "parts"], ["squares"]),
            helper.make_node("Det", ["squares"], ["each"], name="determinant"),
            helper.make_node("ReduceSum", ["each", "axis"], ["same"]),
            helper.make_node("Add", ["before", "same"], [made.graph.output[0].name]),
        ]
    )
    return load_bytes(made.SerializeToString())


@pytest.mark.parametrize("attack", ["quick", "standard"])
def test_presets_go_on_without_gradients_where_an_op_has_no_rule(attack: str) -> None:
    model = with_a_determinant()
    found = evaluated(model, baseline=cpu(load(DIGITS)), count=6, attack=attack, sanity=attack == "quick")
    by_gradient = [name for name in known(attack) if name not in {"square", "noise"}]
    (note,) = (each for each in found.notes if "not made on" in each)  # two samples may look like chance, too
    assert note.startswith(
        f"{', '.join(by_gradient)} not made on the model, which gives no gradient: cannot differentiate Det "
        "(node 'determinant'): this op has no rule; robust accuracy there is an upper bound by black-box attacks only"
    )
    made = stages(found)
    assert made["model"] == ["replayed inputs", "square", "controls"]
    assert made["baseline"] == [*known(attack), "replayed inputs", "controls"]
    assert found.clean_hardened == found.clean_baseline  # a number that is the same for all classes decides nothing
    assert Evaluation.from_json(found.to_json()) == found
    with pytest.raises(DifferentiationError, match=r"Det \(node 'determinant'\).*--attack square"):
        evaluated(model, baseline=cpu(load(DIGITS)), count=6, attack="pgd", max_iter=2, sanity=False)


@pytest.mark.parametrize("which", ["the model", "the baseline", "either model"])
def test_straight_through_gradients_where_there_are_no_others(which: str) -> None:
    plain, dead = load(DIGITS), rounded()
    model = plain if which == "the baseline" else dead
    baseline = plain if which == "the model" else dead
    found = evaluated(model, baseline=cpu(baseline), count=24, sanity=False)
    assert found.notes == (
        f"pgd, apgd-ce take straight-through gradients on {which}, whose own are 0: Round (node 'quantise') has a zero "
        "gradient everywhere",
    )
    names = ["pgd", "apgd-ce", "square"]
    assert stages(found) == {
        "model": ["replayed inputs", *names, "controls"],
        "baseline": [*names, "replayed inputs", "controls"],
    }
    for who, side in zip(("the model", "the baseline"), sides(found), strict=True):
        passing = {s.name for s in side.stages if (s.settings or {}).get("straight_through")}
        assert passing == ({"pgd", "apgd-ce"} if which in {who, "either model"} else set())
    assert found.control["attack"] == "pgd"
    assert found.control["straight_through"]
    assert "--straight-through" in command(found)


def test_straight_through_gradients_that_are_asked_for() -> None:
    """The gradient that is left points backwards; straight-through it finds the way."""
    false = quantised()
    options: dict[str, Any] = {"baseline": cpu(false), "attack": "pgd", "max_iter": 10, "sanity": False}
    plain, asked = (evaluated(false, straight_through=each, **options).results[0] for each in (False, True))
    stage = {s.name: s for s in asked.hardened.stages}["pgd"]
    assert stage.settings is not None
    assert stage.settings["straight_through"]
    assert asked.hardened.control.correct <= plain.hardened.control.correct - 10


def test_the_progress_of_a_model_without_gradients() -> None:
    told: list[float] = []
    evaluated(in_integers(), baseline=cpu(DIGITS), count=24, batch_size=8, sanity=False, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 24
    assert len(told) > 100


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
    outputs = {"output": str(tmp_path / "e.json"), "samples": str(tmp_path / "s.npz")}
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
