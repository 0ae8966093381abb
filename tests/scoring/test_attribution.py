"""Criteria that need labels, a linear head or a gradient, against plain numpy and finite differences."""

import dataclasses
import json
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from onnx import numpy_helper

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource
from cloakonnx.errors import AnalysisError, DataError, TapError
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.scoring.analyze import analyze
from cloakonnx.scoring.criteria import CRITERIA
from cloakonnx.selection.topk import Count, ranking, select
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.fixtures import core, models
from tests.fixtures.core import graph, node, value

from .reference import activations, by_feature, relative_difference
from .test_analysis import SCHEMA

CPU = choose_provider("cpu")
COUNT = 60
BY_NAME = {fixture.name: fixture for fixture in models.FIXTURES}
Values = NDArray[Any]


def noisy(x: Values, size: float = 0.1) -> Values:
    moved = x + np.random.default_rng(5).uniform(-size, size, x.shape)
    return np.clip(moved, 0, 1).astype(np.float32)


def analysed(
    proto: onnx.ModelProto, x: Values, adversarial: Values, y: Values | None, criterion: str, **options: Any
) -> Values:
    classifier = Classifier(load_bytes(proto.SerializeToString()), provider=CPU)
    clean, adversarial = (
        Dataset(ArraySource(name, each, labels), Preprocessing(), classifier.input_shape)
        for name, each, labels in (("clean", x, y), ("adversarial", adversarial, None))
    )
    found = analyze(
        classifier, FittedPairs(clean, adversarial), criterion=criterion, **({"batch_size": 16} | options)
    ).scores
    assert found is not None
    assert found.criterion == criterion
    return found.scores


def digits() -> tuple[onnx.ModelProto, Values, Values, Values]:
    x, y = digits_arrays()
    return onnx.load(DIGITS), x[:COUNT], noisy(x[:COUNT], 0.3), y[:COUNT]


def strongest_other(logits: Values, y: Values) -> NDArray[np.int64]:
    masked = logits.copy()
    masked[np.arange(len(y)), y] = -np.inf
    return np.asarray(masked.argmax(axis=1))


def weight(proto: onnx.ModelProto, name: str) -> Values:
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name)).astype(np.float64)


@pytest.mark.parametrize("batch_size", [1, 16, 64])
@pytest.mark.parametrize("criterion", ["margin", "evidence", "gradient-x-activation"])
def test_linear_head_is_the_formula(criterion: str, batch_size: int) -> None:
    proto, x, adversarial, y = digits()
    tap = "/6/Relu_output_0"
    h, moved = (activations(proto, tap, "image", each) for each in (x, adversarial))
    w, b = weight(proto, "8.weight"), weight(proto, "8.bias")  # (classes, features): the Gemm has transB
    other = strongest_other(moved @ w.T + b, y)
    value = moved - h if criterion == "margin" else moved
    wanted = (value * (w[other] - w[y])).mean(axis=0)
    found = analysed(proto, x, adversarial, y, criterion, batch_size=batch_size)
    assert np.abs(wanted).max() > 0.1
    assert (found < 0).any()
    assert (found > 0).any()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def margin_of(model: Any, x: Values, y: Values, other: Values, mask: Mask) -> float:
    logits = Classifier(hardened(model, [mask]), provider=CPU).scores(x).astype(np.float64)
    rows = np.arange(len(y))
    return float((logits[rows, other] - logits[rows, y]).mean())


@pytest.mark.parametrize("tap", ["/1/Relu_output_0", "/3/Relu_output_0", "/4/Flatten_output_0"])
def test_gradient_x_activation_is_the_slope_of_the_mask(tap: str) -> None:
    """d/dm_i of the mean of z_a - z_t at m = 1, by central differences of hardened models."""
    proto, x, adversarial, y = digits()
    found = analysed(proto, x, adversarial, y, "gradient-x-activation", tap=tap)
    model = load(DIGITS)
    other = strongest_other(Classifier(model, provider=CPU).scores(adversarial), y)
    step = 2e-3
    features = range(0, len(found), max(1, len(found) // 12))
    for i in features:
        slopes = []
        for sign in (1, -1):
            weights = np.ones(len(found), np.float32)
            weights[i] += sign * step
            slopes.append(margin_of(model, adversarial, y, other, Mask(tap, weights)))
        assert (slopes[0] - slopes[1]) / (2 * step) == pytest.approx(found[i], rel=0.02, abs=0.01)


def residual(dtype: Any = np.float64) -> onnx.ModelProto:
    """x -> Gemm -> Relu r; r -> Gemm -> Relu t, the tap, in a branch; t -> Gemm, + r -> Relu -> MatMul."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Gemm", "x w1", "g"), node("Relu", "g", "r"), node("Gemm", "r w2", "g2"), node("Relu", "g2", "t"),
        node("Gemm", "t w3", "g3"), node("Add", "g3 r", "s"), node("Relu", "s", "u"), node("MatMul", "u w4", "y"),
    ]  # fmt: skip
    parameters = [
        core.weights(f"w{i}", *shape, dtype=dtype) for i, shape in enumerate([(4, 6), (6, 5), (5, 6), (6, 3)], 1)
    ]
    return core.model(graph(nodes, [value("x", ["N", 4], kind)], [value("y", ["N", 3], kind)], parameters))


def test_a_tap_inside_a_residual_branch() -> None:
    """The head needs the other branch; without kinks in between the slope is exact in float64."""
    proto = residual()
    x = np.random.default_rng(0).random((30, 4)).astype(np.float32)
    y = np.arange(30) % 3
    w = [weight(proto, f"w{i}") for i in range(1, 5)]

    def logits(inputs: Values, mask: Values) -> Values:
        r = np.maximum(inputs @ w[0], 0)
        t = np.maximum(r @ w[1], 0) * mask
        return np.asarray(np.maximum(t @ w[2] + r, 0) @ w[3])

    adversarial = noisy(x)
    other, rows = strongest_other(logits(adversarial.astype(np.float64), np.ones(5)), y), np.arange(30)
    found = analysed(proto, x, adversarial, y, "gradient-x-activation", tap="t")
    for i in range(5):
        ends = [logits(adversarial.astype(np.float64), 1 + sign * 1e-6 * np.eye(5)[i]) for sign in (1, -1)]
        means = [(z[rows, other] - z[rows, y]).mean() for z in ends]
        assert (means[0] - means[1]) / 2e-6 == pytest.approx(found[i], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["mlp", "nchw", "nhwc_tap_last", "transformer", "batch_fixed_3", "float16", "float64"])
def test_evidence_equals_gradient_x_activation_on_small_models(name: str) -> None:
    """On every layout and type, with batches that a fixed batch dimension does not divide."""
    fixture = BY_NAME[name]
    ((_, example),) = fixture.feed.items()
    x = np.random.default_rng(3).random((10, *example.shape[1:])).astype(np.float32)
    y = np.arange(10) % 3
    both = [analysed(fixture.model, x, noisy(x), y, "gradient-x-activation", batch_size=size) for size in (4, 10)]
    assert np.abs(both[0]).max() > 0
    assert relative_difference(both[0], both[1]) <= 1e-5
    evidence = analysed(fixture.model, x, noisy(x), y, "evidence")
    np.testing.assert_allclose(evidence, both[1], rtol=1e-6, atol=1e-9)


def fisher(h: Values, y: Values, axis: int) -> Values:
    """Between over within class variance, from the definition."""
    labels = np.repeat(y, h.size // h.shape[axis] // len(h))
    flat = by_feature(h, axis)
    mean = flat.mean(axis=0)
    between, within = np.zeros(flat.shape[1]), np.zeros(flat.shape[1])
    for c in np.unique(y):
        own = flat[labels == c]
        between += len(own) * (own.mean(axis=0) - mean) ** 2 / len(flat)
        within += ((own - own.mean(axis=0)) ** 2).sum(axis=0) / len(flat)
    return between / np.where(within == 0, np.nan, within)


@pytest.mark.parametrize(
    ("tap", "batch_size"), [("/6/Relu_output_0", 1), ("/6/Relu_output_0", 64), ("/3/Relu_output_0", 7)]
)
def test_discriminability_is_the_formula(tap: str, batch_size: int) -> None:
    proto, x, adversarial, y = digits()
    h, moved = (activations(proto, tap, "image", each) for each in (x, adversarial))
    found = analysed(proto, x, adversarial, y, "discriminability", tap=tap, batch_size=batch_size)
    movement = np.abs(by_feature(moved, 1) - by_feature(h, 1)).mean(axis=0)
    live = by_feature(h, 1).std(axis=0) > 0
    assert live.sum() > 8
    np.testing.assert_allclose(found[live], (movement / fisher(h, y, 1))[live], rtol=1e-6)


def test_discriminability_at_its_ends() -> None:
    """Classes apart without spread; no difference between classes; constant and still; constant but moving."""
    proto = core.model(
        graph(
            [node("Identity", "x", "t"), node("MatMul", "t w", "y")],
            [value("x", ["N", 4])],
            [value("y", ["N", 3])],
            [core.weights("w", 4, 3)],
        )
    )
    y = np.array([0, 0, 1, 1])
    x = np.array([[0, 0, 0.5, 0.5], [0, 1, 0.5, 0.5], [1, 0, 0.5, 0.5], [1, 1, 0.5, 0.5]], np.float32)
    adversarial = x.copy()
    adversarial[:, [0, 1, 3]] += np.where(x[:, [0, 1, 3]] < 1, np.float32(0.25), np.float32(-0.25))
    highest = np.finfo(np.float64).max
    np.testing.assert_array_equal(
        analysed(proto, x, adversarial, y, "discriminability", tap="t"), [0, highest, 0, highest]
    )


@pytest.mark.parametrize("criterion", [name for name, each in CRITERIA.items() if each.labels])
def test_labels_are_needed(criterion: str) -> None:
    proto, x, adversarial, _ = digits()
    with pytest.raises(DataError, match=f"^clean has no labels; criterion {criterion} needs the true ones"):
        analysed(proto, x, adversarial, None, criterion)


def test_a_label_that_is_no_class() -> None:
    proto, x, adversarial, y = digits()
    with pytest.raises(DataError, match=r"label 12 does not fit .* 10 classes"):
        analysed(proto, x, adversarial, np.where(y == 9, 12, y), "evidence")
    with pytest.raises(
        DataError, match=r"labels up to 10, but the model has 10 classes .*labels one lower would be right"
    ):
        analysed(proto, x, adversarial, y + 1, "evidence")


@pytest.mark.parametrize("criterion", ["margin", "evidence"])
def test_a_head_that_is_not_linear_names_the_alternative(criterion: str) -> None:
    proto, x, adversarial, y = digits()
    with pytest.raises(TapError, match=r"Relu '/3/Relu' comes after '/2/Conv_output_0'; take criterion gradient-x-act"):
        analysed(proto, x, adversarial, y, criterion, tap="/2/Conv_output_0")


def test_signed_scores_in_the_file_and_in_the_ranking() -> None:
    proto, x, adversarial, y = digits()
    classifier = Classifier(load_bytes(proto.SerializeToString()), provider=CPU)
    pairs = FittedPairs(*(Dataset.of(ArraySource(n, v, y), classifier) for n, v in (("a", x), ("b", adversarial))))
    made = analyze(classifier, pairs, criterion="margin")
    text = made.to_json()
    Draft202012Validator(SCHEMA).validate(json.loads(text))
    read = Analysis.from_json(text)
    assert read.to_json() == text
    assert read.scores is not None
    order = ranking(read.scores)
    assert (np.diff(read.scores.scores[order]) <= 0).all()
    assert select(read.scores, Count(3)).removed == sorted(order[:3])
    assert made.scores is not None
    unsigned = dataclasses.replace(made, scores=dataclasses.replace(made.scores, criterion="deepcloak"))
    with pytest.raises(AnalysisError, match="a score is negative, which criterion 'deepcloak' never gives"):
        Analysis.from_json(unsigned.to_json())
