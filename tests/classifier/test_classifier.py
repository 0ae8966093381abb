"""The classifier: class scores in every shape that exporters give them, and plain accuracy."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto

from cloakonnx.classifier.classifier import Classifier, class_count
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import DataError, InferenceError, ModelError
from cloakonnx.evaluation.accuracy import accuracy
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.statistics import Accuracy
from tests.fixtures import core

X = np.array([[0.1, 0.9, 0.2], [0.8, 0.3, 0.1], [0.2, 0.3, 0.9], [0.4, 0.6, 0.5]], np.float32)


def identity(extra: list[NodeProto], output: list[Any] | None, columns: int = 3, batch: Any = "N") -> onnx.ModelProto:
    """Make a model of `x` (N, columns), the nodes, and the output `y`."""
    constants = [core.tensor("column", [[1], [0], [0]]), core.tensor("four", [0, -1, 1, 1], np.int64)]
    return core.model(
        core.graph(extra, [core.value("x", [batch, columns])], [core.value("y", output)], constants),
        opset=13,
    )


def classifier(made: onnx.ModelProto, **options: Any) -> Classifier:
    return Classifier(load_bytes(made.SerializeToString()), provider=choose_provider("cpu"), **options)


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_predictions(batch: Any) -> None:
    made = identity([core.node("Mul", "x x", "y")], [batch, 3], batch=batch)
    assert classifier(made).predict(X).tolist() == [1, 0, 2, 1]
    np.testing.assert_array_equal(classifier(made).scores(X), X * X)


def test_maps_of_one_pixel() -> None:
    made = identity([core.node("Reshape", "x four", "y")], ["N", 3, 1, 1])
    assert classifier(made).predict(X).tolist() == [1, 0, 2, 1]


LOGIT = [core.node("Constant", "", "half", value_float=0.5), core.node("MatMul", "x column", "first")]
SHIFT = [*LOGIT, core.node("Sub", "first half", "logit")]
SIGMOID = [*SHIFT, core.node("Sigmoid", "logit", "p")]


@pytest.mark.parametrize(
    "nodes",
    [
        [*SHIFT, core.node("Identity", "logit", "y")],
        [*SHIFT, core.node("Sigmoid", "logit", "y")],
        [*SIGMOID, core.node("Identity", "p", "y")],
        [*SIGMOID, core.node("Flatten", "p", "q"), core.node("Cast", "q", "y", to=core.F32)],
        [*SHIFT, core.node("HardSigmoid", "logit", "y")],
    ],
    ids=["logit", "sigmoid", "sigmoid_identity", "sigmoid_flatten_cast", "hard_sigmoid"],
)
def test_one_score_stands_for_two_classes(nodes: list[NodeProto]) -> None:
    made = identity(nodes, ["N", 1])
    assert classifier(made).predict(X).tolist() == [0, 1, 0, 0]
    assert class_count(load_bytes(made.SerializeToString())) == 2


def test_one_score_without_an_axis() -> None:
    made = identity(
        [*SHIFT, core.node("Flatten", "logit", "q"), core.node("ReduceMax", "q", "y", axes=[1], keepdims=0)], ["N"]
    )
    assert classifier(made).scores(X).shape == (4, 1)
    assert classifier(made).predict(X).tolist() == [0, 1, 0, 0]


def test_outputs_that_are_no_class_scores() -> None:
    for batch in ("N", 3):
        made = identity([core.node("ReduceSum", "x", "y", keepdims=0)], [], batch=batch)
        with pytest.raises(InferenceError, match="a classifier gives one row of class scores a sample"):
            classifier(made).scores(X)


def test_several_outputs() -> None:
    made = identity([core.node("Mul", "x x", "y"), core.node("Neg", "x", "z")], ["N", 3])
    made.graph.output.append(core.value("z", ["N", 3]))
    with pytest.raises(ModelError, match=r"2 outputs \(y, z\); name one with output_name"):
        classifier(made).predict(X)
    assert classifier(made, output_name="z").predict(X).tolist() == [0, 2, 0, 0]
    assert class_count(load_bytes(made.SerializeToString())) is None
    assert class_count(load_bytes(made.SerializeToString()), "z") == 3


def test_class_count() -> None:
    cases: list[tuple[list[Any], int | None]] = [(["N", 10], 10), (["N", 1], 2), (["N", None], None)]
    for dims, count in cases:
        made = core.model(core.graph([core.node("Relu", "x", "y")], [core.value("x", None)], [core.value("y", dims)]))
        assert class_count(load_bytes(made.SerializeToString())) == count


def dataset(y: NDArray[np.int64] | None) -> Dataset:
    return Dataset(ArraySource("samples", X, y), Preprocessing(), (3,), classes=3)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_accuracy(batch_size: int) -> None:
    made = identity([core.node("Mul", "x x", "y")], ["N", 3])
    told: list[int] = []
    found = accuracy(classifier(made), dataset(np.array([1, 0, 0, 1])), batch_size=batch_size, on_progress=told.append)
    assert found == Accuracy(3, 4)
    assert found.value == 0.75
    assert str(found) == "75.00% (3 of 4)"
    assert told[-1] == 4


def test_accuracy_needs_labels() -> None:
    made = identity([core.node("Mul", "x x", "y")], ["N", 3])
    with pytest.raises(DataError, match="samples has no labels"):
        accuracy(classifier(made), dataset(None))
