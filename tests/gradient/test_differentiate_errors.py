"""What is refused, and what the message names: ops without gradient, inputs, outputs and taps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import DifferentiationError, TapError
from cloakonnx.gradient.differentiate import GradientGraph, differentiate

from .classifiers import X, Y, classifier
from .harness import ort_run


def test_quantized_model() -> None:
    constants = {"s": np.array(0.1, np.float32), "o": np.array(0, np.uint8)}
    extra = [
        helper.make_node("QuantizeLinear", ["features", "s", "o"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "o"], ["more"]),
    ]
    with pytest.raises(DifferentiationError, match=r"QuantizeLinear \(node 'quantise'\) has a zero gradient"):
        differentiate(classifier(*extra, constants=constants))


def test_nothing_but_zero_gradients_is_an_error() -> None:
    with pytest.raises(DifferentiationError, match=r"Round \(node 'hide'\) has a zero gradient.*attack square"):
        differentiate(classifier(helper.make_node("Round", ["features"], ["more"], name="hide")))


def test_op_without_a_rule() -> None:
    with pytest.raises(DifferentiationError, match=r"Det \(node 'odd'\): this op has no rule.*attack square"):
        differentiate(classifier(helper.make_node("Det", ["features"], ["more"], name="odd")))


def test_op_without_a_rule_off_the_path() -> None:
    model = classifier()
    model.graph.node.append(helper.make_node("Det", ["features"], ["unused"]))
    differentiate(model)


def test_tree_ensemble() -> None:
    node = helper.make_node("TreeEnsembleClassifier", ["features"], ["more"], domain="ai.onnx.ml")
    model = classifier(node)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with pytest.raises(DifferentiationError, match=r"ai\.onnx\.ml\.TreeEnsembleClassifier.*'more'.*attack square"):
        differentiate(model)


def test_control_flow() -> None:
    branch = helper.make_graph(
        [helper.make_node("Det", ["features"], ["b"], name="inside")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    extra = [
        helper.make_node("ReduceMax", ["features"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "limit"], ["condition"]),
        helper.make_node("If", ["condition"], ["more"], name="choice", then_branch=branch, else_branch=branch),
    ]
    model = classifier(*extra, constants={"limit": np.array(0.3, np.float32)})
    with pytest.raises(DifferentiationError, match=r"Det \(node 'inside'\): this op has no rule"):
        differentiate(model)


def test_a_scale_that_depends_on_the_data() -> None:
    extra = [
        helper.make_node("ReduceMean", ["features", "axes"], ["scale"], keepdims=0),
        helper.make_node("InstanceNormalization", ["features", "scale", "scale"], ["more"], name="dynamic"),
    ]
    with pytest.raises(DifferentiationError, match=r"InstanceNormalization \(node 'dynamic'\): its input 1"):
        differentiate(classifier(*extra, constants={"axes": np.array([0, 2, 3])}))


def test_a_gradient_by_weights_needs_the_size_of_the_images() -> None:
    extra = [
        helper.make_node("ReduceMean", ["features", "axes"], ["k"]),
        helper.make_node("Reshape", ["k", "form"], ["kernel"]),
        helper.make_node("Conv", ["features", "kernel"], ["more"], name="dynamic", group=4),
    ]
    model = classifier(*extra, constants={"axes": np.array([0, 2, 3]), "form": np.array([4, 1, 1, 1])})
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(DifferentiationError, match=r"Conv \(node 'dynamic'\): .* needs an input of fixed height"):
        differentiate(model)


def test_byte_input() -> None:
    model = classifier()
    model.graph.input[0].name = "bytes"
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["bytes"], ["x"], to=TensorProto.FLOAT))
    with pytest.raises(
        DifferentiationError, match=r"input 'bytes' is uint8.*black-box ones too, need a floating-point input"
    ):
        differentiate(model)


def test_a_tensor_that_nothing_makes() -> None:
    model = classifier()
    del model.graph.initializer[0]
    with pytest.raises(DifferentiationError, match=r"Conv \(.*\) reads 'w1', which nothing in the model makes"):
        differentiate(model)


def test_old_ops_on_an_open_batch() -> None:
    """onnx's converter takes Gemm of opset 6 with fixed dimensions only."""
    made = {}
    for batch in ("N", 3):
        gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], broadcast=1)
        graph = helper.make_graph(
            [gemm],
            "old",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
            [numpy_helper.from_array(np.ones((4, 5), np.float32), "w"), numpy_helper.from_array(np.ones(5, "f4"), "b")],
        )
        made[batch] = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 6)])
    assert differentiate(made[3]).classes == 5
    with pytest.raises(DifferentiationError, match=r"from opset 6 to 18.*fixed; export it with a fixed one, or again"):
        differentiate(made["N"])


def test_an_input_without_a_shape() -> None:
    model = classifier()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    graph = differentiate(model, input_shape=[None, 3, 6, 6])
    wanted = differentiate(classifier(), input_shape=[None, 3, 6, 6])
    feeds = [X.astype(np.float32), Y]
    results = [ort_run(each.proto)(feeds_of(each, feeds)) for each in (graph, wanted)]
    for found in zip(*results, strict=True):
        np.testing.assert_array_equal(*found)


def feeds_of(graph: GradientGraph, values: list[Any]) -> dict[str, Any]:
    return dict(zip((graph.image, graph.labels or ""), values, strict=True))


@pytest.mark.parametrize("tap", ["feature", "w1"])
def test_unknown_tap(tap: str) -> None:
    with pytest.raises(TapError, match=f"no tensor '{tap}'"):
        differentiate(classifier(), masks={tap: 1})


def test_a_mask_before_rounding() -> None:
    model = classifier(helper.make_node("Round", ["features"], ["more"], name="hide"))
    with pytest.raises(TapError, match=r"Round .* no mask can be learned there; choose another tap, or learn before"):
        differentiate(model, masks={"features": 1}, wrt=(), mask_gradients=True)


def test_mask_on_the_input() -> None:
    with pytest.raises(TapError, match="choose another tap"):
        differentiate(classifier(), masks={"x": 1})


def test_mask_axis_out_of_range() -> None:
    with pytest.raises(TapError, match="feature axis 4"):
        differentiate(classifier(), masks={"features": 4})


def test_several_float_inputs() -> None:
    model = classifier(helper.make_node("Mul", ["features", "gain"], ["more"]))
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]))
    with pytest.raises(
        DifferentiationError, match=r"several floating-point inputs \(x, gain\): name one with input_name$"
    ):
        differentiate(model)
    graph = differentiate(model, input_name="x")
    feeds = {"x": X.astype(np.float32), "labels": Y, "gain": np.ones(1, np.float32)}
    assert ort_run(graph.proto)(feeds)[-1].any()


def test_unknown_output() -> None:
    with pytest.raises(DifferentiationError, match="did you mean 'probabilities'"):
        differentiate(classifier(), output_name="probability")


def test_labels_as_the_output() -> None:
    """Beside scores they are passed over, and refused where they are asked for."""
    model = classifier()
    model.graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    with pytest.raises(DifferentiationError, match=r"output 'label' is not floating point.*output_name$"):
        differentiate(model, output_name="label")
    assert differentiate(model).stripped == differentiate(model, output_name="probabilities").stripped == "Softmax"


def test_classes_that_the_model_does_not_tell() -> None:
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("to", TensorProto.INT64, [2]))
    model.graph.node.append(helper.make_node("Reshape", ["probabilities", "to"], ["shaped"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("shaped", TensorProto.FLOAT, None))
    model.graph.node.append(helper.make_node("Neg", ["shaped"], ["negative"]))
    model.graph.output[0].name = "negative"
    with pytest.raises(DifferentiationError, match=r"classes at 'negative' is unknown: declare the shape of output"):
        differentiate(model)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("negative", TensorProto.FLOAT, ["N", 5]))
    graph = differentiate(model)
    assert graph.classes == 5
