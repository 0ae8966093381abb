"""Every rule in float64 against torch.autograd: over shapes, strides, pads, groups, dilations, broadcasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_torch
import pytest
import torch
from gradient import test_rules, test_windows
from gradient.harness import Case, evaluator, fixed, gradients, graph_of, one, ort_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def compare(case: Case, *, providers: tuple[str, ...] = ("cpu",)) -> None:
    model = case.model()
    if case.opset < 13:
        model = onnx.version_converter.convert_version(model, 18)
    live = {name: torch.tensor(value, requires_grad=True) for name, value in case.inputs.items()}
    (y,) = (onnx_torch.run(model, dict(live))[output.name] for output in model.graph.output)
    cotangent = np.random.default_rng(0).normal(size=tuple(y.shape))
    expected = torch.autograd.grad((y * torch.tensor(cotangent)).sum(), list(live.values()))
    for provider in providers:
        double = graph_of(case, double=True, provider=provider)
        single = graph_of(case, double=False, provider=provider)
        exact = gradients(double, evaluator(double.proto), case, cotangent)
        found = gradients(single, ort_run(single.proto), case, cotangent.astype(np.float32))
        for wide, narrow, reference in zip(exact, found, (e.numpy() for e in expected), strict=True):
            size = max(float(np.linalg.norm(reference)), 1.0)
            assert np.linalg.norm(wide - reference) <= 1e-7 * size
            assert np.linalg.norm(narrow - reference) <= 1e-5 * size


OTHERWISE = {"Resize nearest down", "Resize axes"}
"""Cases that torch has no mode for."""

KNOWN = {
    name: case
    for name, case in test_rules.CASES.items()
    if name not in OTHERWISE and all(node.op_type in onnx_torch.OPS for node in case.nodes)
}


def test_torch_knows_nearly_all() -> None:
    unknown = {n.op_type for case in test_rules.CASES.values() for n in case.nodes} - set(onnx_torch.OPS)
    assert unknown <= {"ThresholdedRelu", "GatherND", "GatherElements", "LpNormalization", "TopK", "SpaceToDepth"} | {
        "ReverseSequence"
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in KNOWN.items()])
def test_rule(case: Case) -> None:
    compare(case)


@MANY
@given(test_windows.convolutions(2))
def test_conv_2d(case: Case) -> None:
    compare(case, providers=("cpu", "cuda"))


@settings(MANY, max_examples=60)
@given(st.one_of(test_windows.convolutions(1), test_windows.convolutions(3)))
def test_conv_1d_3d(case: Case) -> None:
    compare(case, providers=("cpu", "cuda"))


@settings(MANY, max_examples=100)
@given(test_windows.transposed())
def test_conv_transpose(case: Case) -> None:
    compare(case)


@settings(MANY, max_examples=100)
@given(test_windows.max_pools())
def test_max_pool(case: Case) -> None:
    compare(case)


@settings(MANY, max_examples=100)
@given(test_windows.average_pools())
def test_average_pool(case: Case) -> None:
    compare(case, providers=("cpu", "cuda"))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast."""
    full = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    pair = []
    for _ in range(2):
        shape = [1 if draw(st.integers(0, 3)) == 0 else d for d in full]
        pair.append(tuple(shape[draw(st.integers(0, len(full) - 1)) :]))
    return pair[0], pair[1]


@st.composite
def broadcasts(draw: st.DrawFn) -> Case:
    a, b = draw(shapes())
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where"]))
    operands: list[Any] = [rng.uniform(0.5, 2.0, a), rng.uniform(0.5, 2.0, b)]
    result = np.broadcast_shapes(a, b)
    if np.prod(result) < 2:
        operands[0] = rng.uniform(0.5, 2.0, (2, *a))
    if op == "Where":
        operands.insert(0, rng.integers(0, 2, result).astype(bool))
    live = [i for i, x in enumerate(operands) if x.dtype == np.float64]
    if draw(st.booleans()):
        i = draw(st.sampled_from(live))
        operands[i] = fixed(operands[i])
    axes = tuple(range(4)) if draw(st.booleans()) else ()
    return one(op, *operands, open_axes=axes)


@MANY
@given(broadcasts())
def test_broadcasts(case: Case) -> None:
    compare(case)


@st.composite
def products(draw: st.DrawFn) -> Case:
    a, b = draw(shapes())
    n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    axes = tuple(range(6)) if draw(st.booleans()) else ()
    return one("MatMul", rng.normal(size=(*a, n, k)), rng.normal(size=(*b, k, m + 1)), open_axes=axes)


@MANY
@given(products())
def test_products(case: Case) -> None:
    compare(case)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 3)])
def test_resize(mode: str, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 3))
    attributes = {"nearest_mode": "round_prefer_ceil"} if mode == "nearest" else {}
    compare(one("Resize", x, None, None, np.array([2, 3, *size]), mode=mode, **attributes))
