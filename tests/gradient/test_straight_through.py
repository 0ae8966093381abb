"""Straight-through gradients: what passes rounding and quantisation, what stays blocked, and what is said of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

from cloakonnx.errors import DifferentiationError, ZeroGradientError
from cloakonnx.gradient.differentiate import GradientGraph, differentiate

from .classifiers import X, Y, classifier
from .harness import ort_run

CONSTANTS: dict[str, Any] = {
    "scale": np.array(0.01, np.float32),
    "scales": np.array([0.01, 0.002, 0.004, 0.003], np.float32),
    "zero": np.array(3, np.uint8),
    "zeros": np.array([0, 3, 5, 100], np.uint8),
    "middles": np.array([1, 3, 5, 100], np.uint8),
    "flat": np.array([0, 4, -1]),
    "square": np.array([0, 4, 3, 3]),
    "one": np.array([1]),
    "ten": np.array(10, np.float32),
    "shift": np.array(0.4, np.float32),
}


def step(text: str) -> NodeProto:
    output, op, *inputs = text.replace("=", " ").split()
    attributes: dict[str, Any] = {"to": int(inputs.pop())} if op == "Cast" else {}
    return helper.make_node(op, inputs, output.split(","), name=f"{op.lower()}_{output}", **attributes)


def with_steps(*steps: str, batch: str | int = "N") -> onnx.ModelProto:
    return classifier(*map(step, steps), constants=CONSTANTS, opset=19, batch=batch)


def gradients(graph: GradientGraph) -> dict[str, Any]:
    feeds = {graph.image: X.astype(np.float32), graph.labels or "": Y}
    names = [each.name for each in graph.proto.graph.output]
    found = dict(zip(names, ort_run(graph.proto)(feeds), strict=True))
    return {key: found[name] for key, name in graph.gradients.items()}


def by_features(model: onnx.ModelProto, **options: Any) -> dict[str, Any]:
    """Differentiate by what goes into the middle and by what comes out of it."""
    return gradients(differentiate(model, wrt=["features", "more"], straight_through=True, **options))


def features() -> Any:
    graph = differentiate(with_steps("more = Identity features"), loss="cotangent", wrt="features")
    probe = onnx.ModelProto()
    probe.CopyFrom(graph.proto)
    probe.graph.output.append(helper.make_tensor_value_info("features", 1, None))
    feeds = {graph.image: X.astype(np.float32), graph.cotangent or "": np.zeros((3, 5), np.float32)}
    return ort_run(probe)(feeds)[-1]


@pytest.mark.parametrize(
    "steps",
    [
        ("u = Mul features ten", "r = Round u", "more = Div r ten"),
        ("u = Mul features ten", "r = Floor u", "more = Div r ten"),
        ("u = Mul features ten", "r = Ceil u", "more = Div r ten"),
        ("u = Mul features ten", "i = Cast u 6", "g = Cast i 1", "more = Div g ten"),
        ("u = Mul features ten", "i = Cast u 7", "j = Reshape i flat", "k = Reshape j square", "g = Cast k 1",
         "more = Div g ten"),
    ],
    ids=["round", "floor", "ceil", "cast", "cast_reshape"],
)  # fmt: skip
def test_rounding_is_passed_as_if_it_were_not_there(steps: tuple[str, ...]) -> None:
    found = by_features(with_steps(*steps))
    assert np.abs(found["more"]).max() > 0
    np.testing.assert_allclose(found["features"], found["more"], rtol=1e-6)


@pytest.mark.parametrize("ends", ["scale zero", "scale", "scales zeros", "scales middles"])
@pytest.mark.parametrize("inside", [(), ("j = Reshape q flat", "k = Reshape j square")])
def test_quantisation_passes_what_it_does_not_cut_off(ends: str, inside: tuple[str, ...]) -> None:
    last = "k" if inside else "q"
    model = with_steps(f"q = QuantizeLinear features {ends}", *inside, f"more = DequantizeLinear {last} {ends}")
    found = by_features(model)
    names = ends.split()
    scale = CONSTANTS[names[0]].reshape(-1, 1, 1) if names[0] == "scales" else CONSTANTS[names[0]]
    zero = CONSTANTS[names[1]] if len(names) > 1 else np.array(0)
    levels = np.rint(features() / scale) + (zero.reshape(-1, 1, 1) if zero.ndim else zero)
    kept = (levels >= 0) & (levels <= 255)
    assert 0.02 < kept.mean() < 0.98 or "scales" not in ends
    if zero.all():  # neither end of the range stands for 0: what is cut off is so by calibration, not by a Relu
        kept = np.ones_like(kept)
    np.testing.assert_allclose(found["features"], np.where(kept, found["more"], 0), rtol=1e-5, atol=1e-9)


def test_sign_passes_near_zero() -> None:
    found = by_features(with_steps("u = Mul features ten", "s = Sub u shift", "more = Sign s"))
    near = np.abs(features() * 10 - 0.4) <= 1
    assert near.any()
    assert not near.all()
    np.testing.assert_allclose(found["features"], np.where(near, 10 * found["more"], 0), rtol=1e-5)


def test_what_is_bridged_and_what_stays_blocked() -> None:
    model = with_steps("r = Round features", "a = ArgMax r", "g = Cast a 1", "more = Add r g")
    graph = differentiate(model, straight_through=True)
    assert graph.bridged == ("Round (node 'round_r')",)
    assert graph.blocked == ("ArgMax (node 'argmax_a')",)
    plain = with_steps("r = Round features", "more = Add r features")
    assert differentiate(plain).bridged == ()
    assert differentiate(plain).blocked == ("Round (node 'round_r')",)
    assert differentiate(plain, straight_through=True).blocked == ()


def test_integers_end_at_ops_that_have_no_gradient_for_them() -> None:
    """A maximum of integers hides the gradient, and is named; what only reads indices or shapes is not."""
    steps = ("q = QuantizeLinear features scale zero", "m = Max q q", "more = DequantizeLinear m scale zero")
    model = with_steps(*steps)
    with pytest.raises(ZeroGradientError, match=r"Max \(node 'max_m'\) has a zero gradient everywhere"):
        differentiate(model, straight_through=True)
    shapes = ("s = Shape features", "v = Reshape features s", "r = Round v", "more = Reshape r s")
    graph = differentiate(with_steps(*shapes), straight_through=True)
    assert graph.blocked == ()


def test_indices_are_no_integers_to_pass() -> None:
    """The places of the largest values, as numbers, hang on the data by steps; nothing goes straight through there."""
    steps = ("u = Flatten features", "v,i = TopK u one", "g = Cast i 1", "t = ReduceSum g", "more = Mul features t")
    plain, asked = (differentiate(with_steps(*steps), straight_through=each) for each in (False, True))
    assert asked.bridged == asked.blocked == ()
    assert plain.proto.SerializeToString(deterministic=True) == asked.proto.SerializeToString(deterministic=True)


def test_without_being_asked_nothing_is_bridged() -> None:
    model = with_steps("q = QuantizeLinear features scale zero", "more = DequantizeLinear q scale zero")
    with pytest.raises(ZeroGradientError, match="QuantizeLinear"):
        differentiate(model)
    assert differentiate(model, straight_through=True).bridged == ("QuantizeLinear (node 'quantizelinear_q')",)


def test_quantisation_by_blocks_is_refused() -> None:
    model = with_steps("q = QuantizeLinear features scales zeros", "more = DequantizeLinear q scales zeros")
    model.opset_import[0].version = 21
    for node in model.graph.node:
        if "Linear" in node.op_type:
            node.attribute.append(helper.make_attribute("block_size", 1))
    with pytest.raises(DifferentiationError, match="quantisation by blocks has no rule"):
        differentiate(model, straight_through=True)


def test_gradient_graphs_of_other_models_are_the_same() -> None:
    plain, asked = (differentiate(classifier(), straight_through=each) for each in (False, True))
    assert plain.proto.SerializeToString(deterministic=True) == asked.proto.SerializeToString(deterministic=True)
