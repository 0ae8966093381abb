"""Probabilities that are spelled out, joined or scaled: attacks find the worst case that can be written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from cloakonnx.attacks.attack import Attacked, attack
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.reading import are_probabilities
from cloakonnx.classifier.sessions import Asked
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.graph.file.model import load_bytes

from .helpers import CPU

D, EPS = 36, 0.08
Array = NDArray[Any]


@cache
def blobs(classes: int, spread: float, seed: int) -> tuple[Array, Array, Array, Array]:
    """Samples in [0, 1] around prototypes, labels, and the very sure linear classifier of the nearest one."""
    rng = np.random.default_rng(seed)
    protos = np.random.default_rng(77).uniform(0.2, 0.8, (classes, D))
    y = np.arange(120) % classes
    x = np.clip(protos[y] + rng.normal(0, spread, (120, D)), 0, 1).astype(np.float32)
    w = 400 * protos.T
    b = -200 * (protos**2).sum(1)
    return x, y, (w - w.mean(1, keepdims=True)).astype(np.float32), (b - b.mean()).astype(np.float32)


def exact(x: Array, y: Array, w: Array, b: Array) -> tuple[int, int]:
    """How many a linear classifier has right, and how many withstand every change of at most EPS within [0, 1]."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    z, up, down = x @ w + b, np.minimum(x + EPS, 1) - x, np.maximum(x - EPS, 0) - x
    keep = np.ones(len(x), bool)
    for j in range(w.shape[1]):
        delta = w[:, j][None] - w[:, y].T
        worst = z[:, j] - z[np.arange(len(x)), y] + np.maximum(delta * up, delta * down).sum(1)
        keep &= (j == y) | (worst < 0)
    return int((z.argmax(1) == y).sum()), int(keep.sum())


FIVE, TWO = blobs(5, 0.22, 4), blobs(2, 0.3, 6)
ORDER = np.array([3, 1, 4, 0, 2])
CONSTANTS: dict[str, Any] = {
    "one": np.float32(1),
    "minus": np.float32(-1),
    "axis": np.array([1]),
    "first": np.array([0]),
    "hundred": np.float32(100),
    "cold": np.full(5, 3, np.float32),
    "low": np.float32(1e-7),
    "tiny": np.full((1, 5), 1e-7, np.float32),
    "keep": np.float32(0.9),
    "rest": np.float32(0.02),
    "half": np.float32(0.5),
    "pads": np.array([0, 1, 0, 0]),
    "very_low": np.float32(-30),
    "from": np.array([1]),
    "to": np.array([9]),
    "back": np.argsort(ORDER),
    "swap": np.eye(5, dtype=np.float32)[:, np.argsort(ORDER)],
    "shape": np.array([-1, 5, 1, 1]),
    "flat": np.array([-1, 5]),
    "zeros": np.zeros(5, np.float32),
    "two": np.float32(2),
    "nothing": np.float32(0),
    "high": np.float32(1 - 1e-6),
    "both": np.array([[-1, 1]], np.float32),
    "first_class": np.array([[1, 0]], np.float32),
    "behind": np.array([0, 0, 0, 1]),
    "ahead": np.array([0, 1, 0, 0]),
    "one_16": np.float16(1),
}
SPELLED: dict[str, str] = {
    "softmax": "p = Softmax z axis:1",
    "spelled": "m = ReduceMax z axes:[1]; c = Sub z m; e = Exp c; s = ReduceSum e axis; p = Div e s",
    "guarded": "m = ReduceMax z axes:[1]; c = Sub z m; e = Exp c; s = ReduceSum e axis; t = Add s low; p = Div e t",
    "reciprocal": "m = ReduceMax z axes:[1]; c = Sub z m; e = Exp c; s = ReduceSum e axis; r = Reciprocal s; "
    "p = Mul r e",
    "exp of LogSoftmax": "l = LogSoftmax z axis:1; p = Exp l",
    "exp of z - logsumexp": "l = ReduceLogSumExp z axes:[1]; m = Sub z l; p = Exp m",
    "percent": "q = Softmax z axis:1; p = Mul q hundred",
    "divided": "q = Softmax z axis:1; p = Div q hundred",
    "scaled by a vector": "q = Softmax z axis:1; p = Mul cold q",
    "log(p + c)": "q = Softmax z axis:1; r = Add q low; p = Log r",
    "log(c + p), a vector": "q = Softmax z axis:1; r = Add tiny q; p = Log r",
    "smoothed": "q = Softmax z axis:1; r = Mul q keep; p = Add r rest",
    "squared": "q = Softmax z axis:1; p = Sqrt q",
    "background, sliced": "six = Pad z pads very_low; q = Softmax six axis:1; p = Slice q from to axis",
    "maps": "u = Reshape z shape; q = Softmax u axis:1; r = Mul q hundred; p = Reshape r flat",
    "mean": "a = Softmax z axis:1; t = Mul z half; u = Softmax t axis:1; p = Mean a u",
    "half of the sum": "a = Softmax z axis:1; l = LogSoftmax z axis:1; u = Exp l; s = Add a u; p = Mul s half",
    "stacked": (
        "a = Softmax z axis:1; t = Unsqueeze a first; u = Unsqueeze a first; v = Concat t u axis:0; "
        "p = ReduceMean v axes:[0] keepdims:0"
    ),
    "product": "a = Softmax z axis:1; t = Mul z half; u = Softmax t axis:1; p = Mul a u",
    "larger of two": "a = Softmax z axis:1; t = Mul z half; u = Softmax t axis:1; p = Max a u",
    "softmax twice": "q = Softmax z axis:1; p = Softmax q axis:1",
    "softmax of 100 p": "q = Softmax z axis:1; r = Mul q hundred; p = Softmax r axis:1",
    "powers of two": ("m = ReduceMax z axes:[1]; c = Sub z m; e = Pow two c; s = ReduceSum e axis; p = Div e s"),
    "sum of 1 by a norm": "m = ReduceMax z axes:[1]; c = Sub z m; e = Exp c; p = LpNormalization e axis:1 p:1",
    "1 - (1 - p)": "q = Softmax z axis:1; r = Sub one q; p = Sub one r",
    "--log p": "q = Softmax z axis:1; l = Log q; n = Neg l; p = Neg n",
    "-(-1 * p)": "q = Softmax z axis:1; l = Mul q minus; p = Neg l",
    "log p - log(1 - p)": (
        "q = Softmax z axis:1; c = Clip q low high; l = Log c; r = Sub one c; s = Log r; p = Sub l s"
    ),
    "small ones set to 0": "q = Softmax z axis:1; f = Less q low; p = Where f nothing q",
    "large ones kept": "q = Softmax z axis:1; f = Greater q low; p = Where f q nothing",
    "small ones cut": "q = Softmax z axis:1; p = ThresholdedRelu q alpha:0.001",
    "bounded below": "q = Softmax z axis:1; p = Max low q",
    "tanh": "q = Softmax z axis:1; p = Tanh q",
}
REORDERED = {
    "gathered": "q = Softmax z axis:1; p = Gather q back axis:1",
    "by a matrix": "q = Softmax z axis:1; p = MatMul q swap",
    "by a Gemm": "q = Softmax z axis:1; p = Gemm q swap zeros",
}
BINARY = {
    "1 - p": "q = Sigmoid z; n = Sub one q; p = Concat n q axis:1",
    "-p + 1": "q = Sigmoid z; m = Neg q; n = Add m one; p = Concat n q axis:1",
    "1 + p * -1": "q = Sigmoid z; m = Mul q minus; n = Add one m; p = Concat n q axis:1",
    "spelled": "m = Neg z; e = Exp m; s = Add one e; q = Div one s; n = Sub one q; p = Concat n q axis:1",
    "percent": "q = Sigmoid z; n = Sub one q; r = Concat n q axis:1; p = Mul r hundred",
    "(p - 1) * -1": "q = Sigmoid z; m = Sub q one; n = Mul m minus; p = Concat n q axis:1",
    "by a Gemm": "q = Sigmoid z; p = Gemm q both first_class",
    "by a MatMul": "q = Sigmoid z; m = MatMul q both; p = Add m first_class",
    "by broadcasting": "q = Sigmoid z; m = Mul q both; p = Add m first_class",
    "distances": "q = Sigmoid z; m = Sub q first_class; p = Abs m",
    "of a vector": (
        "q = Sigmoid z; v = Squeeze q axis; n = Sub one v; a = Unsqueeze n axis; c = Unsqueeze v axis; "
        "p = Concat a c axis:1"
    ),
    "padded": "q = Sigmoid z; n = Sub one q; a = Pad n behind; c = Pad q ahead; p = Add a c",
    "tanh": "h = Mul z half; t = Tanh h; u = Add t one; q = Mul u half; n = Sub one q; p = Concat n q axis:1",
    "mean of two": "q = Sigmoid z; r = Sigmoid z; s = Add q r; t = Mul s half; n = Sub one t; p = Concat n t axis:1",
    "chosen": "q = Sigmoid z; n = Sub one q; f = Greater q half; r = Where f q q; p = Concat n r axis:1",
    "float16": "q = Sigmoid z; h = Cast q to:10; n = Sub one_16 h; r = Concat n h axis:1; p = Cast r to:1",
}
ONE_SCORE = {"2 p - 1": "q = Sigmoid z; m = Mul q two; p = Sub m one", "p - 0.5": "q = Sigmoid z; p = Sub q half"}


def step(text: str) -> NodeProto:
    """Make a node of ``output = Op input ... attribute:value ...``."""
    name, op, *given = text.replace("=", " ").split()
    attributes = {key: json.loads(value) for key, _, value in (each.partition(":") for each in given if ":" in each)}
    return helper.make_node(op, [each for each in given if ":" not in each], [name], **attributes)


def classifier(steps: str | Sequence[NodeProto], w: Array, b: Array, *, outputs: int, kind: str = "f4") -> Classifier:
    """A linear classifier of logits z (N, classes), and steps that make its output p."""
    tail = [step(each) for each in steps.split(";")] if isinstance(steps, str) else list(steps)
    constants = {**CONSTANTS, "w": w.astype(kind), "b": b.astype(kind)}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), *tail],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", D])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", outputs])],
        [from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return Classifier(load_bytes(made.SerializeToString()), provider=CPU)


def attacked(
    made: Classifier, data: tuple[Array, ...], folder: Path, *, name: str = "pgd", **settings: Any
) -> Attacked:
    dataset = Dataset.of(ArraySource("x", data[0], data[1]), made)
    found = attack(made, dataset, output=folder / "a.npz", attack=name, eps=EPS, **settings)
    return found


def test_what_is_right() -> None:
    assert (exact(*FIVE), exact(*TWO)) == ((119, 98), (120, 102))


@pytest.mark.parametrize("name", SPELLED)
def test_spelled_out(name: str, tmp_path: Path) -> None:
    """The order of the classes is that of the logits, so the exact number is too; 114 withstood by rounded scores."""
    made = classifier(SPELLED[name], *FIVE[2:], outputs=5)
    found = attacked(made, FIVE, tmp_path)
    assert (found.correct, found.robust) == exact(*FIVE)
    assert "probabilities" in found.taken_for
    assert made.graph(Asked()).logs == (None if name == "softmax" else "exact")


@pytest.mark.parametrize("name", REORDERED)
def test_classes_in_another_order(name: str, tmp_path: Path) -> None:
    made = classifier(REORDERED[name], FIVE[2][:, ORDER], FIVE[3][ORDER], outputs=5)
    found = attacked(made, FIVE, tmp_path)
    assert (found.correct, found.robust) == exact(*FIVE)


@pytest.mark.parametrize("name", BINARY)
def test_one_sigmoid_and_what_is_left_of_it(name: str, tmp_path: Path) -> None:
    w, b = TWO[2][:, 1:] - TWO[2][:, :1], TWO[3][1:] - TWO[3][:1]
    found = attacked(classifier(BINARY[name], w, b, outputs=2), TWO, tmp_path)
    assert (found.correct, found.robust) == exact(*TWO)


@pytest.mark.parametrize("name", ONE_SCORE)
def test_one_score_that_is_no_logit(name: str, tmp_path: Path) -> None:
    """What it means is decided by its values; either way it hides the logit that the exact number is found by."""
    w, b = TWO[2][:, 1:] - TWO[2][:, :1], TWO[3][1:] - TWO[3][:1]
    made = classifier(ONE_SCORE[name], w, b, outputs=1).changed(probabilities=False)
    found = attacked(made, TWO, tmp_path)
    assert (found.correct, found.robust) == exact(*TWO)
    assert found.taken_for == "output 'p' decides between two classes by one number; losses use that number"


def test_a_tanh_of_one_logit(tmp_path: Path) -> None:
    w, b = TWO[2][:, 1:] - TWO[2][:, :1], TWO[3][1:] - TWO[3][:1]
    found = attacked(classifier("p = Tanh z", w, b, outputs=1), TWO, tmp_path)
    assert (found.correct, found.robust) == exact(*TWO)


def test_a_number_that_both_scores_turn_at_twice_stays(tmp_path: Path) -> None:
    """The second class in the middle alone: no threshold parts the classes."""
    w, b = TWO[2][:, 1:] - TWO[2][:, :1], TWO[3][1:] - TWO[3][:1]
    made = classifier("a = Abs z; n = Sub hundred a; p = Concat a n axis:1", w, b, outputs=2)
    assert made.graph(Asked()).logs is None
    z = made.logits(TWO[0][:5])
    np.testing.assert_allclose(z, made.scores(TWO[0][:5]), rtol=1e-6)


@pytest.mark.parametrize("steps", ["n = Neg z; p = Concat n z axis:1", "n = Sub z z; p = Concat n z axis:1"])
def test_two_logits_of_one_number_stay_logits(steps: str, tmp_path: Path) -> None:
    w, b = TWO[2][:, 1:] - TWO[2][:, :1], TWO[3][1:] - TWO[3][:1]
    found = attacked(classifier(steps, w, b, outputs=2), TWO, tmp_path)
    assert found.taken_for == "output 'p' is taken for logits"
    assert (found.correct, found.robust) == exact(*TWO)


def branches(op: str, outer: bool = False) -> list[NodeProto]:
    """The probability out of an If; the second branch gives one from before it (``outer``)."""
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("q", "r")]
    first = helper.make_graph([helper.make_node(op, ["z"], ["q"])], "then", [], shape[:1])
    second = helper.make_graph(
        [helper.make_node("Identity" if outer else op, ["s" if outer else "z"], ["r"])], "else", [], shape[1:]
    )
    return [helper.make_node("If", ["flag"], ["p"], then_branch=first, else_branch=second)]


def test_a_branch_that_always_runs(tmp_path: Path) -> None:
    flag = helper.make_node("Constant", [], ["flag"], value=from_array(np.array(True)))
    found = attacked(classifier([flag, *branches("Softmax")], *FIVE[2:], outputs=5), FIVE, tmp_path)
    assert (found.correct, found.robust) == exact(*FIVE)


def test_one_probability_out_of_branches_that_the_data_choose(tmp_path: Path) -> None:
    """Above one half is class 1, not above 0; there is no gradient, and scores alone find some."""
    flag = [
        step("s = Sigmoid z"),
        step("largest = ReduceMax s keepdims:0"),
        step("flag = GreaterOrEqual largest half"),
    ]
    w, b = TWO[2][:, 1:] - TWO[2][:, :1], TWO[3][1:] - TWO[3][:1]
    made = classifier([*flag, *branches("Sigmoid", outer=True)], w, b, outputs=1)
    assert made.task.threshold == 0.5
    found = attacked(made, TWO, tmp_path, name="square", max_iter=20)
    assert found.correct == 120
    assert "taken for probabilities" in found.taken_for


def test_several_sigmoids_over_their_sum_keep_the_files_ties(tmp_path: Path) -> None:
    """In float32 several are 1 together: the first counts, as in the file."""
    made = classifier("q = Sigmoid z; s = ReduceSum q axis; p = Div q s", *FIVE[2:], outputs=5)
    own = int((made.scores(FIVE[0]).argmax(1) == FIVE[1]).sum())
    found = attacked(made, FIVE, tmp_path)
    assert found.correct == own < 119
    assert made.graph(Asked()).logs is None  # its graph leaves that open
    assert "taken for probabilities" in found.taken_for  # its scores do not


@pytest.mark.parametrize(
    ("scores", "are"),
    [
        ([[0.2, 0.8], [1, 0]], True),
        ([[0.2, 0.8005], [1, 0]], True),
        ([[0.2, 0.81], [1, 0]], False),
        ([[-0.1, 1.1], [1, 0]], False),
        ([[0.0], [1.0]], True),
        ([[0.0], [1.01]], False),
        ([[np.nan], [0.5]], False),
    ],
)
def test_scores_that_are_probabilities(scores: list[list[float]], are: bool) -> None:
    assert are_probabilities(np.float32(scores)) is are


def test_found_by_what_the_scores_are(tmp_path: Path) -> None:
    """A ratio of positive numbers that no rule knows: log p in float64, with the exact number for a linear decision."""
    w, b = FIVE[2] / 4000, FIVE[3] / 4000  # |z| is below 1
    steps = "c = Cosh z; h = Sinh z; q = Add c h; s = ReduceSum q axis; p = Div q s"  # e to the power of z
    made = classifier(steps, w, b, outputs=5)
    found = attacked(made, FIVE, tmp_path, name="noise")
    assert found.correct == 119
    assert "in float64" in found.taken_for
    assert made.changed(probabilities=True).graph(Asked()).logs == "floored"
    z = made.changed(probabilities=True).logits(FIVE[0][:3])
    np.testing.assert_allclose(z, np.log(made.scores(FIVE[0][:3])), rtol=1e-6)


def test_logits_stay_logits(tmp_path: Path) -> None:
    """One logit that is in [0, 1] for all samples: a layer's own output is a logit whatever its range."""
    w = np.abs(TWO[2][:, :1]) / np.abs(TWO[2][:, :1]).sum()
    made = classifier("p = Identity z", w, np.zeros(1, np.float32), outputs=1)
    assert are_probabilities(made.scores(TWO[0]))
    found = attacked(made, TWO, tmp_path, name="noise")
    assert found.taken_for == "output 'p' is taken for logits"
    assert found.correct == int((TWO[1] == 1).sum())


def test_an_evaluation_gives_the_exact_number_and_says_what_it_took_the_scores_for() -> None:
    made = classifier(SPELLED["spelled"], *FIVE[2:], outputs=5)
    dataset = Dataset.of(ArraySource("x", FIVE[0], FIVE[1]), made)
    found = evaluate(made, dataset, eps=[EPS], attack="pgd", baseline=made, sanity=False)
    assert found.results[0].hardened.robust.correct == 98
    assert any("is taken for probabilities" in note for note in found.notes)
    plain = classifier(SPELLED["softmax"], *FIVE[2:], outputs=5)
    found = evaluate(plain, dataset, eps=[EPS], attack="pgd", baseline=plain, sanity=False)
    assert not any("taken for" in note for note in found.notes)
