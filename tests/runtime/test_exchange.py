"""Constants are exchanged in an optimised graph: the bits of a session made anew, or no exchange at all."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.runtime.exchange import Exchange
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.runtime.session import Session, to_numpy
from cloakonnx.selection.learn.places import first_masks
from cloakonnx.selection.learn.recipe import Granularity
from tests.support.classifiers import cpu

CLASSES = 3


def model(kind: str) -> Model:
    """A net of 16 channels, which ONNX Runtime lays out in blocks."""
    rng = np.random.default_rng(0)
    values = {"first": rng.normal(size=(16, 2, 3, 3)), "b": rng.normal(size=16)}
    nodes = [helper.make_node("Conv", ["x", "first", "b"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["r"])]
    if kind == "depthwise":
        values["second"] = rng.normal(size=(16, 1, 3, 3))
        nodes.append(helper.make_node("Conv", ["r", "second"], ["d"], group=16, pads=[1] * 4))
    elif kind == "transposed":
        values["second"] = rng.normal(size=(16, 8, 2, 2))
        nodes.append(helper.make_node("ConvTranspose", ["r", "second"], ["d"], strides=[2, 2]))
    else:
        values["second"] = rng.normal(size=(32, 16, 3, 3))
        nodes.append(helper.make_node("Conv", ["r", "second"], ["d"], strides=[2, 2], pads=[1] * 4))
    wide = {"depthwise": 16, "transposed": 8}.get(kind, 32)
    values["fc"] = rng.normal(size=(CLASSES, wide))
    nodes += [
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["y"], transB=1),
    ]
    dtype = np.float16 if kind == "float16" else np.float32
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", elem, [4 if kind == "fixed batch" else "n", 2, 8, 8])],
        [helper.make_tensor_value_info("y", elem, [4 if kind == "fixed batch" else "n", CLASSES])],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in values.items()],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return load_bytes(made.SerializeToString())


def run(found: Model, granularity: Granularity) -> tuple[list[NDArray[np.floating]], bool]:
    """Return gradients, losses and logits under three sets of masks, and whether they were exchanged."""
    under = MaskedClassifier(cpu(found), first_masks(found, granularity))
    rng, results = np.random.default_rng(1), list[NDArray[np.floating]]()
    x, y = rng.random((4, 2, 8, 8), np.float32), rng.integers(0, CLASSES, 4)
    for _ in range(3):
        under.weights = {key: rng.uniform(0, 2, mask.shape) for key, mask in under.weights.items()}
        answer = under.mask_gradients(x, y, loss=Loss.CE, by_input=True)
        assert answer.gradient is not None
        results += [*answer.gradients.values(), to_numpy(answer.gradient), answer.loss, under.logits(x)]
    return results, all(each is not None for each in under.sessions._exchanges.values())


@pytest.mark.parametrize("granularity", ["weight", "kernel", "weight-channel"])
@pytest.mark.parametrize("kind", ["plain", "depthwise", "transposed", "fixed batch"])
def test_the_bits_of_a_session_made_anew(kind: str, granularity: Granularity) -> None:
    found = model(kind)
    results, exchanged = run(found, granularity)
    with patch.object(Exchange, "of", lambda *_: None):
        wanted, anew = run(found, granularity)
    assert exchanged and not anew
    for mine, other in zip(results, wanted, strict=True):
        assert mine.tobytes() == other.tobytes()
    assert not np.array_equal(results[0], results[len(results) // 3])


def test_float16_weights_are_made_anew() -> None:
    """Float16 can't number so many entries."""
    results, exchanged = run(model("float16"), "weight")
    assert not exchanged
    assert all(np.isfinite(each).all() for each in results)


def graph_of(nodes: list[onnx.NodeProto], width: int | str = 4, **weights: NDArray[np.floating]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def exchange_of(graph: onnx.ModelProto) -> tuple[Exchange | None, Session]:
    provider = choose_provider("cpu")
    before = Session(graph, provider)
    return Exchange.of(graph, ["m"], provider, before), before


ONES, W = np.ones((4, 4)), np.arange(16).reshape(4, 4) / 8
PRODUCT = helper.make_node("Mul", ["W", "m"], ["p"])
LAYER = helper.make_node("MatMul", ["x", "s"], ["y"])
REFUSED = {
    "a sum that is folded": [PRODUCT, helper.make_node("Add", ["p", "W"], ["s"]), LAYER],
    "a root that is folded": [PRODUCT, helper.make_node("Sqrt", ["p"], ["s"]), LAYER],
    "an output of constants": [PRODUCT, helper.make_node("Identity", ["p"], ["y"])],
}


@pytest.mark.parametrize("nodes", REFUSED.values(), ids=REFUSED)
def test_other_arithmetic_is_not_exchanged(nodes: list[onnx.NodeProto]) -> None:
    """What the optimiser computes of the constants is more than an order of them."""
    assert exchange_of(graph_of(nodes, m=ONES, W=W))[0] is None


def test_an_open_size_is_not_exchanged() -> None:
    nodes = [PRODUCT, helper.make_node("ReduceSum", ["p"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    assert exchange_of(graph_of(nodes, "wide", m=ONES, W=W))[0] is None


def test_weights_that_nodes_make_are_exchanged() -> None:
    """A Transpose of a constant stands before the mask, one of the product behind it."""
    nodes = [
        helper.make_node("Transpose", ["W"], ["t"]),
        helper.make_node("Mul", ["t", "m"], ["p"]),
        helper.make_node("Transpose", ["p"], ["s"]),
        LAYER,
    ]
    found, _ = exchange_of(graph_of(nodes, m=ONES, W=W))
    assert found is not None
    mask = np.random.default_rng(0).random((4, 4), np.float32)
    found.set({"m": mask})
    made = to_numpy(found.session.run({"x": np.eye(4, dtype=np.float32), **found.inputs})[0])
    np.testing.assert_array_equal(made, (W.T.astype(np.float32) * mask).T)


def test_captured_constants_are_exchanged() -> None:
    """A body reads the product."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "p"], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, ["n", 4])],
    )
    nodes = [
        PRODUCT,
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=body, else_branch=body),
    ]
    found, before = exchange_of(graph_of(nodes, m=ONES, W=W, zero=np.zeros(())))
    assert found is not None
    found.set({"m": np.full((4, 4), 3, np.float32)})
    x = np.eye(4, dtype=np.float32)
    tripled = to_numpy(found.session.run({"x": x, **found.inputs})[0])
    np.testing.assert_array_equal(tripled, 3 * to_numpy(before.run({"x": x})[0]))
