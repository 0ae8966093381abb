"""Weights that can't take a mask, and how those that do are rounded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import MaskError, ModelError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.fold._absorb import rounded
from cloakonnx.graph.fold.fold import folded, folding
from cloakonnx.graph.masks.mask import Mask

from .folding import F64, X, between, chain, compared, conv, net, node, normal, positive, residual


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


def test_weights_that_only_claim_to_be_there() -> None:
    made = onnx.ModelProto.FromString(bytes(residual().buf))
    (weight,) = (t for t in made.graph.initializer if t.name == "w2")
    weight.raw_data = weight.raw_data[:-8]
    with pytest.raises(ModelError, match=r"initializer 'w2' .* should have 1,152 bytes and has 1,144"):
        load_bytes(made.SerializeToString())
    weight.dims[0] = 1 << 40
    with pytest.raises(ModelError, match=r"initializer 'w2' of shape \(1099511627776, 4, 3, 3\) should have"):
        load_bytes(made.SerializeToString())
