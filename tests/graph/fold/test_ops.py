"""Which ops let masks through and which stop them, held against onnx's reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from cloakonnx.graph.fold.fold import folded, folding
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.strip import read_masks

from .folding import X, between, chain, compared, conv, net, node, normal, positive

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
    "resized from a part": (
        between(
            "Resize",
            "part scales",
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=1.0,
        ),
        {"part": np.array([0, 0, 0, 0, 1, 1, 1.5, 1.5]), "scales": np.array([1, 1, 2, 2], np.float32)},
        "it extrapolates with a constant",
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
