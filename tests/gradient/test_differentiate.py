"""Whole small classifiers: masks, taps, preprocessing, types, canonical form."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from cloakonnx.gradient.differentiate import INPUT, differentiate
from cloakonnx.gradient.way import find_way
from cloakonnx.preprocessing import Preprocessing
from tests.support.double import to_double

from .classifiers import X, Y, classifier, run
from .harness import evaluator, ort_run


def test_names_and_types() -> None:
    graph = differentiate(classifier(), wrt=[INPUT, "features"])
    assert (graph.image, graph.labels, graph.targets, graph.cotangent) == ("x", "labels", None, None)
    assert (graph.stripped, graph.classes, graph.blocked) == ("Softmax", 5, ())
    assert graph.proto.ir_version <= 10
    found = run(graph)
    assert found[graph.gradient].shape == X.shape
    assert found[graph.gradients["features"]].shape == (3, 4, 3, 3)
    assert found[graph.loss or ""].shape == (3,)
    dims = graph.proto.graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == "N"


def test_each_sample_has_its_own_gradient() -> None:
    graph = differentiate(classifier())
    together = run(graph)[graph.gradient]
    for i in range(3):
        alone = run(graph, X[i : i + 1], Y[i : i + 1])[graph.gradient]
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-5, atol=1e-7)


def test_forward_only() -> None:
    graph = differentiate(classifier(), loss=None)
    assert (graph.loss, graph.labels, graph.gradients) == (None, None, {})
    assert set(run(graph)) == {graph.logits}


def test_model_is_not_changed() -> None:
    model = classifier()
    before = model.SerializeToString()
    differentiate(model, masks={"features": 1}, preprocessing=Preprocessing(scale=1 / 255))
    assert model.SerializeToString() == before


def test_mask_is_in_the_gradient() -> None:
    mask = np.array([1.0, 0.0, 0.5, 2.0])
    graph = differentiate(to_double(classifier()), masks={"features": 1}, wrt=[INPUT, "features"], mask_gradients=True)
    found = run(graph, features=mask)
    constant = classifier(
        helper.make_node("Mul", ["features", "m"], ["more"]), constants={"m": mask.reshape(1, 4, 1, 1)}
    )
    written = differentiate(to_double(constant), wrt=[INPUT, "more"])
    expected = run(written)
    np.testing.assert_allclose(found[graph.gradient], expected[written.gradient], atol=1e-12)
    np.testing.assert_allclose(found[graph.gradients["features"]], expected[written.gradients["more"]], atol=1e-12)
    numeric = []
    for j in range(4):
        step = np.zeros(4)
        step[j] = 1e-6
        high, low = (run(graph, features=mask + s)[graph.loss or ""].sum() for s in (step, -step))
        numeric.append((high - low) / 2e-6)
    np.testing.assert_allclose(found[graph.mask_gradients["features"]], numeric, atol=1e-7)


def test_names_that_the_model_has_already_are_left_alone() -> None:
    names = ("features_mask", "features_unmasked", "labels", "backward/constant_1")
    extra = helper.make_node("Sum", ["features", *names], ["more"])
    graph = differentiate(
        classifier(extra, constants={name: np.zeros((1, 1, 1, 1), np.float32) for name in names}),
        masks={"features": 1},
        mask_gradients=True,
    )
    assert {graph.masks["features"], graph.labels}.isdisjoint(names)
    plain = differentiate(classifier())
    feeds = {graph.image: X.astype(np.float32), graph.labels or "": Y, graph.masks["features"]: np.ones(4, np.float32)}
    found = dict(zip((o.name for o in graph.proto.graph.output), ort_run(graph.proto)(feeds), strict=True))
    np.testing.assert_allclose(found[graph.gradient], run(plain)[plain.gradient], rtol=1e-6)


def test_mask_of_zeros_stops_everything() -> None:
    graph = differentiate(classifier(), masks={"features": 1})
    assert not run(graph, features=np.zeros(4))[graph.gradient].any()


def test_mask_on_features_of_a_matrix() -> None:
    graph = differentiate(classifier(), masks={"f": -1, "features": 1}, mask_gradients=True)
    found = run(graph, f=np.ones(4), features=np.ones(4))
    plain = differentiate(classifier())
    np.testing.assert_allclose(found[graph.gradient], run(plain)[plain.gradient], rtol=1e-6)
    # Both masks scale the same channels, so their gradients agree.
    a, b = (found[graph.mask_gradients[tap]] for tap in ("f", "features"))
    np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_preprocessing_gives_gradients_of_pixels(dtype: type) -> None:
    how = Preprocessing(1 / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    graph = differentiate(classifier(dtype=dtype), preprocessing=how)
    assert graph.image == "x_pixels"
    pixels = np.round(X * 255)
    normalised = (pixels / 255 - np.reshape(how.mean, (3, 1, 1))) / np.reshape(how.std, (3, 1, 1))
    reference = differentiate(to_double(classifier(dtype=dtype)))
    expected = run(reference, normalised)[reference.gradient] / np.reshape(how.std, (3, 1, 1)) / 255
    if dtype == np.float64:
        graph_run = evaluator(graph.proto)
        names = [o.name for o in graph.proto.graph.output]
        found = dict(zip(names, graph_run({graph.image: pixels, graph.labels: Y}), strict=True))
    else:
        found = run(graph, pixels)
    gradient = found[graph.gradient]
    assert gradient.dtype == (np.float64 if dtype == np.float64 else np.float32)
    tolerance = {np.float64: 1e-12, np.float32: 1e-5, np.float16: 1e-2}[dtype]
    assert np.linalg.norm(gradient - expected) <= tolerance * np.linalg.norm(expected)


def test_preprocessing_of_channels_last() -> None:
    nodes = helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2])
    model = classifier()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 6, 6, 3]))
    model.graph.node.insert(0, nodes)
    how = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    first = differentiate(classifier(), preprocessing=how)
    last = differentiate(model, preprocessing=how)
    expected = run(first)[first.gradient].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(run(last, X.transpose(0, 2, 3, 1))[last.gradient], expected, rtol=1e-4, atol=1e-6)


def test_nothing_to_preprocess_adds_nothing() -> None:
    assert differentiate(classifier(), preprocessing=Preprocessing(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))).image == "x"


def test_fixed_batch_stays() -> None:
    graph = differentiate(classifier(batch=1))
    assert run(graph, X[:1], Y[:1])[graph.gradient].shape == (1, 3, 6, 6)


def test_batch_dimension_can_be_fixed_at_run_time() -> None:
    graph = differentiate(classifier())
    assert graph.batch == "N"
    assert differentiate(classifier(batch=1)).batch is None
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("N", 3)
    session = ort.InferenceSession(graph.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (gradient,) = session.run([graph.gradient], {"x": X.astype(np.float32), "labels": Y})
    np.testing.assert_allclose(gradient, run(graph)[graph.gradient], rtol=1e-5, atol=1e-7)


def test_upsample_of_opset_9() -> None:
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    old = classifier(helper.make_node("Upsample", ["features", "scales"], ["more"]), constants=scales, opset=9)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    new = classifier(helper.make_node("Resize", ["features", "", "scales"], ["more"], **how), constants=scales)
    graph, expected = differentiate(old), differentiate(new)
    np.testing.assert_allclose(run(graph)[graph.gradient], run(expected)[expected.gradient], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scales", [(2, 2), (1.5, 2.4), (0.5, 0.7), (0.6, 1.7), (1, 0.4)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("op", ["Upsample", "Resize"])
def test_sampling_before_opset_11_is_what_onnx_runtime_does(op: str, mode: str, scales: tuple[float, float]) -> None:
    if op == "Upsample" and min(scales) < 1:
        return  # ONNX Runtime refuses it
    constants = {"scales": np.array([1, 1, *scales], np.float32)}
    node = helper.make_node(op, ["features", "scales"], ["more"], mode=mode)
    model = classifier(node, constants=constants, opset=10 if op == "Resize" else 9)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    _, logits = ort_run(model)({"x": X.astype(np.float32)})
    del model.graph.output[1:]
    graph = differentiate(model, input_shape=(None, 3, 6, 6))
    np.testing.assert_allclose(run(graph)[graph.logits], logits, rtol=1e-5, atol=1e-6)


def test_inspection_knows_what_old_ops_became() -> None:
    """Upsample and Scatter, which the conversion to opset 18 gives other names."""
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    old = classifier(helper.make_node("Upsample", ["features", "scales"], ["more"]), constants=scales, opset=9)
    assert find_way(old, "x", "probabilities").nodes
    constants = {"places": np.zeros((1, 1, 1, 1), np.int64), "one": np.ones((1, 1, 1, 1), np.float32)}
    node = helper.make_node("Scatter", ["features", "places", "one"], ["more"], axis=1)
    old = classifier(node, constants=constants, opset=9, batch=1)
    assert find_way(old, "x", "probabilities").nodes
    graph = differentiate(old)
    assert run(graph, X[:1], Y[:1])[graph.gradient].any()


def test_fixed_input_shape() -> None:
    graph = differentiate(classifier(), input_shape=(3, None, None, None))
    free = differentiate(classifier())
    np.testing.assert_allclose(run(graph)[graph.gradient], run(free)[free.gradient], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_opsets(opset: int) -> None:
    graph, newest = differentiate(classifier(opset=opset)), differentiate(classifier())
    np.testing.assert_allclose(run(graph)[graph.gradient], run(newest)[newest.gradient], rtol=1e-5, atol=1e-7)


def test_initializers_listed_as_inputs() -> None:
    model = classifier(opset=8)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    )
    graph, newest = differentiate(model), differentiate(classifier())
    np.testing.assert_allclose(run(graph)[graph.gradient], run(newest)[newest.gradient], rtol=1e-5, atol=1e-7)


def test_local_functions_are_inlined() -> None:
    model = classifier(helper.make_node("Twice", ["features"], ["more"], domain="mine"))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    plain = classifier(helper.make_node("Add", ["features", "features"], ["more"]))
    graph, expected = differentiate(model), differentiate(plain)
    np.testing.assert_allclose(run(graph)[graph.gradient], run(expected)[expected.gradient], rtol=1e-6)


def test_padded_channels_keep_the_batch() -> None:
    """As in ResNets whose shortcuts pad by a computed amount: onnx's inference knows no size before it is folded."""
    extra = [
        helper.make_node("Slice", ["features", "from", "to", "axis"], ["half"]),
        helper.make_node("Cast", ["numbers"], ["pads"], to=TensorProto.INT64),
        helper.make_node("Pad", ["half", "pads"], ["padded"]),
        helper.make_node("Add", ["features", "padded"], ["more"]),
    ]
    constants = {"from": np.array([1]), "to": np.array([3]), "axis": np.array([1])}
    graph = differentiate(
        classifier(*extra, constants=constants | {"numbers": np.array([0, 1, 0, 0, 0, 1, 0, 0], np.int32)})
    )
    assert all(node.op_type != "NonZero" for node in graph.proto.graph.node)  # shapes are not compared at run time
    assert run(graph)[graph.gradient].any()


def test_dynamic_reshape_keeps_the_batch() -> None:
    extra = [
        helper.make_node("Shape", ["features"], ["s"], end=1),
        helper.make_node("Concat", ["s", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["features", "t"], ["r"]),
        helper.make_node("Reshape", ["r", "back"], ["more"]),
    ]
    constants = {"rest": np.array([2, -1]), "back": np.array([0, 4, 3, 3])}
    graph, plain = differentiate(classifier(*extra, constants=constants)), differentiate(classifier())
    np.testing.assert_allclose(run(graph)[graph.gradient], run(plain)[plain.gradient], rtol=1e-6)


def test_zero_gradient_ops_are_named() -> None:
    extra = [
        helper.make_node("Round", ["features"], ["rounded"], name="hide"),
        helper.make_node("Add", ["features", "rounded"], ["more"]),
    ]
    graph = differentiate(classifier(*extra))
    assert graph.blocked == ("Round (node 'hide')",)
    assert run(graph)[graph.gradient].any()


def test_shape_ops_need_no_rule() -> None:
    extra = [
        helper.make_node("Greater", ["features", "limit"], ["mask"]),
        helper.make_node("Where", ["mask", "features", "limit"], ["more"]),
    ]
    graph = differentiate(classifier(*extra, constants={"limit": np.array(0.3, np.float32)}))
    assert graph.blocked == ()
    assert run(graph)[graph.gradient].any()


def test_same_graph_every_time() -> None:
    graphs = [differentiate(classifier(), masks={"features": 1}).proto for _ in range(2)]
    assert graphs[0].SerializeToString(deterministic=True) == graphs[1].SerializeToString(deterministic=True)


def normalised(bias: bool) -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    tensors = {n: rng.uniform(0.5, 1.5, 6).astype(np.float32) for n in ("scale", "shift", "mean", "var", "bias")}
    tensors["kernel"] = rng.normal(size=(6, 2, 3, 3)).astype(np.float32)
    names = ["features", "kernel", *(["bias"] if bias else [])]
    extra = [
        helper.make_node("Conv", names, ["conv"], group=2, name="inner"),
        helper.make_node("BatchNormalization", ["conv", "scale", "shift", "mean", "var"], ["bn"], epsilon=0.01),
        helper.make_node("Slice", ["bn", "zero", "four", "one"], ["more"]),
    ]
    constants = tensors | {"zero": np.array([0]), "four": np.array([4]), "one": np.array([1])}
    return classifier(*extra, constants=constants)


@pytest.mark.parametrize("bias", [False, True])
def test_batch_normalization_joins_its_convolution(bias: bool) -> None:
    model = to_double(normalised(bias))
    fused, plain = differentiate(model), differentiate(model, wrt=[INPUT, "conv"])
    assert "BatchNormalization" not in {n.op_type for n in fused.proto.graph.node}
    assert "BatchNormalization" in {n.op_type for n in plain.proto.graph.node}  # the tap must survive
    a, b = run(fused), run(plain)
    np.testing.assert_allclose(a[fused.logits], b[plain.logits], atol=1e-12)
    np.testing.assert_allclose(a[fused.gradient], b[plain.gradient], atol=1e-12)
