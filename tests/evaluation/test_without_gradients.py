"""Models whose gradients are 0 or missing: what goes on, what stands in, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import helper, numpy_helper

from cloakonnx.errors import DifferentiationError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.reporting._accuracy import command
from tests.attacks.helpers import DIGITS, flat
from tests.evaluation.digits import SCHEMA, evaluated, flat_data, known, quantised, sides
from tests.fixtures import false_defences
from tests.support.classifiers import cpu


def without_gradient() -> Model:
    """Compress has no rule."""
    made = flat(3)
    nodes = list(made.graph.node)
    nodes[1].output[0] = "r"
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(16, bool), "kept"))
    nodes.insert(2, helper.make_node("Compress", ["r", "kept"], ["a"], axis=1))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return load_bytes(made.SerializeToString())


def test_a_model_without_gradients_is_attacked_by_its_scores() -> None:
    plain = without_gradient()
    model = hardened(plain, [Mask("a", np.r_[np.zeros(2), np.ones(14)])])
    options: dict[str, Any] = {"eps": (0.1,), "baseline": cpu(plain), "max_iter": 20}
    found = evaluate(cpu(model), flat_data(model), attack="square", **options)
    assert found.control["attack"] == "square"
    with pytest.raises(DifferentiationError, match="Compress"):
        evaluate(cpu(model), flat_data(model), attack="pgd", **options)


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
    with pytest.raises(DifferentiationError, match=r"Det \(node 'determinant'\).*attack square"):
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
