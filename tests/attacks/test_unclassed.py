"""Outputs that hold no class scores are refused by what they are, and the tensor before them is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from cloakonnx.attacks.attack import attack
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.ending import check_class_scores
from cloakonnx.classifier.reading import reading
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import CloakError, DataError, ModelError, OptionError
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.graph.file.model import load_bytes

from .helpers import CPU
from .test_probabilities import FIVE, step

D = 36
RNG = np.random.default_rng(2)
CONSTANTS: dict[str, Any] = {
    "five": np.array([5]),
    "depth": np.array(5),
    "values": np.float32([0, 1]),
    "axis": np.array([1]),
    "least": np.float32(1e-6),
    "two": np.float32(2),
    "center": np.full(5, 0.5, np.float32),
    "decoder": RNG.normal(size=(5, D)).astype(np.float32),
    "w": FIVE[2] / 100,
    "b": FIVE[3] / 100,
}
LABELS: dict[str, tuple[str, Any, str, str]] = {
    "TopK": ("q = Softmax z axis:1; p, i = TopK q five axis:1", 5, "the largest values of each sample in order", "q"),
    "TopK, cast": ("t, i = TopK z five axis:1; p = Cast t to:1", 5, "the largest values of each sample in order", "z"),
    "TopK, softmax": ("t, i = TopK z five axis:1; p = Softmax t axis:1", 5, "the largest values of each sample", "z"),
    "TopK, scaled": (
        "t, i = TopK z five axis:1; s = Mul t two; p = Sigmoid s",
        5,
        "the largest values of each sample",
        "z",
    ),
    "TopK, which": ("t, i = TopK z five axis:1; p = Cast i to:1", 5, "the predicted labels in order", "z"),
    "ArgMax": ("i = ArgMax z axis:1 keepdims:1; p = Cast i to:1", 1, "the predicted label", "z"),
    "ArgMax, flat": ("i = ArgMax z axis:1 keepdims:0; p = Cast i to:1", None, "the predicted label", "z"),
    "ArgMin": ("n = Neg z; i = ArgMin n axis:1; p = Cast i to:1", 1, "the predicted label", "n"),
    "Hardmax": ("p = Hardmax z axis:1", 5, "the predicted label", "z"),
    "OneHot": ("i = ArgMax z axis:1 keepdims:0; p = OneHot i depth values", 5, "the predicted label", "z"),
}
OTHERS: dict[str, tuple[str, int, str]] = {
    "LpNormalization": ("p = LpNormalization z axis:1 p:2", 5, "an embedding"),
    "by ReduceL2": ("n = ReduceL2 z axes:[1]; p = Div z n", 5, "an embedding"),
    "by a guarded ReduceL2": ("n = ReduceL2 z axes:[1]; m = Max n least; p = Div z m", 5, "an embedding"),
    "spelled": ("s = Mul z z; t = ReduceSum s axis; n = Sqrt t; p = Div z n", 5, "an embedding"),
    "autoencoder": ("p = MatMul z decoder", D, "an autoencoder"),
    "autoencoder in [0, 1]": ("m = MatMul z decoder; p = Sigmoid m", D, "an autoencoder"),
    "distance": ("d = Sub z center; p = ReduceL2 d axes:[1]", 1, "an anomaly score"),
    "mean of squares": ("d = Sub z center; s = Mul d d; p = ReduceMean s axes:[1]", 1, "an anomaly score"),
    "mean of powers": ("d = Sub z center; s = Pow d two; p = ReduceMean s axes:[1]", 1, "an anomaly score"),
    "sigmoids": ("p = Sigmoid z", 5, r"5 sigmoids.*multilabel"),
    "hard sigmoids": ("p = HardSigmoid z", 5, r"5 sigmoids.*multilabel"),
}


def classifier(steps: str, outputs: int | None, *, task: str | None = None) -> Classifier:
    tail = []
    for each in steps.split(";"):
        names, _, rest = each.partition("=")
        node = step(f"first = {rest}")
        node.output[:] = [name.strip() for name in names.split(",")]
        tail.append(node)
    shape = ["N"] if outputs is None else ["N", outputs]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), *tail],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", D])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, shape)],
        [from_array(np.asarray(value), name) for name, value in CONSTANTS.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return Classifier(load_bytes(made.SerializeToString()), provider=CPU, task=task)


def samples(made: Classifier) -> Dataset:
    return Dataset.of(ArraySource("x", FIVE[0], np.zeros(len(FIVE[0]), np.int64)), made)


@pytest.mark.parametrize("name", LABELS)
def test_labels_and_sorted_values(name: str, tmp_path: Path) -> None:
    """The tensor before is named with what makes it an output, and there the right number comes out."""
    steps, outputs, what, front = LABELS[name]
    made = classifier(steps, outputs)
    with pytest.raises(ModelError, match=f"{what}.*the scores are in tensor '{front}'") as error:
        attack(made, samples(made), output=tmp_path / "a.npz", attack="square", eps=0.05, max_iter=5)
    assert not (tmp_path / "a.npz").exists()
    assert f"['x'], ['{front}'])" in str(error.value)
    onnx.save(made.model.proto, tmp_path / "model.onnx")
    onnx.utils.extract_model(str(tmp_path / "model.onnx"), str(tmp_path / "scores.onnx"), ["x"], [front])
    scores = Classifier(tmp_path / "scores.onnx", provider=CPU).scores(FIVE[0])
    expected = FIVE[0] @ CONSTANTS["w"] + CONSTANTS["b"]
    np.testing.assert_array_equal((-scores if front == "n" else scores).argmax(1), expected.argmax(1))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_classifier(name: str, tmp_path: Path) -> None:
    steps, outputs, what = OTHERS[name]
    made = classifier(steps, outputs)
    with pytest.raises(ModelError, match=f"{what}.*task classes"):
        attack(made, samples(made), output=tmp_path / "a.npz", attack="noise", eps=0.05)


@pytest.mark.parametrize("name", ["sigmoids", "LpNormalization", "autoencoder"])
def test_the_task_overrules(name: str, tmp_path: Path) -> None:
    steps, outputs, _ = OTHERS[name]
    made = classifier(steps, outputs, task="classes")
    found = attack(made, samples(made), output=tmp_path / "a.npz", attack="noise", eps=0.05)
    assert found.correct == int((made.scores(FIVE[0]).argmax(1) == 0).sum())
    assert made.beside(made.model).asked_task == made.shipped().asked_task == "classes"


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [("p = Identity z", 5), ("p = Softmax z axis:1", 5), ("m = MatMul z decoder; p = Softmax m axis:1", D)],
)
def test_class_scores_are_taken(steps: str, outputs: int) -> None:
    made = classifier(steps, outputs)
    assert reading(made, samples(made)).classifier is made


def test_tasks_that_are_not_built_yet() -> None:
    with pytest.raises(OptionError, match="task multilabel is not built yet; there are classes and binary"):
        classifier("p = Sigmoid z", 5, task="multilabel")
    with pytest.raises(CloakError, match=r"there is no task 'clases' .*did you mean 'classes'"):
        classifier("p = Sigmoid z", 5, task="clases")


def regressor(op_type: str, name: str, producer: str) -> onnx.ModelProto:
    """Return two values of a sample: by a Gemm, or by an op of ai.onnx.ml, which is checked by no run here."""
    domain = "" if op_type == "Gemm" else "ai.onnx.ml"
    last = helper.make_node(op_type, ["x", "w"] if op_type == "Gemm" else ["x"], ["values"], domain=domain)
    if op_type == "LinearRegressor":
        last.attribute.append(helper.make_attribute("coefficients", [1.0] * (2 * D)))
        last.attribute.append(helper.make_attribute("targets", 2))
    weight = np.random.default_rng(9).normal(size=(D, 2)).astype(np.float32)
    graph = helper.make_graph(
        [last, helper.make_node("Identity", ["values"], [name])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", D])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2])],
        [from_array(weight, "w")] if op_type == "Gemm" else [],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)


@pytest.mark.parametrize(
    ("op_type", "name", "producer", "why"),
    [
        ("LinearRegressor", "p", "", r"the values of a regression \(LinearRegressor\)"),
        ("Gemm", "variable", "skl2onnx", "the values of a regression, by its name in files of skl2onnx"),
        ("Gemm", "variable", "OnnxMLTools", "the values of a regression, by its name in files of OnnxMLTools"),
        ("Gemm", "variable", "pytorch", ""),
        ("Gemm", "p", "skl2onnx", ""),
    ],
)
def test_regressors(op_type: str, name: str, producer: str, why: str, tmp_path: Path) -> None:
    """As skl2onnx 1.20 writes them: a linear model by an op of its own, a multilayer perceptron by MatMul and Add."""
    made = Classifier(load_bytes(regressor(op_type, name, producer).SerializeToString()), provider=CPU)
    given: Any = {"attack": "square", "eps": 0.05, "max_iter": 2}
    if why:
        with pytest.raises(ModelError, match=f"{why}; the task regression is not built yet.*task classes"):
            attack(made, samples(made), output=tmp_path / "a.npz", **given)
        made = made.changed(task="classes")
    found = attack(made, samples(made), output=tmp_path / "a.npz", **given)
    assert found.count == len(FIVE[0])


RESCALED = {
    "Cast": (("Cast", {"to": TensorProto.FLOAT}),),
    "Mul, Add": (("Mul", "c"), ("Add", "c")),
    "Clip": (("Clip", "c"),),
    "Exp, Sub": (("Exp",), ("Sub", "c")),
    "Relu, Reshape": (("Relu",), ("Reshape", "s")),
}


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("steps", RESCALED)
def test_regressors_whose_values_are_rescaled(steps: str, columns: int) -> None:
    made, name = [], "values"
    for number, (op, *more) in enumerate(RESCALED[steps]):
        given = [name, *(each for each in more if isinstance(each, str))]
        attributes = next((each for each in more if isinstance(each, dict)), {})
        name = "y" if number == len(RESCALED[steps]) - 1 else f"v{number}"
        made.append(helper.make_node(op, given, [name], **attributes))
    for end, is_refused in ((None, True), ("Sigmoid", False), ("Softmax", False)):
        rest = [helper.make_node(end, ["y"], ["p"])] if end else []
        model = of_trees([*made, *rest], "p" if end else "y", columns)
        found = check(model, columns)
        assert ("the values of a regression (TreeEnsembleRegressor)" in found) is is_refused, found


def of_trees(nodes: list[onnx.NodeProto], output: str, columns: int) -> onnx.ModelProto:
    """Return a graph that begins with trees; it is not run."""
    trees = helper.make_node("TreeEnsembleRegressor", ["x"], ["values"], domain="ai.onnx.ml", n_targets=columns)
    constants = [from_array(np.full((1, 1), 2, np.float32), "c"), from_array(np.array([-1, columns]), "s")]
    graph = helper.make_graph(
        [trees, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", D])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", columns])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def check(model: onnx.ModelProto, columns: int) -> str:
    """Return why an output is refused; empty where it is not."""
    loaded = load_bytes(model.SerializeToString())
    try:
        check_class_scores(loaded, model.graph.output[0].name, scores=columns, sample=(D,), input_name="x")
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.linspace(17.2, 63.9, 60), "numbers with fractions are those of a regression"),
        (np.arange(60) + 1, "labels such as ages or prices are those of a regression"),
        (np.arange(60) % 3, "but the model has 2 classes (0 to 1)"),
    ],
)
def test_labels_of_a_regression(y: np.ndarray, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=FIVE[0][:60], y=y)
    made = Classifier(load_bytes(regressor("Gemm", "p", "").SerializeToString()), provider=CPU)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        attack(made, tmp_path / "d.npz", attack="square", eps=0.05, max_iter=2)
    assert ("regression" in str(caught.value)) is ("regression" in said)


@pytest.mark.parametrize(("right", "doubted"), [(36, True), (45, False), (25, False)])
def test_a_regression_whose_labels_fit_by_chance(right: int, doubted: bool, tmp_path: Path) -> None:
    """36 of 60 and more come up in 7.7% of tosses of a coin, 45 and more in 0.007%; 25 is said to be chance already."""
    made = Classifier(load_bytes(regressor("Gemm", "p", "").SerializeToString()), provider=CPU)
    x = FIVE[0][:60]
    y = made.predict(x)
    y[right:] = 1 - y[right:]
    data = Dataset.of(ArraySource("x", x, y), made)
    given: Any = {"attack": "square", "eps": 0.05, "max_iter": 2}
    found = attack(made, data, output=tmp_path / "a.npz", **given)
    said = f"{right} of 60 right is no more than chance explains in 2 classes"
    assert found.correct == right
    assert (said in (found.labels_hint or "")) == doubted
    assert found.is_at_chance == (right == 25)
    asked = attack(made.changed(task="classes"), data, output=tmp_path / "b.npz", **given)
    assert said not in (asked.labels_hint or "")
    compared = evaluate(made, data, eps=[0.05], attack="square", max_iter=2, baseline=made, sanity=False)
    assert sum(said in note for note in compared.notes) == 2 * doubted
