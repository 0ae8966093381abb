"""Convolutions and pooling over random kernels, strides, pads, dilations and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from .harness import Case, check, fixed, one

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def distinct(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.permutation(np.arange(np.prod(shape)) * 0.01 - 0.5).reshape(shape)


@st.composite
def windows(draw: st.DrawFn, rank: int, *, dilated: bool = True) -> dict[str, Any]:
    """Attributes of a sliding window, and an input size it fits."""
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    same = draw(st.integers(1, 3))
    strides = [same] * rank if draw(st.booleans()) else draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)) if dilated else [1] * rank
    pads = [draw(st.integers(0, min(2, k - 1) if k > 1 else 0)) for k in kernel * 2]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [e + draw(st.integers(0, 4)) for e in extents]
    return {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "size": size}


@st.composite
def operands(draw: st.DrawFn, rank: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The input, the weights and the attributes of a convolution."""
    w = draw(windows(rank))
    group = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(2, group * inner, *w["size"]))
    weight = rng.normal(size=(group * outer, inner, *w["kernel"]))
    return x, weight, {"group": group, **{name: w[name] for name in ("strides", "dilations", "pads")}}


@st.composite
def convolutions(draw: st.DrawFn, rank: int) -> Case:
    x, weight, attributes = draw(operands(rank))
    axes = (0, *range(2, 2 + rank)) if draw(st.booleans()) else (0,)
    return one("Conv", x, fixed(weight), open_axes=axes, **attributes)


@QUICK
@given(convolutions(2))
def test_conv_2d(case: Case) -> None:
    check(case, providers=("cpu", "cuda"))


@settings(QUICK, max_examples=30)
@given(st.one_of(convolutions(1), convolutions(3)))
def test_conv_1d_3d(case: Case) -> None:
    check(case, providers=("cpu", "cuda"))


def by_weights(op: str, x: np.ndarray, weight: np.ndarray, *, channels: int, **attributes: Any) -> Case:
    """A convolution to differentiate by its input, its weights and its bias; the batch is open."""
    inputs = {"x": x, "weight": weight, "bias": np.linspace(-1, 1, channels)}
    node = helper.make_node(op, list(inputs), ["y"], name="the_node", **attributes)
    return Case([node], inputs, open_axes=(0,), sized=("weight", "bias"))


@st.composite
def learned(draw: st.DrawFn, rank: int) -> Case:
    x, weight, attributes = draw(operands(rank))
    return by_weights("Conv", x, weight, channels=len(weight), **attributes)


@QUICK
@given(learned(2))
def test_conv_2d_by_its_weights(case: Case) -> None:
    check(case)


@settings(QUICK, max_examples=30)
@given(st.one_of(learned(1), learned(3)))
def test_conv_1d_3d_by_its_weights(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_depthwise_conv_by_its_weights(stride: int, kernel: int) -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(3, 16, 6, 5)), rng.normal(size=(16, 1, kernel, kernel))
    pads = [kernel // 2] * 4
    check(by_weights("Conv", x, weight, channels=16, group=16, pads=pads, strides=[stride, stride]))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_auto_pad_by_its_weights(auto_pad: str, stride: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(1, 2, 5, 6)), rng.normal(size=(3, 2, 4, 3))
    check(by_weights("Conv", x, weight, channels=3, auto_pad=auto_pad, strides=[stride, stride]))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_auto_pad(auto_pad: str, stride: int) -> None:
    if auto_pad == "VALID" and onnx.__version__.startswith("1.19."):
        pytest.skip("onnx.reference 1.19 gives VALID convolutions a wrong shape")
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(1, 2, 5, 6)), rng.normal(size=(3, 2, 4, 3))
    check(one("Conv", x, fixed(weight), auto_pad=auto_pad, strides=[stride, stride]), providers=("cpu", "cuda"))


@st.composite
def transposed(draw: st.DrawFn) -> Case:
    w = draw(windows(2))
    group = draw(st.sampled_from([1, 2]))
    inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(2, group * inner, *(draw(st.integers(2, 3)) for _ in range(2))))
    weight = rng.normal(size=(group * inner, outer, *w["kernel"]))
    extra = [draw(st.integers(0, s - 1)) for s in w["strides"]]
    # No pad may leave an empty result.
    size = [
        s * (n - 1) + e + (k - 1) * d + 1
        for s, n, e, k, d in zip(w["strides"], x.shape[2:], extra, w["kernel"], w["dilations"], strict=True)
    ]
    pads = [min(p, (n - 1) // 2) for p, n in zip(w["pads"], size * 2, strict=True)]
    kept = {"strides": w["strides"], "dilations": w["dilations"], "pads": pads, "output_padding": extra}
    return one("ConvTranspose", x, fixed(weight), group=group, **kept)


@QUICK
@given(transposed())
def test_conv_transpose(case: Case) -> None:
    check(case)


@QUICK
@given(transposed())
def test_conv_transpose_by_its_weights(case: Case) -> None:
    attributes = {a.name: helper.get_attribute_value(a) for a in case.nodes[0].attribute}
    weight = case.constants["x1"]
    channels = weight.shape[1] * attributes["group"]
    check(by_weights("ConvTranspose", case.inputs["x0"], weight, channels=channels, **attributes))


@st.composite
def max_pools(draw: st.DrawFn) -> Case:
    w = draw(windows(2, dilated=False))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = distinct(rng, 2, 2, *w["size"])
    axes = (0, 2, 3) if draw(st.booleans()) else (0,)
    return one("MaxPool", x, open_axes=axes, kernel_shape=w["kernel"], strides=w["strides"], pads=w["pads"])


@QUICK
@given(max_pools())
def test_max_pool(case: Case) -> None:
    check(case)


@st.composite
def average_pools(draw: st.DrawFn) -> Case:
    w = draw(windows(2, dilated=False))
    include = draw(st.integers(0, 1))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(2, 2, *w["size"]))
    axes = (0, 2, 3) if include or not any(w["pads"]) else (0,)
    return one(
        "AveragePool",
        x,
        open_axes=axes,
        kernel_shape=w["kernel"],
        strides=w["strides"],
        pads=w["pads"],
        count_include_pad=include,
    )


@QUICK
@given(average_pools())
def test_average_pool(case: Case) -> None:
    check(case, providers=("cpu", "cuda"))


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool_rounding_up(size: int, include: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, size, 4))
    check(one("AveragePool", x, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, count_include_pad=include))


@pytest.mark.parametrize("size", [5, 6, 7])
def test_max_pool_rounding_up(size: int) -> None:
    x = distinct(np.random.default_rng(0), 2, 2, size, 4)
    check(one("MaxPool", x, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1))


def test_average_pool_of_everything() -> None:
    check(one("AveragePool", np.random.default_rng(0).normal(size=(2, 3, 4, 4)), kernel_shape=[4, 4], open_axes=(0,)))


def test_average_pool_side_by_side() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    check(one("AveragePool", x, kernel_shape=[2, 3], strides=[2, 3], open_axes=(0,)))


def test_max_pool_1d() -> None:
    check(one("MaxPool", distinct(np.random.default_rng(0), 2, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 1]))
