"""Classifiers of one score and odd endings: what users run and what is attacked agree on every class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from cloakonnx.attacks.attack import attack as attack_all
from cloakonnx.attacks.base import make, registered
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.task import NO_CLASS
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import CloakError, ModelError
from cloakonnx.graph.file.model import load_bytes

from .helpers import CPU, model, victim_of

RNG = np.random.default_rng(5)
W = RNG.normal(size=(12, 1)).astype(np.float32)
X = RNG.uniform(size=(40, 3, 2, 2)).astype(np.float32)
CONSTANTS: dict[str, Any] = {
    "w": W,
    "b": np.float32([-(X.reshape(40, -1) @ W).mean()]),
    "one": np.float32(1),
    "minus": np.float32(-1),
    "half": np.float32(0.5),
    "low": np.float32(1e-7),
    "high": np.float32(1 - 1e-7),
    "wide": np.float32(-9),
    "axis": np.array([1]),
    "flat": np.array([-1]),
    "box": np.array([0, 1, 1, 1]),
    "step": np.float32(1 / 256),
    "zero": np.uint8(0),
}
Z = (X.reshape(40, -1) @ W + CONSTANTS["b"])[:, 0]


def ends(*steps: str, shape: list[Any] | None = None, inside: bool = False) -> onnx.ModelProto:
    """Make a model of one logit ``z`` (N, 1) and steps such as ``p = Sigmoid z``; the last one makes the output."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["z"])]
    tail = [step(each) for each in steps]
    tail[-1].output[0] = "scores"
    made = model([*nodes, *tail], CONSTANTS, ["N", 3, 2, 2], 1)
    if shape is not None:
        made.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape))
    if inside:
        del made.graph.node[2:]
        used = {name for node in tail for name in node.input if name in CONSTANTS}
        constants = [helper.make_node("Constant", [], [n], value=from_array(np.asarray(CONSTANTS[n]))) for n in used]
        opsets = [helper.make_opsetid("", 17)]
        made.functions.append(helper.make_function("local", "Tail", ["z"], ["scores"], [*constants, *tail], opsets))
        made.graph.node.append(helper.make_node("Tail", ["z"], ["scores"], domain="local"))
        made.opset_import.append(helper.make_opsetid("local", 1))
    return made


def step(text: str) -> NodeProto:
    """Make a node of ``output = Op input ... attribute:value ...``."""
    name, op, *given = text.replace("=", " ").split()
    attributes = {key: json.loads(value) for key, _, value in (each.partition(":") for each in given if ":" in each)}
    return helper.make_node(op, [each for each in given if ":" not in each], [name], **attributes)


def pair(made: onnx.ModelProto) -> tuple[Classifier, Victim]:
    loaded = load_bytes(made.SerializeToString())
    return Classifier(loaded, provider=CPU), victim_of(loaded, sample_shape=(3, 2, 2))


TOLD: dict[str, tuple[tuple[str, ...], list[Any] | None]] = {
    "logit": (("p = Identity z",), None),
    "squeezed": (("p = Squeeze z axis",), ["N"]),
    "reshaped": (("p = Reshape z flat",), ["N"]),
    "mean": (("p = ReduceMean z axes:[1] keepdims:0",), ["N"]),
    "maps": (("p = Sigmoid z", "q = Reshape p box"), ["N", 1, 1, 1]),
    "sigmoid": (("p = Sigmoid z",), None),
    "sigmoid, squeezed": (("p = Sigmoid z", "q = Squeeze p axis"), ["N"]),
    "sigmoid, clipped": (("p = Sigmoid z", "q = Clip p low high"), None),
    "sigmoid, turned": (("p = Sigmoid z", "q = Transpose p perm:[0,1]"), None),
    "hard sigmoid": (("p = HardSigmoid z",), None),
    "hard sigmoid, shifted": (("p = HardSigmoid z alpha:0.25 beta:0.4",), None),
    "spelled out": (("n = Neg z", "e = Exp n", "d = Add e one", "p = Reciprocal d"), None),
    "spelled out, divided": (("n = Mul minus z", "e = Exp n", "d = Add one e", "p = Div one d"), None),
    "clipped logit": (("p = Clip z wide",), None),
    "scaled logit": (("h = Mul z half", "p = Div h half"), None),
}


@pytest.mark.parametrize("name", TOLD)
def test_one_score(name: str) -> None:
    classifier, victim = pair(ends(*TOLD[name][0], shape=TOLD[name][1]))
    shift = 0.4 if name == "hard sigmoid, shifted" else 0.0
    expected = (shift < Z).astype(np.int64)
    assert 5 < expected.sum() < 35
    np.testing.assert_array_equal(classifier.predict(X), expected)
    np.testing.assert_array_equal(victim.predict(X), expected)
    assert victim.classes == 2
    for attack in list(registered()):
        limited = {} if attack in {"fgsm", "noise"} else {"max_iter": 5}
        found = make(attack, eps=0.3, **limited).run(victim, X, expected)
        np.testing.assert_array_equal(found.success, classifier.predict(found.x) != expected)
        assert attack == "noise" or found.success.any(), attack


@pytest.mark.parametrize("name", ["sigmoid", "hard sigmoid", "spelled out"])
def test_one_score_from_a_local_function(name: str) -> None:
    classifier, victim = pair(ends(*TOLD[name][0], inside=True))
    np.testing.assert_array_equal(classifier.predict(X), Z > 0)
    np.testing.assert_array_equal(victim.predict(X), Z > 0)


QUANTISED = ("q = QuantizeLinear p step zero", "r = DequantizeLinear q step zero")


@pytest.mark.parametrize("activation", ["Sigmoid", "HardSigmoid"])
def test_one_probability_that_is_quantised(activation: str) -> None:
    classifier, victim = pair(ends(f"p = {activation} z", *QUANTISED))
    said = classifier.predict(X)
    assert (said != (Z > 0)).sum() <= 1  # close to one half it is rounded to it
    assert 5 < said.sum() < 35
    np.testing.assert_array_equal(victim.predict(X), said)
    for attack in ("fgsm", "pgd", "apgd-dlr", "fab-t"):
        found = make(attack, eps=0.3, straight_through=True).run(victim, X, said)
        np.testing.assert_array_equal(found.success, classifier.predict(found.x) != said)
        assert found.success.sum() > 30, attack


def test_probabilities_that_are_quantised() -> None:
    """Many are equal, which the model as it is decides; its straight-through gradient is of the logits behind them."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"]),
        *map(step, QUANTISED),
    ]
    nodes[-1].output[0] = "scores"
    constants = {**CONSTANTS, "w3": 40 * RNG.normal(size=(12, 3)).astype(np.float32)}
    classifier, victim = pair(model(nodes, constants, ["N", 3, 2, 2], 3))
    said = classifier.predict(X)
    np.testing.assert_array_equal(victim.predict(X), said)
    found = make("pgd", eps=0.2, straight_through=True).run(victim, X, said)
    np.testing.assert_array_equal(found.success, classifier.predict(found.x) != said)
    assert found.success.sum() > 20


UNTOLD = {
    "Softplus": ("p = Softplus z",),
    "Exp": ("p = Exp z",),
    "Clip": ("p = Clip z low high",),
    "Div": ("e = Exp z", "d = Add e one", "p = Div e d"),
    "Sub of Sigmoid": ("s = Sigmoid z", "p = Sub one s"),
    "HardSigmoid": ("p = HardSigmoid z alpha:-0.2",),
    "Log": ("s = Sigmoid z", "a = Add s half", "p = Log a"),
}


def test_the_logarithm_of_one_probability_is_no_logit() -> None:
    with pytest.raises(ModelError, match="ends in Log, which shows neither"):
        victim_of(load_bytes(ends("s = Sigmoid z", "p = Log s").SerializeToString()))
    odds = ends("s = Sigmoid z", "n = Neg z", "t = Sigmoid n", "o = Div s t", "p = Log o")
    classifier, victim = pair(odds)
    np.testing.assert_array_equal(victim.predict(X), classifier.predict(X))


@pytest.mark.parametrize("what", UNTOLD)
def test_one_score_that_may_be_anything(what: str) -> None:
    made = ends(*UNTOLD[what])
    message = (
        f"output 'scores' gives one score a sample and ends in {what}, which shows neither a probability nor a logit"
    )
    loaded = load_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=message):
        Classifier(loaded, provider=CPU).predict(X)
    with pytest.raises(ModelError, match=message):
        victim_of(loaded)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_over_one_class(op: str) -> None:
    loaded = load_bytes(ends(f"p = {op} z").SerializeToString())
    with pytest.raises(ModelError, match=f"is a {op} over a single class, which gives every input the same score"):
        Classifier(loaded, provider=CPU).predict(X)
    with pytest.raises(ModelError, match=f"is a {op} over a single class"):
        victim_of(loaded)


@pytest.mark.parametrize("tail", [[], ["Softmax"], ["Sigmoid"]])
def test_maps_of_scores_are_refused(tail: list[str]) -> None:
    nodes = [helper.make_node("Conv", ["x", "k"], ["z"])]
    nodes += [helper.make_node(op, ["z"], ["p"], **({"axis": 1} if op == "Softmax" else {})) for op in tail]
    nodes[-1].output[0] = "scores"
    made = model(nodes, {"k": RNG.normal(size=(4, 3, 1, 1)).astype(np.float32)}, ["N", 3, 2, 2], 4)
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4, 2, 2]))
    loaded = load_bytes(made.SerializeToString())
    with pytest.raises(CloakError, match=r"\(N, 4, 2, 2\); a classifier gives one row of class scores a sample"):
        victim_of(loaded)
    with pytest.raises(CloakError, match=r"\(40, 4, 2, 2\) for 40 samples; a classifier gives one row"):
        Classifier(loaded, provider=CPU).predict(X)


@pytest.mark.parametrize("classes", [1, 3])
def test_scores_that_are_no_numbers(classes: int) -> None:
    """The square root is not a number for the first samples: they count as wrong, and as fooled."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["z"]),
        helper.make_node("ReduceMin", ["f"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["m"], ["r"]),
        helper.make_node("Add", ["z", "r"], ["scores"]),
    ]
    made = model(nodes, {"w": RNG.normal(size=(12, classes)).astype(np.float32)}, ["N", 3, 2, 2], classes)
    classifier, victim = pair(made)
    x = X.copy()
    x[:4, 0, 0, 0] = -0.1
    said = classifier.predict(x)
    assert said[:4].tolist() == [NO_CLASS] * 4
    assert said[4:].min() >= 0
    np.testing.assert_array_equal(victim.predict(x), said)
    y = np.maximum(said, 0)
    for attack in list(registered()):
        limited = {} if attack in {"fgsm", "noise"} else {"max_iter": 3}
        found = make(attack, eps=0.05, **limited).run(victim, x, y)
        stood = attack == "fgsm"  # it moves what it is given, and may lead back among the numbers
        assert found.success[:4].all() or stood, attack


BY_TASK: dict[str, tuple[tuple[str, ...], float, float]] = {
    "softsign": (("a = Abs z", "m = Add a one", "p = Div z m"), 0.0, 0.0),
    "Relu": (("p = Relu z",), 0.0, 0.0),
    "a sigmoid less a half": (("s = Sigmoid z", "p = Sub s half"), 0.0, 0.0),
    "one less a decay": (("r = Relu z", "n = Neg r", "e = Exp n", "p = Sub one e"), 0.5, np.log(2)),
    "Exp below 1": (("r = Relu z", "n = Neg r", "p = Exp n"), 0.5, -np.log(2)),
}
"""Steps; what the score must exceed; and what the logit, or its negative, must exceed for it."""


@pytest.mark.parametrize("name", BY_TASK)
@pytest.mark.parametrize("attacked", ["pgd", "square"])
def test_the_task_takes_a_score_that_may_be_anything(name: str, attacked: str, tmp_path: Path) -> None:
    """By its values: a probability in [0, 1], else a logit. The change of a linear net can be written down."""
    steps, threshold, limit = BY_TASK[name]
    made = load_bytes(ends(*steps).SerializeToString())
    with pytest.raises(ModelError, match="task binary"):
        Classifier(made, provider=CPU).predict(X)
    above = limit < Z if limit >= 0 else -limit > Z
    rng = np.random.default_rng(0)
    y = np.where(rng.random(40) < 0.2, ~above, above).astype(np.int64)
    classifier = Classifier(made, provider=CPU, task="binary")
    dataset = Dataset.of(ArraySource("x", X, y), classifier)
    settings = {"loss": "margin", "max_iter": 30} if attacked == "pgd" else {"max_iter": 300}
    found = attack_all(classifier, dataset, output=tmp_path / "a.npz", attack=attacked, eps=0.05, **settings)
    assert found.correct == (above == y).sum()
    assert found.notes[0].endswith(f"class 1 above {threshold:g}")
    flat, w = X.reshape(40, -1), W[:, 0]
    toward = np.sign(abs(limit) - Z)[:, None]
    worst = np.clip(flat + toward * np.sign(w) * 0.05, 0, 1) @ w + CONSTANTS["b"]
    exact = (above == y) & ((worst > limit if limit >= 0 else worst < -limit) == above)
    assert 0 < exact.sum() < found.correct
    if name in {"softsign", "a sigmoid less a half"}:
        assert found.robust == exact.sum()
    else:  # a Relu at 0 is flat
        assert exact.sum() <= found.robust < found.correct


def test_a_score_that_its_threshold_does_not_part(tmp_path: Path) -> None:
    """Exp of a logit is above 0 for every sample: it is said that all are of class 1."""
    classifier = Classifier(load_bytes(ends("p = Exp z").SerializeToString()), provider=CPU, task="binary")
    dataset = Dataset.of(ArraySource("x", X, np.ones(40, np.int64)), classifier)
    found = attack_all(classifier, dataset, output=tmp_path / "a.npz", attack="noise", eps=0.05)
    assert found.correct == 40
    assert "a logit: class 1 above 0, which all of the first 40 exceed" in found.notes[0]
