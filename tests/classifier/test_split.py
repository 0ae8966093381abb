"""A classifier in two parts gives what each hardened model gives, whatever the tap, and knows where it can't tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.split import SplitClassifier
from cloakonnx.errors import InferenceError, TapError
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap, list_taps
from cloakonnx.preprocessing import Preprocessing
from tests.attacks.helpers import CPU, DIGITS, convolution, digits_arrays, flat, model
from tests.fixtures.core import FEATURES, node, value, weights
from tests.fixtures.core import graph as make_graph
from tests.fixtures.core import model as make_model
from tests.fixtures.models import FIXTURES


def masks(features: int, count: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    made = [np.ones(features, np.float32)]
    for removed in rng.integers(1, features, count):
        made.append(np.ones(features, np.float32))
        made[-1][rng.permutation(features)[:removed]] = 0
    return made


def check(loaded: Any, name: str, x: NDArray[np.float32], *, features: int, **options: Any) -> int:
    """Compare with hardened models; return how many samples were close."""
    tap = find_tap(loaded, name)
    split = SplitClassifier(Classifier(loaded, provider=CPU, **options), tap)
    split.compare(x[:16], features)
    close = 0
    chosen = masks(features, 4)
    found = split.predict(x, chosen)
    for weight, classes, is_close in zip(chosen, *found, strict=True):
        alone = Classifier(hardened(loaded, [Mask(name, weight, tap.feature_axis)]), provider=CPU, **options)
        np.testing.assert_array_equal(classes[~is_close], alone.predict(x)[~is_close])
        close += int(is_close.sum())
    return close


def test_every_tap_of_the_digits_model() -> None:
    loaded, (x, _) = load(DIGITS), digits_arrays()
    for tap in list_taps(loaded):
        if tap.name == loaded.output().name:
            continue
        assert tap.features is not None
        assert check(loaded, tap.name, x, features=tap.features) <= 5


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 2), (np.float64, 2), (np.float16, 60)])
@pytest.mark.parametrize(("classes", "final"), [(4, None), (4, "Softmax"), (1, None), (1, "Sigmoid")])
def test_types_and_single_scores(dtype: Any, most: int, classes: int, final: str | None) -> None:
    made = flat(classes, dtype=dtype, final=final)
    x = np.random.default_rng(0).random((60, 12)).astype(np.float32)
    assert check(load_bytes(made.SerializeToString()), "a", x, features=16) <= most


@pytest.mark.parametrize("nhwc", [False, True])
def test_channels_preprocessing_and_a_fixed_batch(nhwc: bool) -> None:
    made = convolution(nhwc=nhwc)
    x = np.random.default_rng(0).random((30, *((8, 8, 3) if nhwc else (3, 8, 8)))).astype(np.float32)
    entry = Preprocessing(2.0, (0.4, 0.5, 0.6), (0.3, 0.2, 0.1))
    assert check(load_bytes(made.SerializeToString()), "r", x, features=8, preprocessing=entry) <= 2
    for value_info in (made.graph.input[0], made.graph.output[0]):
        value_info.type.tensor_type.shape.dim[0].dim_value = 4
    assert check(load_bytes(made.SerializeToString()), "r", x, features=8, preprocessing=entry) <= 2


def around() -> onnx.ModelProto:
    """Return a model whose tap has ways around it: from before it, from the input itself, and by the input's shape."""
    return make_model(
        make_graph(
            [
                node("Relu", "x", "h"),
                node("MatMul", ["h", "w"], "f"),
                node("Shape", "x", "form"),
                node("Add", ["f", "h"], "s"),
                node("Add", ["s", "x"], "t"),
                node("Reshape", ["t", "form"], "u"),
                node("MatMul", ["u", "v"], "y"),
            ],
            [value("x", ["N", 6])],
            [value("y", ["N", 6])],
            [weights("w", 6, 6), weights("v", 6, 6)],
        )
    )


@pytest.mark.parametrize("entry", [Preprocessing(), Preprocessing(2.0, (0.5,), (0.3,))])
def test_ways_around_the_tap(entry: Preprocessing) -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    assert check(load_bytes(around().SerializeToString()), "f", x, features=6, preprocessing=entry) <= 2


RUNNABLE = [f for f in FIXTURES if f.runs_in_ort and len(f.model.graph.output) == 1 and len(f.feed) == 1]


@pytest.mark.parametrize("fixture", RUNNABLE, ids=lambda f: str(f.name))
def test_fixture_models(fixture: Any) -> None:
    loaded = load_bytes(fixture.model.SerializeToString())
    (x,) = fixture.feed.values()
    if x.dtype.kind != "f" or fixture.model.graph.output[0].name == fixture.tap:
        return
    try:
        Classifier(loaded, provider=CPU).predict(x.astype(np.float32))
    except InferenceError:
        return  # not a classifier
    try:
        check(loaded, fixture.tap, x.astype(np.float32), features=fixture.features or FEATURES)
    except TapError as error:
        assert "does not depend on" in str(error)


def test_random_numbers_are_found() -> None:
    made = model(
        [node("Relu", "x", "f"), node("RandomUniformLike", "f", "r"), node("Add", ["f", "r"], "scores")],
        {},
        ["N", 5],
        5,
    )
    loaded = load_bytes(made.SerializeToString())
    x = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    split = SplitClassifier(Classifier(loaded, provider=CPU), find_tap(loaded, "f"))
    with pytest.raises(InferenceError, match="does it draw random numbers"):
        split.compare(x, 5)


def test_equal_scores_are_close() -> None:
    made = model(
        [node("Relu", "x", "f"), node("MatMul", ["f", "w"], "scores")], {"w": np.eye(3, dtype=np.float32)}, ["N", 3], 3
    )
    loaded = load_bytes(made.SerializeToString())
    split = SplitClassifier(Classifier(loaded, provider=CPU), find_tap(loaded, "f"))
    x = np.array([[1, 2, 3], [1, 3, 3], [np.nan, 1, 2]], np.float32)
    split.compare(x, 3)
    found = split.predict(x, [np.ones(3, np.float32)])
    np.testing.assert_array_equal(found.close, [[False, True, True]])


def test_a_head_that_takes_one_number_of_samples_only() -> None:
    """Masks in one run would give it more samples than it takes, or other ones than belong together."""
    nodes = [node("Relu", "x", "f"), node("Reshape", ["f", "form"], "g"), node("MatMul", ["g", "w"], "scores")]
    made = model(nodes, {"w": np.eye(3, dtype=np.float32), "form": np.array([20, 3])}, ["N", 3], 3)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    loaded = load_bytes(made.SerializeToString())
    split = SplitClassifier(Classifier(loaded, provider=CPU), find_tap(loaded, "f"))
    split.compare(x, 3)
    chosen = masks(3, 2)
    for weight, classes in zip(chosen, split.predict(x, chosen).classes, strict=True):
        alone = Classifier(hardened(loaded, [Mask("f", weight)]), provider=CPU)
        np.testing.assert_array_equal(classes, alone.predict(x))


def test_a_head_that_mixes_the_samples_of_a_batch() -> None:
    nodes = [
        node("Relu", "x", "f"), node("ReduceMean", "f", "m", axes=[0], keepdims=1), node("Sub", ["f", "m"], "d"),
        node("MatMul", ["d", "w"], "scores"),
    ]  # fmt: skip
    made = model(nodes, {"w": np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)}, ["N", 3], 4)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    assert check(load_bytes(made.SerializeToString()), "f", x, features=3) <= 2
