"""The way from pixels to a model's input: what it gives, where its channels are, what does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloakonnx.errors import DataError
from cloakonnx.graph.subgraphs.prepend import prepend
from cloakonnx.preprocessing import Layout, Preprocessing, channel_axis, model_layout
from tests.fixtures import core

SHAPES = {(3, 5, 6): 1, (5, 6, 3): 3, (7,): 1, (5, 3): 2}
"""Samples and their channel axis."""


def identity(shape: tuple[int, ...]) -> onnx.ModelProto:
    dims = ["N", *shape]
    return core.model(core.graph([core.node("Identity", "x", "y")], [core.value("x", dims)], [core.value("y", dims)]))


@st.composite
def preprocessings(draw: st.DrawFn) -> tuple[Preprocessing, tuple[int, ...]]:
    shape = draw(st.sampled_from(list(SHAPES)))
    sizes = st.sampled_from([0, 1, shape[SHAPES[shape] - 1]])

    def numbers(low: float) -> tuple[float, ...]:
        size = draw(sizes)
        return tuple(draw(st.lists(st.floats(low, 4, width=32), min_size=size, max_size=size)))

    scale = draw(st.sampled_from([1.0, 255.0, -0.5]))
    return Preprocessing(scale, mean=numbers(-4), std=numbers(0.125)), shape


@settings(deadline=None, max_examples=40)
@given(preprocessings())
def test_apply_gives_what_the_graph_gives(both: tuple[Preprocessing, tuple[int, ...]]) -> None:
    how, shape = both
    axis = channel_axis(shape)
    assert axis == SHAPES[shape]
    x = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    made = identity(shape)
    name = prepend(made.graph, "x", how.steps(x.ndim, axis))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found = how.apply(x, axis)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, session.run(None, {name: x})[0])
    sides = [-1 if i == axis else 1 for i in range(x.ndim)]
    mean, std = (
        np.array(v or (d,), np.float64).reshape(sides if len(v) > 1 else ()) for v, d in ((how.mean, 0), (how.std, 1))
    )
    np.testing.assert_allclose(found, (x * how.scale - mean) / std, rtol=1e-4, atol=1e-3)


def test_words_stand_for_the_numbers_of_data_sets() -> None:
    how = Preprocessing(mean="ImageNet", std="imagenet", layout="nhwc")
    assert (how.mean, how.std, how.layout) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "nhwc")
    assert replace(how, mean=[0.5]).mean == (0.5,)
    assert hash(how) == hash(Preprocessing(mean=how.mean, std=how.std, layout="nhwc"))
    with pytest.raises(DataError, match="knows imagenet, cifar10, mnist\\); did you mean 'cifar10'"):
        Preprocessing(std="cifar")


def test_what_changes_nothing_is_left_out() -> None:
    assert Preprocessing(1.0, (0.0, 0.0), (1.0, 1.0)).steps(4, 1) == ()
    assert [op for op, _ in Preprocessing(2.0, (0.0,), (1.0, 2.0)).steps(4, 1)] == ["Mul", "Div"]
    x = np.ones((2, 3), np.float32)
    assert Preprocessing().apply(x, 1) is x


@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [
        ((3, 8, 8), "nchw", 1),
        ((8, 8, 3), "nhwc", 3),
        ((8, 8, 1), "nhwc", 3),
        ((3, 8, 1), "nchw", 1),
        ((1, 8, 1), "nchw", 1),
        ((3, 8, 3), "nchw", 1),
        ((None, None, 3), "nhwc", 3),
        ((None, None, None), "nchw", 1),
        ((16, 8, 8), "nchw", 1),
    ],
)
def test_the_layout_of_a_model(shape: tuple[int | None, ...], layout: Layout, axis: int) -> None:
    assert model_layout(shape) == layout
    assert channel_axis(shape) == axis


def test_the_channels_of_what_are_no_images() -> None:
    assert [channel_axis(shape) for shape in (None, (7,), (7, 5), (2, 3, 4, 5))] == [1, 1, 2, 4]


def test_channels_that_do_not_fit() -> None:
    how = Preprocessing(mean=(0.1, 0.2), std=(0.5,))
    how.check_channels((2, 5, 5), 1)
    how.check_channels((5, 5, 2), 3)
    how.check_channels((None, 5, 5), 1)
    Preprocessing(mean=(0.1,), std=(0.5,)).check_channels((7, 5, 5), 1)
    with pytest.raises(DataError, match="mean has 2 numbers for 3 channels of the samples"):
        how.check_channels((3, 5, 2), 1)
    with pytest.raises(DataError, match="mean has 2 numbers for 1 channel of the samples"):
        how.check_channels((1, 5, 2), 1)
    with pytest.raises(DataError, match="std has 3 numbers for no channels of the samples"):
        Preprocessing(std=(1.0, 2.0, 3.0)).check_channels((3,), 3)
