"""The sanity flags: they fire on defences that are none, with their reasons, and are quiet on honest models."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloakonnx.attacks.presets import plan
from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.outcomes import Gain
from cloakonnx.evaluation.sanity.flags import MEANINGS, Flag, Sanity
from cloakonnx.evaluation.sanity.sanity import Correct, check
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.reporting.tables import evaluation_markdown
from cloakonnx.statistics import Paired, newcombe_paired
from tests.attacks.helpers import DIGITS, ROOT, asset_pixels, asset_victim, digits_arrays, flat, victim_of
from tests.fixtures import false_defences
from tests.fixtures.models import manifest
from tests.support.classifiers import cpu

ROBUST = ROOT / "samples" / "digits_robust.onnx"
SCHEMA = json.loads((ROOT / "docs" / "evaluation.schema.json").read_text(encoding="utf-8"))
EPS = 2 / 16
SAME = (Gain(EPS, Paired(30, 0, 0, 30), Paired(30, 0, 0, 30)),)


def checked(
    model: ModelProto | Model,
    *,
    count: int = 60,
    eps: tuple[float, ...] = (EPS,),
    batch_size: int = 64,
    attack: str = "quick",
    converged: dict[float, int] | None = None,
    **options: Any,
) -> Sanity:
    """Check a model on the first digits that it gets right; the masks' gain is nothing."""
    read = load_bytes(model.SerializeToString()) if isinstance(model, ModelProto) else model
    victim = victim_of(read, sample_shape=(1, 8, 8))
    x, y = digits_arrays()
    correct = Correct(count)
    for start in range(0, 2 * count, 16):
        part = slice(start, start + 16)
        right = victim.predict(x[part]) == y[part]
        correct.add(LabelledBatch(x[part], y[part], np.arange(start, start + 16)), right)
    return check(
        victim,
        correct.samples(),
        plans=[plan(attack, eps=e, **options) for e in eps],
        random_ops=random_ops(read.proto, "logits"),
        gains=SAME,
        batch_size=batch_size,
        converged=converged,
    )


def fired(sanity: Sanity) -> dict[str, Flag]:
    return {flag.name: flag for flag in sanity.fired}


def one(sanity: Sanity, name: str) -> Flag:
    return next(flag for flag in sanity.flags if flag.name == name)


@cache
def plain() -> Sanity:
    return checked(load(DIGITS), count=40, eps=(EPS, EPS / 2))


def test_every_flag_is_there_once() -> None:
    assert [flag.name for flag in plain().flags] == list(MEANINGS)
    assert plain().samples == 40
    assert plain().eps == (1 / 16, 2 / 16, 4 / 16, 1 / 2)
    assert one(plain(), "large-eps").eps == 1 / 2
    assert one(plain(), "large-eps").threshold == pytest.approx(1 / 10 + 0.05)
    assert {a["attack"] for a in plain().attacks} >= {"fgsm", "pgd", "square"}
    assert {a["max_iter"] for a in plain().attacks if a["attack"] == "pgd"} == {20, 40}


@pytest.mark.parametrize("path", [DIGITS, ROBUST], ids=["plain", "robust"])
def test_quiet_on_honest_models(path: Any) -> None:
    found = plain() if path == DIGITS else checked(load(path), count=100, eps=(1 / 16, 2 / 16, 3 / 16))
    assert not fired(found)
    assert all(flag.fired is False for flag in found.flags)


def test_quiet_in_l2() -> None:
    assert not fired(checked(load(ROBUST), eps=(0.5, 1.0), norm="l2"))


def test_independent_of_the_batch_size() -> None:
    small = checked(load(DIGITS), count=40, eps=(EPS, EPS / 2), batch_size=17)
    assert [(f.name, f.fired, f.value) for f in small.flags] == [(f.name, f.fired, f.value) for f in plain().flags]


def test_rounded_pixels() -> None:
    found = fired(checked(false_defences.quantised(), attack="square"))
    assert set(found) == {"zero-gradients", "non-differentiable"}  # straight-through gradients find what Square does
    assert found["zero-gradients"].value == 1
    assert "Round (node 'quantise') has a zero gradient everywhere" in found["zero-gradients"].measured
    assert "straight-through gradients stand in" in found["zero-gradients"].measured
    assert found["non-differentiable"].measured == "Round (node 'quantise'); straight-through was used"


def test_integers_leave_nothing_to_climb() -> None:
    found = checked(false_defences.integers(), attack="square")
    fired_ = fired(found)
    assert set(fired_) == {"black-box", "zero-gradients", "non-differentiable"}
    assert fired_["black-box"].value is not None
    assert fired_["black-box"].value > 10
    assert "QuantizeLinear (node 'quantise')" in fired_["zero-gradients"].measured
    assert "straight-through gradients are 0 as well" in fired_["non-differentiable"].measured
    for name in ("single-step", "iterations", "saturation"):
        flag = one(found, name)
        assert (flag.fired, flag.value) == (None, None)
        assert "QuantizeLinear (node 'quantise')" in flag.measured
    assert one(found, "large-eps").fired is False  # Square breaks it there


def test_straight_through_gradients_find_what_the_plain_ones_miss() -> None:
    """What is left of a gradient points elsewhere; the flag says that straight-through was not used, until it is."""
    plain = one(checked(false_defences.staircase()), "non-differentiable")
    asked = one(checked(false_defences.staircase(), straight_through=True), "non-differentiable")
    assert plain.measured == "Round (node 'quantise'); straight-through was not used (--straight-through)"
    assert asked.measured == "Round (node 'quantise'); straight-through was used"


def test_a_gradient_that_is_left_over() -> None:
    found = fired(checked(false_defences.staircase()))
    assert "non-differentiable" in found
    assert "zero-gradients" not in found


def test_scaled_logits() -> None:
    found = checked(false_defences.scaled())
    flag = fired(found)["saturation"]
    assert flag.value is not None
    assert flag.value > 30
    assert flag.eps == EPS
    assert "60 of 60 withstand PGD-20 up frameworks' cross-entropy" in flag.measured
    assert "60 of 60 have a probability of exactly 1" in flag.measured
    assert "cross-entropy's gradient dies" in flag.meaning
    assert one(found, "zero-gradients").value == 0  # of the log odds, which the attacks climb


def test_saturated_samples_alone_are_normal() -> None:
    assert "have a probability of exactly 1" in one(plain(), "saturation").measured
    assert not one(plain(), "saturation").measured.endswith("; 0 of 40 have a probability of exactly 1 as they are")
    assert one(plain(), "saturation").fired is False


def test_noise_inside_the_model() -> None:
    found = fired(checked(false_defences.noisy()))
    assert {"run-to-run", "random-ops"} <= set(found)
    assert found["random-ops"].measured == "RandomNormalLike (node 'dither')"
    assert found["run-to-run"].value is not None
    assert found["run-to-run"].value > 1e-3


def test_too_few_iterations() -> None:
    found = fired(checked(load(DIGITS), count=100, attack="pgd", max_iter=1))
    assert "PGD-1" in found["iterations"].measured
    assert "PGD-2" in found["iterations"].measured
    assert "raise --max-iter" in found["iterations"].meaning


def test_whoever_raises_the_iterations_is_told_whether_that_was_enough() -> None:
    found = checked(load(DIGITS), count=20, attack="quick", max_iter=50)
    (flag,) = (each for each in found.flags if each.name == "iterations")
    assert "PGD-50" in flag.measured


def test_iterations_are_not_doubted_where_the_evaluations_own_attack_has_converged() -> None:
    """At the eps where that is known; at the other the comparison is made, and fires."""
    made = checked(load(DIGITS), eps=(EPS, EPS / 2), attack="pgd", max_iter=1, converged={EPS: 7, EPS / 2: 9})
    flag = one(made, "iterations")
    assert (flag.fired, flag.value) == (False, 0.0)
    assert "own PGD ran into an exact cycle for each of the 9 robust samples" in flag.measured
    half = one(
        checked(load(DIGITS), eps=(EPS, EPS / 2), attack="pgd", max_iter=1, converged={EPS / 2: 9}), "iterations"
    )
    assert (half.fired, half.eps) == (True, EPS)


def test_iterations_of_a_linear_net() -> None:
    """PGD ends in a corner of the ball, whence no step leads on: how many hold is known."""
    rng = np.random.default_rng(5)
    w = rng.normal(size=(12, 2)).astype(np.float32)
    x = rng.uniform(0.2, 0.8, (50, 12)).astype(np.float32)
    scores = x.astype(np.float64) @ w
    y, margin = scores.argmax(axis=1), np.abs(scores[:, 0] - scores[:, 1])
    eps = float(np.median(margin) / np.abs(w[:, 0] - w[:, 1]).sum())
    left = int((margin > eps * np.abs(w[:, 0].astype(np.float64) - w[:, 1]).sum()).sum())
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["z"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(w, "w")],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    found = check(
        victim_of(load_bytes(made.SerializeToString())),
        LabelledBatch(x, y, np.arange(len(y))),
        plans=[plan("pgd", eps=eps)],
        random_ops=(),
        gains=SAME,
        batch_size=16,
    )
    flag = one(found, "iterations")
    assert (flag.fired, flag.value, flag.eps) == (False, 0.0, eps)
    assert 20 < left < 30
    said = f"{left} of 50 withstand PGD-20, all of them in an exact cycle: more steps of that length change nothing"
    assert flag.measured == said


def test_an_op_without_a_rule() -> None:
    made = flat(3)
    made.graph.node.insert(0, helper.make_node("Shrink", ["x"], ["odd"], name="odd", lambd=0.01))
    made.graph.node[1].input[0] = "odd"
    victim = victim_of(load_bytes(made.SerializeToString()))
    x = np.random.default_rng(0).random((8, 12)).astype(np.float32)
    samples = LabelledBatch(x, victim.predict(x), np.arange(8))
    found = check(victim, samples, plans=[plan("square", eps=0.1)], random_ops=(), gains=SAME, batch_size=8)
    for name in ("single-step", "black-box", "iterations", "zero-gradients", "saturation"):
        assert one(found, name).fired is None
        assert "Shrink (node 'odd')" in one(found, name).measured


def test_nothing_right() -> None:
    victim = victim_of(load(DIGITS), sample_shape=(1, 8, 8))
    found = check(victim, None, plans=[plan("quick", eps=EPS)], random_ops=(), gains=SAME, batch_size=8)
    assert found.samples == 0
    assert [flag.name for flag in found.flags] == list(MEANINGS)
    assert one(found, "black-box").fired is None


def evaluated(model: Model, count: int = 200, **options: Any) -> Evaluation:
    x, y = digits_arrays()
    data = Dataset(ArraySource("digits.npz", x[:count], y[:count]), Preprocessing(), input_shape(model), classes=10)
    return evaluate(cpu(model), data, **{"eps": (EPS,), "attack": "pgd", "max_iter": 10, **options})


@cache
def false_mask() -> Evaluation:
    return evaluated(hardened(load(DIGITS), [Mask(false_defences.TAP, false_defences.replayed_away())]))


def test_a_mask_that_gains_against_replayed_inputs_only() -> None:
    found = false_mask()
    assert found.sanity is not None
    assert set(fired(found.sanity)) == {"static-gain"}
    flag = fired(found.sanity)["static-gain"]
    (each,) = found.results
    assert each.static.value - each.baseline.robust.value > 0.15
    assert flag.value == pytest.approx(100 * newcombe_paired(each.pairs).low)
    assert flag.value <= 0
    assert "made again with the masks in sight" in flag.meaning


def test_replays_between_models_without_masks_raise_no_flag() -> None:
    found = evaluated(load(ROBUST), 60, baseline=cpu(ROBUST), attack="square", max_iter=5)
    assert found.sanity is not None
    assert "static-gain" not in {flag.name for flag in found.sanity.flags}
    assert not found.baseline_is_source


@pytest.mark.parametrize(
    ("gains", "fires"),
    [
        ([(Paired(40, 20, 0, 40), Paired(40, 12, 0, 48))], False),  # much of the gain stays
        ([(Paired(40, 50, 0, 10), Paired(40, 12, 0, 48))], False),  # most is gone, but what is left is no chance
        ([(Paired(40, 20, 0, 40), Paired(40, 2, 1, 57))], True),  # what is left may be chance
        ([(Paired(40, 20, 0, 40), Paired(35, 0, 5, 60))], True),  # it turned into a loss
        ([(Paired(40, 3, 2, 55), Paired(40, 0, 0, 60))], False),  # the static gain may be chance
        ([(Paired(40, 20, 0, 40), Paired(40, 12, 0, 48)), (Paired(0, 40, 0, 60), Paired(0, 0, 0, 100))], False),
        ([(Paired(40, 20, 0, 40), Paired(40, 0, 0, 60)), (Paired(40, 2, 0, 58), Paired(40, 20, 0, 40))], True),
    ],
)
def test_what_is_left_of_a_static_gain(gains: list[tuple[Paired, Paired]], fires: bool) -> None:
    victim = victim_of(load(DIGITS), sample_shape=(1, 8, 8))
    made = [Gain(EPS * (i + 1), *pairs) for i, pairs in enumerate(gains)]
    found = check(victim, None, plans=[plan("quick", eps=EPS)], random_ops=(), gains=made, batch_size=8)
    flag = one(found, "static-gain")
    assert flag.fired is fires
    assert flag.value == pytest.approx(100 * newcombe_paired(gains[0][1]).low)


def test_the_file_and_the_report() -> None:
    found = false_mask()
    text = found.to_json()
    content = json.loads(text)
    Draft202012Validator(SCHEMA).validate(content)
    read = Evaluation.from_json(text)
    assert read.sanity == found.sanity
    assert read.to_json() == text
    flags = {flag["name"]: flag for flag in content["sanity"]["flags"]}
    assert flags["static-gain"]["meaning"] == MEANINGS["static-gain"]
    markdown = evaluation_markdown(found)
    assert "Sanity: 1 of 11 flags fired" in markdown
    assert "FLAG static-gain: +" in markdown
    assert "| single-step | ok |" in markdown


def test_left_out() -> None:
    found = evaluated(load(DIGITS), 4, baseline=cpu(DIGITS), sanity=False)
    assert found.sanity is None
    content = json.loads(found.to_json())
    assert content["sanity"] is None
    Draft202012Validator(SCHEMA).validate(content)
    assert Evaluation.from_json(found.to_json()).sanity is None
    assert "Sanity: not checked." in evaluation_markdown(found)


def dropout(mode: Any, opset: int = 17) -> ModelProto:
    """Return a model with a Dropout whose training mode is an initializer, a Constant, an input or left out."""
    nodes = [helper.make_node("Constant", [], ["ratio"], value=numpy_helper.from_array(np.float32(0.5)))]
    inputs, weights = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])], []
    names = ["x", "ratio"]
    if mode is not None:
        names.append("mode")
    if mode == "input":
        inputs.append(helper.make_tensor_value_info("mode", TensorProto.BOOL, []))
    elif isinstance(mode, bool):
        nodes.append(helper.make_node("Constant", [], ["mode"], value=numpy_helper.from_array(np.array(mode))))
    elif mode is not None:
        weights.append(numpy_helper.from_array(np.array(mode == "on"), "mode"))
    nodes += [helper.make_node("Dropout", names, ["y"], name="drop"), helper.make_node("Identity", ["x"], ["z"])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("y", "z")]
    graph = helper.make_graph(nodes, "made", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("mode", "random"), [(None, False), (False, False), ("off", False), (True, True), ("on", True), ("input", True)]
)
def test_dropout_in_training_mode(mode: Any, random: bool) -> None:
    made = dropout(mode)
    assert random_ops(made, "y") == (("Dropout (node 'drop')",) if random else ())
    assert random_ops(made, "z") == ()  # another output's


def test_random_ops_in_bodies_and_functions() -> None:
    branch = helper.make_graph(
        [helper.make_node("Bernoulli", ["x"], ["b"], name="coin")],
        "then",
        [],
        [helper.make_empty_tensor_value_info("b")],
    )
    nodes = [
        helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("Jitter", ["i"], ["j"], domain="local"),
        helper.make_node("RandomUniform", [], ["unused"], shape=[1]),
    ]
    function = helper.make_function(
        "local", "Jitter", ["a"], ["b"], [helper.make_node("Multinomial", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(nodes, "made", [], [helper.make_empty_tensor_value_info("j")])
    made = helper.make_model(graph, functions=[function])
    assert random_ops(made, "j") == (
        "Bernoulli (node 'coin')", "Bernoulli (node 'coin')", "Multinomial (it makes 'b')",
    )  # fmt: skip


@pytest.mark.skipif(manifest() is None, reason="needs the assets")
def test_quiet_on_the_plain_resnet() -> None:
    """On fewer samples and at one eps; docs/sanity.md has the figures of all hundred."""
    assets = manifest()
    assert assets is not None
    asset = assets["cifar10_resnet20"]
    victim, x, y = asset_victim(asset), asset_pixels(asset, 12), asset.labels(12)
    assert y is not None
    correct = Correct(10)
    correct.add(LabelledBatch(x, y, np.arange(12)), victim.predict(x) == y)
    plans = [plan("quick", eps=1 / 255)]
    found = check(victim, correct.samples(), plans=plans, random_ops=(), gains=SAME, batch_size=12)
    assert found.samples == 10
    assert not fired(found)
    assert all(flag.fired is False for flag in found.flags)
