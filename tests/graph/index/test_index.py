"""What the index tells of a graph: constants, random numbers, shapes from several places."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.graph.index.index import Index, TensorInfo, structure
from cloakonnx.graph.index.node import NodeView, describe


def model() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["noisy", "weight"], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Neg", ["weight"], ["negated"]),
        helper.make_node("RandomNormal", [], ["noise"], shape=[2]),
        helper.make_node("Add", ["noise", "negated"], ["noisy"]),
        helper.make_node("Mul", ["x", "negated"], ["product"], name="product"),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body),
        helper.make_node("Clip", ["product", "", "weight"], ["y"]),
        helper.make_node("Flatten", ["y"], ["z"], axis=1, note="two"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    inner = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT16, [None, 2]),
        helper.make_tensor_value_info("z", 0, [3, 2]),
    ]
    constants = [
        numpy_helper.from_array(np.ones(2, np.float32), "weight"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [z], constants, value_info=inner))


def test_constants_are_the_same_in_every_run_and_fixed_tensors_need_no_data() -> None:
    index = structure(model())
    assert index.constants == {"weight", "yes", "negated"}
    assert index.fixed == {"weight", "yes", "negated", "noise", "noisy", "chosen"}


def test_producers_and_readers() -> None:
    index = structure(model())
    producer = index.producer("product")
    assert producer is not None and producer.op_type == "Mul"
    assert index.producer("x") is None
    assert index.producers["noisy"] == (2, 0)
    assert index.consumers["weight"] == [0, 4, 5]  # the bodies of the If among them
    assert index.consumers["noisy"] == [4]
    assert index.inner == {"inside": 4}
    assert {"x", "inside", "weight", "z"} <= index.names()


def test_types_and_shapes_come_from_wherever_they_are_told() -> None:
    index = Index(model().graph)
    assert index.shape("x") == ("N", 2) and index.static("x") is None
    assert (index.elem_type("y"), index.shape("y")) == (TensorProto.FLOAT16, (None, 2))
    assert index.infos["z"] == TensorInfo(TensorProto.FLOAT, (3, 2))  # the type as an output, the shape as a value
    assert index.static("z") == (3, 2) and index.rank("z") == 2
    assert (index.elem_type("product"), index.shape("product"), index.rank("product")) == (
        TensorProto.FLOAT,
        None,
        None,
    )
    assert index.is_float("product") and not index.is_float("yes")
    np.testing.assert_array_equal(index.value("weight"), np.ones(2))
    assert index.value("negated") is None
    index.learn("product", TensorProto.DOUBLE, ["N", 2])
    assert index.infos["product"] == TensorInfo(TensorProto.DOUBLE, ("N", 2))
    index.add_initializer(numpy_helper.from_array(np.zeros((), np.int64), "new"))
    assert index.static("new") == () and index.value("new") == 0


def test_a_view_of_a_node() -> None:
    index = Index(model().graph)
    clip, flatten = (NodeView(node, index) for node in index.graph.node[5:7])
    assert [clip.has(i) for i in range(4)] == [True, False, True, False]
    np.testing.assert_array_equal(clip.value(2), np.ones(2))
    assert clip.value(0) is None and clip.value(1) is None
    assert flatten.attributes == {"axis": 1, "note": "two"}
    assert flatten.attr("axis") == 1 and flatten.attr("other", 7) == 7 and flatten.number("other", 0.5) == 0.5
    assert describe(index.graph.node[3]) == "Mul (node 'product')"
    assert describe(index.graph.node[5]) == "Clip (the node that makes 'y')"
