"""Formulas over tensors: the nodes that they become, and what those compute."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import Index

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.5, 2, (2, 3)).astype(np.float32), RNG.uniform(-2, 2, (2, 3)).astype(np.float32)


def builder(elem_type: int = TensorProto.FLOAT, shape: tuple[int | str, ...] = (2, 3)) -> Builder:
    graph = onnx.GraphProto(name="g")
    graph.input.extend(helper.make_tensor_value_info(name, elem_type, shape) for name in ("x", "y"))
    return Builder(graph, Index(graph), opset=18)


def computed(formula: Callable[[Tensor, Tensor], Tensor], x: np.ndarray = X, y: np.ndarray = Y) -> np.ndarray:
    build = builder(helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    made = formula(build.tensor("x"), build.tensor("y"))
    build.graph.output.append(helper.make_tensor_value_info(made.name, made.elem_type, [None, None]))
    model = helper.make_model(build.graph, opset_imports=[helper.make_opsetid("", build.opset)])
    onnx.checker.check_model(model, full_check=True)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x, "y": y})
    return np.asarray(found)


FORMULAS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "arithmetic": (lambda x, y: 2 * x + y / x - (3 - y), lambda x, y: 2 * x + y / x - (3 - y)),
    "numbers on either side": (
        lambda x, y: 1 / x + (y - 1) / 4 + (1 + x) * 0.5,
        lambda x, y: 1 / x + (y - 1) / 4 + (1 + x) * 0.5,
    ),
    "powers": (lambda x, y: x**2 * x**-0.5 * x**1, lambda x, y: x**2 * x**-0.5 * x),
    "signs": (lambda x, y: -abs(y) * y.sign(), lambda x, y: -abs(y) * np.sign(y)),
    "functions": (lambda x, y: x.sqrt() + y.exp() - x.log(), lambda x, y: np.sqrt(x) + np.exp(y) - np.log(x)),
    "comparisons": (
        lambda x, y: ((y > 0) & (x >= y)).where(x, 0) + (y < x).where(1, y) + (y <= -1).where(y, x),
        lambda x, y: np.where((y > 0) & (x >= y), x, 0) + np.where(y < x, 1, y) + np.where(y <= -1, y, x),
    ),
    "equality": (lambda x, y: x.equals(x).where(y, 0) + y.equals(0).cast(y), lambda x, y: y),
    "sums": (
        lambda x, y: x.sum(1) + y.mean([0, 1]) - x.max(0) + x.sum([]) + x.sum((0, 1), keepdims=False),
        lambda x, y: x.sum(1, keepdims=True) + y.mean() - x.max(0) + x + x.sum(),
    ),
    "shapes": (
        lambda x, y: x.reshape(3, 2).transpose([1, 0]).unsqueeze(0).squeeze(0) + y.reshape(-1).shaped_as(x),
        lambda x, y: x.reshape(3, 2).T + y,
    ),
    "places": (
        lambda x, y: x.gather(x.builder.ints(2, 0), 1).padded([0, 1], [0, 0]) + x.zeros() + x.dim(0).cast(x),
        lambda x, y: np.pad(x[:, [2, 0]], [(0, 0), (1, 0)]) + 2,
    ),
    "broadcasting": (lambda x, y: x.sum(0).expanded_as(y), lambda x, y: np.tile(x.sum(0), (2, 1))),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_formula_computes_what_it_says(name: str, dtype: type) -> None:
    formula, expected = FORMULAS[name]
    x, y = X.astype(dtype), Y.astype(dtype)
    found = computed(formula, x, y)
    assert found.dtype == dtype  # numbers are constants of the tensor's type
    np.testing.assert_allclose(found, expected(x, y), rtol=1e-5, atol=1e-6)


def test_an_expression_written_twice_is_one_node_and_constants_are_shared() -> None:
    build = builder()
    x, y = build.tensor("x"), build.tensor("y")
    first, second = (x * y + 2) * 2, (x * y + 2) * 2
    assert first.name == second.name
    assert [node.op_type for node in build.graph.node] == ["Mul", "Add", "Mul"]
    assert len(build.graph.initializer) == 1
    assert build.index.value(build.graph.initializer[0].name) == 2
    assert build.constant(2.0, np.float32).name == build.graph.initializer[0].name
    assert build.constant(2, np.int64).name != build.graph.initializer[0].name


def test_a_graph_goes_with_the_last_tensor() -> None:
    """Without a round of the garbage collector: graphs hold weights."""
    build = builder()
    seen = weakref.ref(build)
    made = (build.tensor("x") * 2).sum(1)
    gc.disable()
    try:
        del build
        assert seen() is made.builder
        del made
        assert seen() is None
    finally:
        gc.enable()


def test_what_changes_nothing_costs_nothing() -> None:
    build = builder()
    x = build.tensor("x")
    assert x * 1 is x and 1.0 * x is x and x**1 is x and x.sum([]) is x and x.padded([0, 0], [0, 0]) is x
    assert not build.graph.node


def test_names_are_free_ones() -> None:
    build = builder()
    build.graph.node.append(helper.make_node("Relu", ["x"], ["Neg_1"], name="taken"))
    build = Builder(build.graph, build.index, opset=18)
    made = [-build.tensor("x"), -build.tensor("y")]
    names = [name for node in build.graph.node for name in node.output]
    assert len(set(names)) == 3
    assert {each.name for each in made} < set(names)
    assert build.fresh("taken") != "taken"
    assert build.fresh("free") == "free" != build.fresh("free")
    assert build.op("Identity", made[0], name="out") is not build.op("Identity", made[0], name="again")


def test_types_follow_the_op() -> None:
    build = builder(TensorProto.FLOAT16)
    x = build.tensor("x")
    assert (x + 1).elem_type == x.sum(1).elem_type == (x > 0).where(x, 0).elem_type == TensorProto.FLOAT16
    assert (x > 0).elem_type == x.equals(x).elem_type == ((x > 0) & (x < 1)).elem_type == TensorProto.BOOL
    assert x.op("Shape").elem_type == x.op("ArgMax").elem_type == TensorProto.INT64
    assert (x > 0).cast(x).elem_type == TensorProto.FLOAT16
    assert x.dtype == np.float16
    with pytest.raises(TypeError, match=r"where\(\) needs a tensor"):
        (x > 0).where(1, 0)


@pytest.mark.parametrize("shape", [(2, 3), ("N", 3), ("N", "M")])
def test_shapes_are_constants_where_they_are_known(shape: tuple[int | str, ...]) -> None:
    build = builder(shape=shape)
    x = build.tensor("x")
    known = [isinstance(d, int) for d in shape]
    assert (x.shape.name in build.index.initializers) is all(known)
    assert [x.dim(i).name in build.index.initializers for i in range(2)] == known
    x.op("Neg").shaped_as(x)
    reshape = build.graph.node[-1]
    assert (reshape.input[1] in build.index.initializers) is (sum(known) >= 1)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_a_model_of_its_own(opset: int) -> None:
    build = Builder.alone(opset=opset)
    x, n = build.input("x"), build.input("n", TensorProto.INT64, ["N"])
    model = build.model(x.mean(1) + x.max([0, 1]) + n.cast(x), x.sum(1, keepdims=False))
    assert (model.ir_version, model.opset_import[0].version) == (8, opset)
    assert [value.type.tensor_type.elem_type for value in model.graph.output] == [TensorProto.FLOAT] * 2
    found = ReferenceEvaluator(model).run(None, {"x": X, "n": np.array([4])})
    np.testing.assert_allclose(found[0], X.mean(1, keepdims=True) + X.max() + 4, rtol=1e-6)
    np.testing.assert_allclose(found[1], X.sum(1), rtol=1e-6)
    assert build.fresh("n") != "n"
