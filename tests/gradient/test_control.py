"""If, Scan and Loop against finite differences, their bodies run by ONNX Runtime in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import DifferentiationError

from .harness import Array, Case, check, gradients, graph_of, ort_run

RNG = np.random.default_rng(3)
F, INT, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node, info = helper.make_node, helper.make_tensor_value_info


def r(*shape: int) -> Array:
    return RNG.normal(size=shape)


def body(nodes: list[onnx.NodeProto], inputs: dict[str, int], outputs: dict[str, int]) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "body",
        [info(name, kind, None if kind == F else []) for name, kind in inputs.items()],
        [info(name, kind, None) for name, kind in outputs.items()],
    )


def scan(steps: Array, **attributes: object) -> Case:
    """A state that is turned by captured weights, a second one that only passes by, two scanned outputs."""
    inner = body(
        [
            node("MatMul", ["h", "w"], ["hw"]),
            node("Mul", ["xt", "k"], ["xk"]),
            node("Add", ["hw", "xk"], ["sum"]),
            node("Tanh", ["sum"], ["h_next"]),
            node("Mul", ["h_next", "xt"], ["y1"]),
            node("Identity", ["sum"], ["y2"]),
            node("Identity", ["k"], ["k_next"]),
        ],
        {"k": F, "h": F, "xt": F},
        {"k_next": F, "h_next": F, "y1": F, "y2": F},
    )
    nodes = [
        node("Scan", ["k0", "h0", "x"], ["k_end", "h_end", "ys1", "ys2"], body=inner, num_scan_inputs=1, **attributes),
        node("Mul", ["ys1", "ys2"], ["m"]),
        node("ReduceSum", ["m", "axes"], ["s"], keepdims=0),
        node("Mul", ["s", "h_end"], ["p"]),
        node("Add", ["p", "k_end"], ["y"]),
    ]
    live = {"x": steps, "h0": r(2, 3), "k0": r(3), "w": r(3, 3)}
    return Case(nodes, live, {"axes": np.array([attributes.get("scan_output_axes", [0])[0]])}, size=6)  # type: ignore[index]


def loop(*, until: float | None = None) -> Case:
    """A Loop that uses the number of its turn, a scanned output, and where asked for ends by its data."""
    ends = [node("ReduceSum", ["h_next"], ["total"], keepdims=0), node("Less", ["total", "limit"], ["going"])]
    inner = body(
        [
            node("Cast", ["i"], ["step"], to=F),
            node("Add", ["step", "one"], ["count"]),
            node("MatMul", ["h", "w"], ["hw"]),
            node("Div", ["hw", "count"], ["part"]),
            node("Add", ["h", "part"], ["grown"]),
            node("Softplus", ["grown"], ["h_next"]),
            node("Mul", ["h_next", "h"], ["slice"]),
            *(ends if until is not None else [node("Identity", ["go"], ["going"])]),
        ],
        {"i": INT, "go": B, "h": F},
        {"going": B, "h_next": F, "slice": F},
    )
    nodes = [
        node("Loop", ["trips", "yes", "x"], ["h_end", "slices"], body=inner),
        node("ReduceMean", ["slices", "axes"], ["mean"], keepdims=0),
        node("Mul", ["mean", "h_end"], ["y"]),
    ]
    constants = {"trips": np.array(4), "yes": np.array(True), "one": np.array(1.0), "axes": np.array([0])}
    if until is not None:
        constants["limit"] = np.array(until)
    return Case(nodes, {"x": r(2, 3), "w": r(3, 3)}, constants, size=6)


def branch(*, deep: bool = False) -> Case:
    """An If on the data whose branches read the same tensors in different ways; one calls another If."""
    then = body([node("Mul", ["a", "b"], ["t1"]), node("Tanh", ["t1"], ["t2"])], {}, {"t1": F, "t2": F})
    if deep:
        left = body([node("Exp", ["a"], ["l"])], {}, {"l": F})
        right = body([node("Sin", ["b"], ["q"])], {}, {"q": F})
        then = body(
            [node("If", ["c2"], ["t1"], then_branch=left, else_branch=right), node("Mul", ["t1", "a"], ["t2"])],
            {},
            {"t1": F, "t2": F},
        )
    other = body([node("Softplus", ["a"], ["e1"]), node("Identity", ["e1"], ["e2"])], {}, {"e1": F, "e2": F})
    nodes = [
        node("ReduceSum", ["a"], ["total"], keepdims=0),
        node("Less", ["total", "zero"], ["c"]),
        node("Not", ["c"], ["c2"]),
        node("If", ["c2" if not deep else "c"], ["u", "v"], then_branch=then, else_branch=other),
        node("Mul", ["u", "v"], ["y"]),
    ]
    return Case(nodes, {"a": r(2, 3), "b": r(2, 3)}, {"zero": np.array(0.0)}, size=6)


def plain_loop() -> Case:
    """A Loop whose way back reads nothing of its turns."""
    twice = [node("Add", ["h", "h"], ["h_next"]), node("Identity", ["go"], ["going"])]
    inner = body(twice, {"i": INT, "go": B, "h": F}, {"going": B, "h_next": F})
    nodes = [node("Loop", ["trips", "yes", "x"], ["h_end"], body=inner), node("Mul", ["h_end", "h_end"], ["y"])]
    return Case(nodes, {"x": r(2, 3)}, {"trips": np.array(3), "yes": np.array(True)}, size=6)


def plain_scan() -> Case:
    """The same of a Scan."""
    inner = body(
        [node("Add", ["h", "h"], ["h_next"]), node("Neg", ["t"], ["u"])], {"h": F, "t": F}, {"h_next": F, "u": F}
    )
    nodes = [node("Scan", ["x", "steps"], ["h_end", "us"], body=inner, num_scan_inputs=1)]
    nodes.append(node("Mul", ["h_end", "h_end"], ["y"]))
    return Case(nodes, {"x": r(2, 3)}, {"steps": np.arange(3.0)}, size=6)


CASES = {
    "plain Loop": plain_loop(),
    "plain Scan": plain_scan(),
    "Scan": scan(r(4, 2, 3)),
    "Scan backwards": scan(r(4, 2, 3), scan_input_directions=[1], scan_output_directions=[1, 0]),
    "Scan axes": scan(r(2, 4, 3), scan_input_axes=[1], scan_output_axes=[1, 1]),
    "Loop": loop(),
    "Loop that ends by its data": loop(until=9.0),
    "If": branch(),
    "If within If": branch(deep=True),
}


@pytest.mark.parametrize("name", CASES)
def test_control(name: str) -> None:
    check(CASES[name], wide=ort_run)


def test_the_other_branch() -> None:
    case = branch()
    turned = {**case.inputs, "a": -case.inputs["a"]}
    check(replace(case, inputs=turned), wide=ort_run)


def test_a_recurrent_op_within_a_branch() -> None:
    """ONNX Runtime has no LSTM in float64: the gradient is that of the op without the branch."""
    weights = {"W": r(1, 8, 3), "R": r(1, 8, 2), "B": r(1, 16), "one": np.array([1])}
    inside = [node("LSTM", ["x", "W", "R", "B"], ["all"], hidden_size=2), node("Squeeze", ["all", "one"], ["t"])]
    other = body([node("Slice", ["x", "start", "two", "last"], ["e"])], {}, {"e": F})
    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Greater", ["top", "low"], ["c"]),
        node("If", ["c"], ["u"], then_branch=body(inside, {}, {"t": F}), else_branch=other),
        node("Mul", ["u", "u"], ["y"]),
    ]
    constants = {"start": np.array([0]), "two": np.array([2]), "last": np.array([2]), "low": np.array(-100.0)}
    x = r(4, 2, 3)
    branched = Case(nodes, {"x": x}, {**weights, **constants}, size=16)
    plain = Case([*inside, node("Mul", ["t", "t"], ["y"])], {"x": x}, weights, size=16)
    cotangent = r(1, 16).astype(np.float32)
    found = []
    for case in (branched, plain):
        graph = graph_of(case, double=False)
        found += gradients(graph, ort_run(graph.proto), case, cotangent)
    assert np.abs(found[1]).max() > 0.01
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_an_op_without_a_rule_inside_is_named() -> None:
    then = body([node("Det", ["a"], ["t"])], {}, {"t": F})
    other = body([node("Det", ["b"], ["e"])], {}, {"e": F})
    nodes = [
        node("ReduceSum", ["a"], ["total"], keepdims=0),
        node("Less", ["total", "zero"], ["c"]),
        node("If", ["c"], ["u"], then_branch=then, else_branch=other),
        node("Expand", ["u", "two"], ["y"]),
    ]
    case = Case(nodes, {"a": r(3, 3), "b": r(3, 3)}, {"zero": np.array(0.0), "two": np.array([2])}, size=2)
    with pytest.raises(DifferentiationError, match=r"cannot differentiate Det \(the node that makes 't'\)"):
        graph_of(case, double=False)


def test_constants_of_a_body() -> None:
    inner = body(
        [
            node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([1, 6]))),
            node("Reshape", ["xt", "shape"], ["flat"]),
            node("Mul", ["flat", "h"], ["h_next"]),
        ],
        {"h": F, "xt": F},
        {"h_next": F},
    )
    nodes = [node("Scan", ["h0", "x"], ["y"], body=inner, num_scan_inputs=1)]
    check(Case(nodes, {"x": r(3, 2, 3), "h0": r(1, 6)}, {}, size=6), wide=ort_run)
