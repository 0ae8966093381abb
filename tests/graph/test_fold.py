"""What folds, where it goes, what stays a Mul and why; numbers are held against onnx's reference in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import MaskError, ModelError, TapError
from cloakonnx.graph import (
    Mask,
    Model,
    diff,
    fold_file,
    folded,
    folded_masks,
    folding,
    hardened,
    inline,
    is_folded,
    load,
    load_bytes,
    read_masks,
    strip_file,
    stripped,
)
from cloakonnx.graph.absorb import rounded

from .folding import F64, compared, net, node, normal, positive, relative, run

X = normal(99, 2, 3, 8, 8)


def conv(inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return node("Conv", inputs, output, **attributes)


def residual() -> Model:
    """Two residual blocks, the second with a strided, padded shortcut, then pool, Flatten and Gemm."""
    nodes = [
        conv("x w0 b0", "z0", pads=[1] * 4),
        node("Relu", "z0", "a0"),
        conv("a0 w1 b1", "z1", pads=[1] * 4),
        node("Relu", "z1", "i1"),
        conv("i1 w2 b2", "z2", pads=[1] * 4),
        node("Add", "z2 a0", "s1"),
        node("Relu", "s1", "a1"),
        conv("a1 w3 b3", "z3", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "z3", "i2"),
        conv("i2 w4", "z4", pads=[1] * 4),
        node("Slice", "a1 starts ends axes steps", "thin"),
        node("Pad", "thin pads", "short"),
        node("Add", "z4 short", "s2"),
        node("Relu", "s2", "a2"),
        node("AveragePool", "a2", "pooled", kernel_shape=[4, 4]),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat w5 b5", "y"),
    ]
    weights = {f"w{i}": normal(i, *shape) for i, shape in enumerate([(4, 3, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3)])}
    weights |= {"w3": normal(3, 6, 4, 3, 3), "w4": normal(4, 6, 6, 3, 3), "w5": normal(5, 6, 3), "b5": normal(15, 3)}
    weights |= {f"b{i}": normal(10 + i, size) for i, size in enumerate([4, 4, 4, 6])}
    weights |= {"starts": np.array([0, 0]), "ends": np.array([99, 99]), "axes": np.array([2, 3])}
    weights |= {"steps": np.array([2, 2]), "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0])}
    return net(nodes, weights, ["N", 3, 8, 8])


TAPS = ("a0", "i1", "a1", "i2", "a2")


def test_all_masks_of_a_residual_net_fold_to_float64_rounding() -> None:
    model = residual()
    masks = [positive(model, tap, seed) for seed, tap in enumerate(TAPS)]
    assert compared(model, masks, X, 5e-15) == dict.fromkeys(TAPS)
    assert relative(run(folded(model, masks).proto, X)[0], run(model.proto, X)[0]) > 0.1


def test_a_mask_names_the_layers_it_went_into() -> None:
    model = residual()
    inner, last = folding(model, [positive(model, "i1"), positive(model, "a2")]).fates
    assert (inner.layers, last.layers) == (("Conv node 'n_z2'",), ("Gemm node 'n_y'",))
    assert inner.folded and last.folded


def test_only_named_weights_change(tmp_path: Path) -> None:
    model = residual()
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(model.buf))
    fold_file(load(path), [positive(model, "i1")], tmp_path / "out.onnx")
    found = {str(each) for each in diff(load(path), load(tmp_path / "out.onnx"))}
    assert {text for text in found if "metadata" not in text} == {"initializer 'w2' changed (raw_data)"}
    keys = {p.key for p in load(tmp_path / "out.onnx").proto.metadata_props}
    assert keys == {f"cloakonnx.{key}" for key in ("kind", "folded", "source_sha256", "version")}


def test_the_formula_of_the_plain_case() -> None:
    """A mask on Relu(Conv) times the next convolution's input channels, in float64, is all that happens."""
    model = residual()
    mask = positive(model, "i1")
    made = {t.name: numpy_helper.to_array(t) for t in folded(model, [mask]).proto.graph.initializer}
    source = {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}
    np.testing.assert_allclose(
        made["w2"], source["w2"] * mask.weights.astype(np.float64).reshape(1, -1, 1, 1), rtol=1e-15
    )


def test_zeros_on_the_stream_stay_a_mul_and_elsewhere_fold() -> None:
    model = residual()
    weights = {"a0": [0, 1, 1, 2], "a1": [0, 1, 1, 2], "i1": [0, 0, 1, 0.5], "a2": [0, 1, 2, 1, 1, 0]}
    masks = [Mask(tap, np.array(values, np.float32)) for tap, values in weights.items()]
    reasons = compared(model, masks, X, 5e-15)
    assert reasons["a0"] is None, "back into the first convolution"
    assert reasons["i1"] is None and reasons["a2"] is None
    assert "weight of 0 where a positive one is needed" in str(reasons["a1"])


def test_a_zero_goes_backward_where_it_cannot_go_forward() -> None:
    """The tap is an output, so only the convolution before it can take the mask."""
    model = net(
        [conv("x w b", "z"), node("Relu", "z", "y")], {"w": normal(1, 4, 3, 3, 3), "b": normal(2, 4)}, ["N", 3, 8, 8]
    )
    made = folding(model, [Mask("y", np.array([0, 1, 0.5, 2], np.float32))])
    assert made.fates[0].layers == ("Conv node 'n_z'",)
    assert compared(model, [Mask("y", np.array([0, 1, 0.5, 2], np.float32))], X) == {"y": None}


def test_negative_weights_stay_a_mul() -> None:
    reasons = compared(residual(), [Mask("i1", np.array([-1, 1, 1, 1], np.float32))], X)
    assert "negative" in str(reasons["i1"])


def chain(op: onnx.NodeProto, weights: dict[str, NDArray[Any]] | None = None) -> Model:
    """Convolution, Relu ``a``, an op from ``a`` to ``b``, another convolution."""
    nodes = [conv("x w b0", "z"), node("Relu", "z", "a"), op, conv("b w1 b1", "y")]
    known = {"w": normal(1, 4, 3, 1, 1), "b0": normal(2, 4), "w1": normal(3, 5, 4, 1, 1), "b1": normal(4, 5)}
    return net(nodes, known | (weights or {}), ["N", 3, 8, 8])


def between(op_type: str, extra: str = "", **attributes: Any) -> onnx.NodeProto:
    return node(op_type, f"a {extra}".strip(), "b", **attributes)


COMMUTING = {
    "leaky": (between("LeakyRelu", alpha=0.1), {}),
    "prelu": (between("PRelu", "s"), {"s": normal(5, 4, 1, 1)}),
    "max pool": (between("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), {}),
    "average pool": (between("AveragePool", kernel_shape=[3, 3], pads=[1] * 4), {}),
    "global max pool": (between("GlobalMaxPool"), {}),
    "lp pool": (between("ReduceL2", axes=[2, 3]), {}),
    "mean": (between("ReduceMean", axes=[2, 3]), {}),
    "identity": (between("Identity"), {}),
    "dropout": (between("Dropout"), {}),
    "relu by clip": (between("Clip", "zero"), {"zero": np.float64(0)}),
    "pad": (between("Pad", "pads"), {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "scalar": (between("Mul", "k"), {"k": np.float64(3)}),
    "scalar below": (between("Div", "k"), {"k": np.float64(3)}),
    "factor": (between("Mul", "k"), {"k": normal(5, 4, 1, 1)}),
    "divisor": (between("Div", "k"), {"k": normal(5, 1, 4, 1, 1) + 9}),
    "bias": (between("Add", "k"), {"k": normal(5, 4, 1, 1)}),
    "less": (between("Sub", "k"), {"k": normal(5, 4, 1, 1)}),
    "depthwise": (between("Conv", "k kb", group=4), {"k": normal(5, 4, 1, 2, 2), "kb": normal(6, 4)}),
    "grouped": (between("Conv", "k", group=2), {"k": normal(5, 4, 2, 2, 2)}),
    "transposed": (between("ConvTranspose", "k kb"), {"k": normal(5, 4, 4, 2, 2), "kb": normal(6, 4)}),
    "normalisation": (
        between("BatchNormalization", "k kb mean var"),
        {"k": normal(5, 4), "kb": normal(6, 4), "mean": normal(7, 4), "var": normal(8, 4) ** 2},
    ),
    "zeros added": (between("Add", "k"), {"k": np.zeros((1, 1, 1, 1))}),
}


@pytest.mark.parametrize("name", COMMUTING)
@pytest.mark.parametrize("taps", [("a",), ("a", "b"), ("z", "a", "b")])
def test_masks_fold_around(name: str, taps: tuple[str, ...]) -> None:
    op, weights = COMMUTING[name]
    model = chain(op, weights)
    masks = [positive(model, tap, seed) for seed, tap in enumerate(taps)]
    assert compared(model, masks, X) == dict.fromkeys(taps)


def test_grouped_transposed_convolution_by_its_definition() -> None:
    """onnx's reference can't run it with groups, so the weights are held against the formula."""
    model = chain(between("ConvTranspose", "k", group=2), {"k": normal(5, 4, 2, 2, 2)})
    a, b = positive(model, "a", 1), positive(model, "b", 2)
    made = {t.name: numpy_helper.to_array(t) for t in folded(model, [a, b]).proto.graph.initializer}
    wanted = normal(5, 4, 2, 2, 2) * a.weights.astype(np.float64).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(made["k"], wanted, rtol=1e-15)  # b goes on into the last convolution
    np.testing.assert_allclose(made["w1"], normal(3, 5, 4, 1, 1) * b.weights.astype(np.float64).reshape(1, 4, 1, 1))


def test_the_output_of_a_grouped_transposed_convolution() -> None:
    """A mask on the output can only go back: into column j of group g for channel 2 g + j."""
    model = net([node("ConvTranspose", "x k", "y", group=3)], {"k": normal(5, 3, 2, 2, 2)}, ["N", 3, 8, 8])
    mask = positive(model, "y", 3)
    made = {t.name: numpy_helper.to_array(t) for t in folded(model, [mask]).proto.graph.initializer}
    np.testing.assert_allclose(made["k"], normal(5, 3, 2, 2, 2) * mask.weights.astype(np.float64).reshape(3, 2, 1, 1))


STUCK = {
    "sigmoid": (between("Sigmoid"), {}, "Sigmoid node 'n_b' lets no scale through"),
    "hard swish": (between("HardSwish"), {}, "HardSwish node 'n_b'"),
    "clip at 6": (between("Clip", "low high"), {"low": np.float64(0), "high": np.float64(6)}, "it clips to bounds"),
    "padded with one": (
        between("Pad", "pads one"),
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": np.float64(1)},
        "it pads with a value other than 0",
    ),
    "one scalar added": (between("Add", "k"), {"k": np.float64(1)}, "mixes what the mask tells apart"),
}


@pytest.mark.parametrize("name", STUCK)
def test_masks_before_and_after_what_is_stuck(name: str) -> None:
    """A mask right before it goes back into the convolution; one after it goes on; between two of them none moves."""
    op, weights, reason = STUCK[name]
    model = chain(op, weights)
    if name != "one scalar added":
        assert compared(model, [positive(model, "a", 1), positive(model, "b", 2)], X) == {"a": None, "b": None}
    twice = [conv("x w b0", "z"), op, node("Relu", "b", "c"), node("Sigmoid", "c", "y")]
    twice[1].input[0] = "z"
    model = net(twice, {"w": normal(1, 4, 3, 1, 1), "b0": normal(2, 4)} | weights, ["N", 3, 8, 8])
    twice[1].input[0] = "a"
    found = compared(model, [positive(model, "c")], X)["c"]
    assert found is not None and reason in found


def test_flatten_repeats_and_gemm_takes_every_form() -> None:
    for turned, shape in ((0, (64, 5)), (1, (5, 64))):
        nodes = [
            conv("x w", "z"),
            node("Relu", "z", "a"),
            node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", "p", "f"),
            node("Gemm", "f g gb", "h", transB=turned, alpha=0.5, beta=3.0),
            node("Relu", "h", "i"),
            node("MatMul", "i m", "k"),
            node("Add", "k mb", "y"),
        ]
        weights = {"w": normal(1, 4, 3, 1, 1), "g": normal(2, *shape), "gb": normal(3, 1, 5), "m": normal(4, 5, 3)}
        model = net(nodes, weights | {"mb": normal(5, 3)}, ["N", 3, 8, 8])
        masks = [positive(model, tap, seed) for seed, tap in enumerate(("a", "f", "h", "i"))]
        assert compared(model, masks, X) == dict.fromkeys(("a", "f", "h", "i"))
        zeros = [Mask("a", np.array([0, 1, 0, 2], np.float32)), Mask("i", np.array([0, 1, 0, 2, 1], np.float32))]
        assert compared(model, zeros, X) == {"a": None, "i": None}


def test_a_squeeze_and_excitation_block_lets_masks_through() -> None:
    nodes = [
        conv("x w", "z"),
        node("Relu", "z", "a"),
        node("GlobalAveragePool", "a", "p"),
        conv("p w1 b1", "q"),
        node("Relu", "q", "r"),
        conv("r w2", "s"),
        node("Sigmoid", "s", "gate"),
        node("Mul", "gate a", "b"),
        conv("b w3", "y"),
    ]
    weights = {"w": normal(1, 4, 3, 1, 1), "w1": normal(2, 2, 4, 1, 1), "b1": normal(3, 2), "w2": normal(4, 4, 2, 1, 1)}
    model = net(nodes, weights | {"w3": normal(5, 3, 4, 1, 1)}, ["N", 3, 8, 8])
    masks = [positive(model, tap, seed) for seed, tap in enumerate(("a", "r", "b"))]
    assert compared(model, masks, X) == dict.fromkeys(("a", "r", "b"))
    assert "Sigmoid" in str(compared(net([*nodes[:7], node("Mul", "gate a", "b"), node("Sigmoid", "b", "y")],
        weights, ["N", 3, 8, 8]), [positive(model, "gate")], X)["gate"])  # fmt: skip


def test_features_last() -> None:
    """(N, T, C): the mask runs along the last axis, and so do MatMul's columns."""
    nodes = [node("MatMul", "x w", "z"), node("Add", "z b", "h"), node("Relu", "h", "a"), node("MatMul", "a v", "y")]
    weights = {"w": normal(1, 8, 6), "b": normal(2, 6), "v": normal(3, 6, 2)}
    model = net(nodes, weights, ["N", 3, 8])
    assert compared(model, [positive(model, "a"), positive(model, "z", 1)], normal(4, 2, 3, 8)) == {
        "a": None,
        "z": None,
    }


@pytest.mark.parametrize("op_type", ["LayerNormalization", "RMSNormalization", "InstanceNormalization"])
def test_the_output_of_a_normalisation(op_type: str) -> None:
    """A transformer's taps: what follows takes the mask, and where nothing can, the normalisation's own weights do."""
    inputs = "x k" if op_type == "RMSNormalization" else "x k kb"
    opset = 23 if op_type == "RMSNormalization" else 17
    count = 3 if op_type == "InstanceNormalization" else 8
    weights = {"k": normal(1, count), "kb": normal(2, count), "v": normal(3, count, 5)}
    weights = {name: value for name, value in weights.items() if name != "kb" or "kb" in inputs}
    shape, x = (["N", 3, 8], normal(4, 2, 3, 8))
    stuck = {name: value for name, value in weights.items() if name != "v"}
    model = net([node(op_type, inputs, "a"), node("Sigmoid", "a", "y")], stuck, shape, opset=opset)
    mask = Mask("a", np.linspace(0, 2, count, dtype=np.float32), 1 if count == 3 else 2)
    assert compared(model, [mask], x, 1e-6 if count == 3 else 1e-13) == {"a": None}
    if count == 8:
        model = net([node(op_type, inputs, "a"), node("MatMul", "a v", "y")], weights, shape, opset=opset)
        assert folding(model, [mask]).fates[0].layers == ("MatMul node 'n_y'",)
        assert compared(model, [mask], x) == {"a": None}


def test_shared_weights_stay_as_they_are() -> None:
    nodes = [conv("x w", "z"), node("Relu", "z", "a"), conv("a v", "p"), node("Sigmoid", "p", "q"), conv("q v", "r")]
    nodes += [node("Sigmoid", "r", "s"), conv("s v", "y")]
    model = net(nodes, {"w": normal(1, 4, 3, 1, 1), "v": normal(2, 4, 4, 1, 1)}, ["N", 3, 8, 8])
    reasons = compared(model, [positive(model, "a"), positive(model, "q")], X)
    assert reasons["a"] is None, "it goes back into the convolution before"
    assert "weight 'v' is used elsewhere, by Conv node 'n_p'" in str(reasons["q"])


def test_weights_that_a_caller_may_feed_stay() -> None:
    model = chain(between("Sigmoid"))
    made = onnx.ModelProto.FromString(bytes(model.buf))
    made.graph.input.append(helper.make_tensor_value_info("w1", F64, [5, 4, 1, 1]))
    assert "a caller may feed" in str(compared(load_bytes(made.SerializeToString()), [positive(model, "b")], X)["b"])
    made.ir_version = 3
    for tensor in made.graph.initializer:
        if tensor.name != "w1":
            made.graph.input.append(helper.make_tensor_value_info(tensor.name, F64, list(tensor.dims)))
    old = load_bytes(made.SerializeToString())
    assert compared(old, [positive(old, "b")], X) == {"b": None}, "IR 3 lists every weight"


def test_constant_nodes_and_reshaped_weights() -> None:
    model = chain(between("Sigmoid"))
    made = onnx.ModelProto.FromString(bytes(model.buf))
    (weight,) = (t for t in made.graph.initializer if t.name == "w1")
    flat = numpy_helper.from_array(numpy_helper.to_array(weight).reshape(4, 5).T.reshape(-1).copy(), "flat")
    made.graph.initializer.remove(weight)
    wanted = numpy_helper.from_array(np.array([4, 5, 1, 1]), "wanted")
    nodes = [
        helper.make_node("Constant", [], ["flat"], value=flat),
        helper.make_node("Reshape", ["flat", "wanted"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["w1"], perm=[1, 0, 2, 3]),
    ]
    rest = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*nodes, *rest])
    made.graph.initializer.append(wanted)
    old = load_bytes(made.SerializeToString())
    assert compared(old, [positive(old, "b")], X) == {"b": None}


def test_quantised_weights_stay() -> None:
    model = chain(between("Sigmoid"))
    made = onnx.ModelProto.FromString(bytes(model.buf))
    (weight,) = (t for t in made.graph.initializer if t.name == "w1")
    weight.CopyFrom(numpy_helper.from_array(np.arange(20, dtype=np.int8).reshape(5, 4, 1, 1), "w1"))
    made.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w1", "step"], ["single"]))
    made.graph.node.insert(1, helper.make_node("Cast", ["single"], ["v1"], to=F64))
    next(each for each in made.graph.node if each.name == "n_y").input[1] = "v1"
    old = load_bytes(made.SerializeToString())
    assert "weight 'v1' is computed by Cast" in str(folding(old, [positive(old, "b")]).fates[0].reason)
    made.graph.node[1].op_type = "Identity"
    del made.graph.node[1].attribute[:]
    assert "is quantised" in str(folding(load_bytes(made.SerializeToString()), [positive(old, "b")]).fates[0].reason)


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.BFLOAT16])
def test_dtypes_are_kept_and_rounded_once(elem_type: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    weights = {"w": normal(1, 4, 3, 1, 1, dtype=dtype), "v": normal(2, 5, 4, 1, 1, dtype=dtype)}
    model = net(
        [conv("x w", "z"), node("Relu", "z", "a"), conv("a v", "y")], weights, [1, 3, 8, 8], elem_type=elem_type
    )
    mask = positive(model, "a")
    (made,) = (t for t in folded(model, [mask]).proto.graph.initializer if t.name == "v")
    assert made.data_type == elem_type
    factor = mask.weights.astype(dtype).astype(np.float64).reshape(1, 4, 1, 1)
    exact = weights["v"].astype(np.float64) * factor
    found = numpy_helper.to_array(made)
    error = np.abs(found.astype(np.float64) - exact)
    for neighbour in (np.nextafter(found, dtype.type(np.inf)), np.nextafter(found, dtype.type(-np.inf))):
        assert (error <= np.abs(neighbour.astype(np.float64) - exact)).all(), "a neighbour is nearer"


def test_rounding_to_bfloat16_does_not_round_twice() -> None:
    """Just above the tie between two bfloat16, float32 rounds to the tie itself, which would then go to even."""
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    tie = 1 + 2.0**-8
    values = np.array([tie + 2.0**-40, tie - 2.0**-40, tie, -tie - 2.0**-40, 3e-46, np.inf, -np.inf])
    wanted = [1 + 2.0**-7, 1, 1, -1 - 2.0**-7, 0, np.inf, -np.inf]
    assert rounded(values, bfloat16).astype(np.float64).tolist() == wanted
    assert np.isnan(rounded(np.array([np.nan]), bfloat16).astype(np.float64)).all()


def test_float16_refuses_scales_that_are_too_far_apart() -> None:
    made = residual()
    proto = onnx.ModelProto.FromString(bytes(made.buf))
    for tensor in proto.graph.initializer:
        if tensor.data_type == F64:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    model = load_bytes(proto.SerializeToString())
    next(t for t in model.proto.graph.initializer if t.name == "w2").raw_data = np.full(144, 1000, "<f2").tobytes()
    masks = [Mask(tap, np.full(count, 0.05, np.float32)) for tap, count in (("a0", 4), ("a1", 4), ("a2", 6))]
    reasons = {fate.tap: fate.reason for fate in folding(model, masks).fates}
    assert reasons["a0"] is None and "would span" in str(reasons["a2"])
    with pytest.raises(MaskError, match="the weight 'w2' would overflow float16; apply the masks without"):
        folding(model, [Mask("i1", np.full(4, 200, np.float32))])


def external(folder: Path, model: Model) -> Path:
    made = onnx.ModelProto.FromString(bytes(model.buf))
    onnx.save_model(
        made,
        folder / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=False,
    )
    return folder / "m.onnx"


def test_external_data(tmp_path: Path) -> None:
    """Changed weights move into the model file, the others stay references; nothing of the user's is touched."""
    path = external(tmp_path, residual())
    before = path.read_bytes(), (tmp_path / "m.data").read_bytes()
    elsewhere = tmp_path / "there"
    elsewhere.mkdir()
    masks = [positive(residual(), "i1")]
    for output in (tmp_path / "out.onnx", elsewhere / "out.onnx"):
        fold_file(load(path), masks, output)
        made = onnx.load(output, load_external_data=False)
        inside = {t.name for t in made.graph.initializer if t.data_location != TensorProto.EXTERNAL}
        assert inside == {"w2"}
        assert relative(run(onnx.load(output), X)[0], run(inline(folded(residual(), masks)), X)[0]) == 0
    assert (path.read_bytes(), (tmp_path / "m.data").read_bytes()) == before
    assert (elsewhere / "m.data").read_bytes() == before[1]


def test_the_same_bytes_again_and_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(residual().buf))
    masks = [positive(residual(), tap, seed) for seed, tap in enumerate(TAPS)]
    masks.append(Mask("z4", np.array([0, 1, 1, 1, 1, -1], np.float32)))
    for name in ("one.onnx", "two.onnx"):
        fold_file(load(path), masks, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert not diff(folded(load(path), masks), load(tmp_path / "one.onnx"))
    kept = [each for each in load(tmp_path / "one.onnx").proto.graph.node if each.op_type == "Mul"]
    assert [each.output[0] for each in kept] == ["z4"]


def test_metadata_gives_the_masks_back(tmp_path: Path) -> None:
    masks = [positive(residual(), tap, seed) for seed, tap in enumerate(TAPS)]
    model = folded(residual(), masks)
    assert is_folded(model.proto)
    for given, found, again in zip(masks, folded_masks(model.proto), read_masks(model), strict=True):
        assert given.tap == found.tap == again.tap
        assert np.array_equal(given.weights, found.weights)
    for text in ("{}", "[1]", '[{"tap":"a","feature_axis":1,"weights":"?"}]', '[{"tap":"a"}]', "[" * 99999):
        next(p for p in model.proto.metadata_props if p.key == "cloakonnx.folded").value = text
        if text != "{}":
            with pytest.raises(ModelError, match="damaged"):
                folded_masks(model.proto)


def test_a_folded_model_is_not_stripped_nor_hardened_again(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(residual().buf))
    mask = positive(residual(), "i1")
    fold_file(load(path), [mask], tmp_path / "out.onnx")
    model = load(tmp_path / "out.onnx")
    with pytest.raises(ModelError, match="is folded: its masks are in the weights and can't be taken out"):
        strip_file(model, tmp_path / "back.onnx")
    with pytest.raises(ModelError, match="is folded"):
        stripped(model)
    with pytest.raises(ModelError, match="takes no more masks"):
        hardened(model, [positive(residual(), "a0")])
    with pytest.raises(ModelError, match="was hardened before"):
        folding(model, [positive(residual(), "a0")])
    with pytest.raises(ModelError, match="was hardened before"):
        folding(hardened(residual(), [mask]), [positive(residual(), "a0")])


def test_a_model_in_which_nothing_folds_is_hardened_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = net([node("Sigmoid", "x", "s"), node("Sigmoid", "s", "y")], {}, ["N", 3, 8, 8])
    path.write_bytes(bytes(model.buf))
    (fate,) = fold_file(load(path), [positive(model, "s")], tmp_path / "out.onnx")
    assert not fate.folded and not is_folded(load(tmp_path / "out.onnx").proto)
    strip_file(load(tmp_path / "out.onnx"), tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()


def test_bad_input() -> None:
    model = residual()
    with pytest.raises(MaskError, match="no mask to fold"):
        folding(model, [])
    with pytest.raises(MaskError, match="two masks"):
        folding(model, [positive(model, "a0"), positive(model, "a0")])
    with pytest.raises(TapError, match="does not exist"):
        folding(model, [Mask("nothing", np.ones(4, np.float32))])
    with pytest.raises(MaskError, match="has 5 weights, but the tensor has 4"):
        folding(model, [Mask("a0", np.ones(5, np.float32))])


def test_weights_that_only_claim_to_be_there() -> None:
    made = onnx.ModelProto.FromString(bytes(residual().buf))
    (weight,) = (t for t in made.graph.initializer if t.name == "w2")
    weight.raw_data = weight.raw_data[:-8]
    with pytest.raises(ModelError, match="the weight 'w2' is no tensor"):
        folding(load_bytes(made.SerializeToString()), [positive(residual(), "i1")])
    weight.dims[0] = 1 << 40
    (fate,) = folding(load_bytes(made.SerializeToString()), [positive(residual(), "i1")]).fates
    assert fate.layers == ("Conv node 'n_z1'",), "the layer before it takes the mask"


def test_a_mask_of_ones_changes_no_weight() -> None:
    model = residual()
    made = folding(model, [Mask("a0", np.ones(4, np.float32))])
    assert made.fates[0].folded and not made.fates[0].layers
    assert not made.edit.replace_initializers and is_folded(folded(model, [Mask("a0", np.ones(4, np.float32))]).proto)


def test_one_weight_for_every_element_folds_into_a_gemm_and_not_past_a_convolution() -> None:
    nodes = [
        conv("x w", "z"),
        node("Relu", "z", "a"),
        node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f g", "y"),
    ]
    model = net(nodes, {"w": normal(1, 4, 3, 1, 1), "g": normal(2, 64, 5)}, ["N", 3, 8, 8])
    rng = np.random.default_rng(0)
    last, early = (
        Mask(tap, rng.uniform(0, 2, (4, side, side)).astype(np.float32)) for tap, side in (("p", 4), ("a", 8))
    )
    assert compared(model, [last], X) == {"p": None}
    assert "MaxPool node 'n_p' (it mixes what the mask tells apart)" in str(compared(model, [early], X)["a"])
    (found,) = read_masks(folded(model, [last]))
    assert np.array_equal(found.weights, last.weights)
