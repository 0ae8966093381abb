"""Scores that depend on the other samples of a batch, and outputs that are not one row a sample: alone, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.attacks.attack import attack
from cloakonnx.attacks.base import make
from cloakonnx.attacks.pairs import AttackedPairs
from cloakonnx.classifier.company import settled
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import InferenceError, ModelError
from cloakonnx.evaluation.accuracy import accuracy
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.sweeps.sweep import sweep
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.scoring.analyze import analyze
from cloakonnx.selection.topk import Count
from tests.support.classifiers import cpu

FEATURES, CLASSES = 12, 5
node = helper.make_node
RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(size=(FEATURES, CLASSES)).astype(np.float32)
X = RNG.random((37, FEATURES)).astype(np.float32)
Y = (X @ WEIGHT - 0.5 * WEIGHT.sum(0)).argmax(1)


def model(
    *tail: onnx.NodeProto, head: tuple[onnx.NodeProto, ...] = (), out: Any = ("N", CLASSES), **values: Any
) -> bytes:
    """Return a linear net: ``head`` may change x into f, ``tail`` makes y of the scores s."""
    constants = {"w": WEIGHT, "b": -0.5 * WEIGHT.sum(0), **values}
    nodes = [*(head or [node("Identity", ["x"], ["f"])]), node("Gemm", ["f", "w", "b"], ["s"]), *tail]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


DEPENDS: dict[str, Callable[[], bytes]] = {
    "softmax over samples": lambda: model(node("Softmax", ["s"], ["y"], axis=0)),
    "less the mean": lambda: model(node("ReduceMean", ["s"], ["m"], axes=[0]), node("Sub", ["s", "m"], ["y"])),
    "less the largest": lambda: model(node("ReduceMax", ["s"], ["m"], axes=[0]), node("Sub", ["s", "m"], ["y"])),
    "mixed by a reshape": lambda: model(
        node("Transpose", ["s"], ["t"], perm=[1, 0]), node("Reshape", ["t", "to"], ["y"]), to=ints(-1, CLASSES)
    ),
    "the first one's": lambda: model(
        node("Slice", ["s", "a", "e", "a"], ["h"]),
        node("Shape", ["s"], ["n"]),
        node("Expand", ["h", "n"], ["y"]),
        a=ints(0),
        e=ints(1),
    ),
    "with a neighbour": lambda: model(
        node("Slice", ["s", "a", "e", "a"], ["h"]), node("Add", ["s", "h"], ["y"]), a=ints(0), e=ints(1)
    ),
    "added up": lambda: model(node("CumSum", ["s", "a"], ["y"]), a=np.array(0)),
    "quantised by the batch": lambda: model(
        node("DynamicQuantizeLinear", ["s"], ["q", "qs", "qz"]), node("DequantizeLinear", ["q", "qs", "qz"], ["y"])
    ),
}
ONE_ROW: dict[str, Callable[[], bytes]] = {
    "the first row only": lambda: model(
        node("Slice", ["s", "a", "e", "a"], ["y"]), a=ints(0), e=ints(1), out=["N", CLASSES]
    ),
    "one sample by a reshape": lambda: model(
        node("Identity", ["s"], ["y"]), head=(node("Reshape", ["x", "to"], ["f"]),), to=ints(1, FEATURES)
    ),
    "samples on the second axis": lambda: model(node("Unsqueeze", ["s", "a"], ["y"]), a=ints(0), out=[1, "N", CLASSES]),
}


def alone(content: bytes) -> NDArray[np.int64]:
    """Return what ONNX Runtime says of each sample alone."""
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.array([session.run(None, {"x": each[None]})[0].reshape(-1).argmax() for each in X])


def dataset(x: NDArray[np.float32] = X) -> Dataset:
    return Dataset.of(ArraySource("data", x, Y), cpu(load_bytes(model(node("Identity", ["s"], ["y"])))))


@pytest.mark.parametrize("name", [*DEPENDS, *ONE_ROW])
def test_each_sample_is_scored_alone(name: str, tmp_path: Path) -> None:
    """In every batch size, by the attack, the evaluation and the accuracy, with a note."""
    content = (DEPENDS | ONE_ROW)[name]()
    right = alone(content) == Y
    classifier = cpu(load_bytes(content))
    why = "depend on the other samples of its batch" if name in DEPENDS else "does not give a row of scores for each"
    for size in (1, 5, 64):
        found = attack(classifier, dataset(), output=tmp_path / "a.npz", attack="noise", eps=1e-6, batch_size=size)
        assert found.correct == right.sum()
        assert len(found.notes) == 1
        assert why in found.notes[0]
        assert accuracy(classifier, dataset(), batch_size=size).correct == right.sum()
    evaluated = evaluate(
        classifier, dataset(), eps=[0.01], attack="square", max_iter=3, baseline=classifier, sanity=False
    )
    assert evaluated.clean_hardened.correct == right.sum()
    assert why in evaluated.notes[0]


@pytest.mark.parametrize("name", ["softmax over samples", "less the mean", "one sample by a reshape"])
def test_gradients_are_those_of_each_sample_alone(name: str) -> None:
    """And so are the results of attacks, whatever the batch size."""
    content = (DEPENDS | ONE_ROW)[name]()
    classifier = settled(cpu(load_bytes(content)), X).classifier
    assert classifier.at_a_time == 1
    together = classifier.gradient(X, Y, loss="margin")
    one_by_one = np.concatenate([classifier.gradient(X[i : i + 1], Y[i : i + 1], loss="margin") for i in range(len(X))])
    np.testing.assert_array_equal(together, one_by_one)
    if name == "one sample by a reshape":
        pgd = make("pgd", eps=0.05, max_iter=5)
        plain = cpu(load_bytes(model(node("Identity", ["s"], ["y"]))))
        both = [AttackedPairs(dataset(), each, pgd) for each in (cpu(load_bytes(content)), plain)]
        scores = [analyze(each.classifier, each, tap="s", batch_size=7) for each in both]
        assert scores[0].scores is not None
        assert scores[1].scores is not None
        np.testing.assert_allclose(scores[0].scores.scores, scores[1].scores.scores, rtol=1e-5)
        assert len(scores[0].notes) == 1
        assert Analysis.from_json(scores[0].to_json()).notes == scores[0].notes
        assert scores[1].notes == ()


def test_a_sweep_of_a_net_with_a_mean_over_the_batch() -> None:
    content = model(
        node("ReduceMean", ["s"], ["m"], axes=[0]), node("Sub", ["s", "m"], ["d"]), node("Add", ["d", "s"], ["y"])
    )
    classifier = cpu(load_bytes(content))
    pairs = FittedPairs(dataset(), dataset(np.clip(X + np.float32(0.02), 0, 1)))
    found = sweep(classifier, analyze(classifier, pairs, tap="s"), pairs, amounts=[Count(0), Count(1)], adaptive_at=[])
    assert found.points[0].mask.clean.correct == (alone(content) == Y).sum()
    assert "depend on the other samples" in found.notes[0]


def test_a_number_of_samples_that_runs_is_found(tmp_path: Path) -> None:
    """A net that takes four at a time, though its input is open; the last are filled up."""
    content = model(node("Identity", ["s"], ["y"]), head=(node("Reshape", ["x", "to"], ["f"]),), to=ints(4, FEATURES))
    found = attack(cpu(load_bytes(content)), dataset(), "pgd", output=tmp_path / "a.npz", eps=0.01, batch_size=10)
    assert found.correct == len(Y)
    assert "takes 4 samples at a time" in found.notes[0]
    plain = model(node("Identity", ["s"], ["y"]))
    same = attack(cpu(load_bytes(plain)), dataset(), "pgd", output=tmp_path / "b.npz", eps=0.01, batch_size=10)
    assert found.robust == same.robust
    assert same.notes == ()


REFUSED: dict[str, tuple[Callable[[], bytes], type[Exception], str]] = {
    "three rows a sample": (
        lambda: model(node("Concat", ["s", "s", "s"], ["y"], axis=0)),
        InferenceError,
        r"has shape \(24, 5\) for 8 samples",
    ),
    "classes first": (
        lambda: model(node("Transpose", ["s"], ["y"], perm=[1, 0]), out=[CLASSES, "N"]),
        InferenceError,
        r"has shape \(5, 8\) for 8 samples",
    ),
    "batch norm in training mode": (
        lambda: model(
            node("BatchNormalization", ["s", "one", "nil", "mean", "var"], ["y", "m", "v"], training_mode=1),
            one=np.ones(CLASSES, np.float32),
            nil=np.zeros(CLASSES, np.float32),
            mean=np.zeros(CLASSES, np.float32),
            var=np.ones(CLASSES, np.float32),
        ),
        ModelError,
        "export it in inference mode",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_one_row_a_sample_is_refused(name: str, tmp_path: Path) -> None:
    content, error, message = REFUSED[name][0](), *REFUSED[name][1:]
    classifier = cpu(load_bytes(content))
    with pytest.raises(error, match=message):
        settled(classifier, X)
    with pytest.raises(error, match=message):
        attack(classifier, dataset(), output=tmp_path / "a.npz", attack="noise", eps=0.01)
    with pytest.raises(error, match=message):
        accuracy(classifier, dataset())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [5, 8])
def test_as_many_samples_as_classes_do_not_hide_a_turned_output(count: int) -> None:
    weight = RNG.normal(size=(FEATURES, count)).astype(np.float32)
    content = model(
        node("Transpose", ["s"], ["y"], perm=[1, 0]), out=[count, "N"], w=weight, b=np.zeros(count, np.float32)
    )
    with pytest.raises(InferenceError, match=f"shape \\({count}, {count}\\) for {count} samples"):
        settled(cpu(load_bytes(content)), X[:count])


def test_a_batch_that_the_file_fixes_can_not_be_left(tmp_path: Path) -> None:
    made = onnx.load_from_string(DEPENDS["less the mean"]())
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ModelError, match="takes 4 samples at a time: export the model with a batch of 1"):
        settled(cpu(load_bytes(made.SerializeToString())), X)


@pytest.mark.parametrize("name", ["plain", "random"])
def test_a_usual_net_stays_as_it_is(name: str) -> None:
    """One that draws random numbers, too: its scores differ for another reason."""
    tail = {
        "plain": [node("Softmax", ["s"], ["y"], axis=1)],
        "random": [node("RandomNormalLike", ["s"], ["r"]), node("Add", ["s", "r"], ["y"])],
    }[name]
    classifier = cpu(load_bytes(model(*tail)))
    found = settled(classifier, X)
    assert found.classifier is classifier
    assert found.notes == ()


@pytest.mark.parametrize(
    ("levels", "part", "noted"), [("fixed", 0.01, False), ("fixed", 0.2, True), ("none", 0.01, True)]
)
def test_a_difference_of_a_level_is_rounding(levels: str, part: float, noted: bool) -> None:
    """ONNX Runtime rounds ties of quantised values by the batch: a level is no dependence, more than one is.

    A part of the batch's mean stands in for it.
    """
    shift = [
        node("ReduceMean", ["d"], ["m"], axes=[0]),
        node("Mul", ["m", "part"], ["p"]),
        node("Add", ["d", "p"], ["y"]),
    ]
    step = np.float32(np.ptp(X @ WEIGHT) / 255)
    how = ["step", "zero"]
    round_off = [node("QuantizeLinear", ["s", *how], ["q"]), node("DequantizeLinear", ["q", *how], ["d"])]
    first = round_off if levels == "fixed" else [node("Identity", ["s"], ["d"])]
    content = model(*first, *shift, step=step, zero=np.uint8(128), part=np.float32(part))
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    two_best = np.sort(X @ WEIGHT - 0.5 * WEIGHT.sum(0), axis=1)[:, -2:]
    x = X[np.argsort(two_best[:, 0] - two_best[:, 1])[:8]]
    together = session.run(None, {"x": x})[0]
    apart = np.concatenate([session.run(None, {"x": each[None]})[0] for each in x])
    assert (together.argmax(1) == apart.argmax(1)).all()
    found = np.abs(together - apart).max() / np.ptp(apart)
    assert (0.001 < found < 0.01) == (part == 0.01)
    assert (settled(cpu(load_bytes(content)), x).notes != ()) == noted
