"""Masks on weights: what layers read is the product, the weights stay, and stripping gives the file back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cloakonnx.errors import CheckError, MaskError, ModelError, TapError
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.fold.fold import fold_file
from cloakonnx.graph.masks import harden
from cloakonnx.graph.masks.granularity import granularity
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import INPUT_CHANNEL, KERNEL, OUTPUT_CHANNEL, WEIGHT, Mask
from cloakonnx.graph.masks.metadata import WeightMaskEntry, masks_of
from cloakonnx.graph.masks.strip import read_masks
from cloakonnx.graph.masks.weights import chosen_weights, find_weight, list_weights
from tests.graph.helpers import stripped_bytes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 2, 6, 6)).astype(np.float32)
VALUES = {
    "conv.weight": RNG.normal(size=(4, 2, 3, 3)),
    "conv.bias": RNG.normal(size=4),
    "up.weight": RNG.normal(size=(4, 3, 2, 2)),
    "fc.weight": RNG.normal(size=(5, 3)),
    "fc.bias": RNG.normal(size=5),
    "last": RNG.normal(size=(5, 4)),
}
NODES = [
    helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="conv", pads=[1] * 4),
    helper.make_node("Relu", ["c"], ["r"], name="relu"),
    helper.make_node("ConvTranspose", ["r", "up.weight"], ["u"], name="up", strides=[2, 2]),
    helper.make_node("GlobalAveragePool", ["u"], ["p"], name="pool"),
    helper.make_node("Flatten", ["p"], ["f"], name="flat"),
    helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["g"], name="fc", transB=1),
    helper.make_node("MatMul", ["g", "last"], ["y"], name="last_layer"),
]


def built(
    nodes: list[onnx.NodeProto] = NODES,
    values: dict[str, NDArray[np.floating]] = VALUES,
    *,
    dtype: type = np.float32,
    ir: int = 8,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    declared = [helper.make_tensor_value_info("x", kind, ["n", 2, 6, 6])]
    declared += [helper.make_tensor_value_info(name, kind, values[name].shape) for name in inputs]
    graph = helper.make_graph(
        nodes,
        "net",
        declared,
        [helper.make_tensor_value_info(name, kind, ["n", 4] if nodes is NODES else None) for name in outputs],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in values.items()],
    )
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", 17)])


def random_masks(model: Model, units: tuple[str, ...], *, biases: bool = False) -> list[Mask]:
    rng = np.random.default_rng(1)
    found = []
    for place in list_weights(model, biases=biases):
        for unit in (WEIGHT,) if place.input_axis is None else units:
            weights = rng.uniform(0, 2, granularity(unit).shape(place))
            found.append(Mask(place.name, weights, granularity=unit))
    return found


def run(model: onnx.ModelProto | bytes) -> NDArray[np.floating]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    kind = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    return np.asarray(session.run(None, {"x": X.astype(kind)})[0])


UNITS = {"kernel": (KERNEL,), "weight": (WEIGHT,), "weight-channel": (OUTPUT_CHANNEL, INPUT_CHANNEL)}


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("ir", [3, 8])
def test_the_layers_read_the_products(units: tuple[str, ...], dtype: type, ir: int, tmp_path: Path) -> None:
    """Against the model whose weights are multiplied by numpy; the file comes back to the byte."""
    proto = built(dtype=dtype, ir=ir, inputs=tuple(VALUES) if ir == 3 else ())
    path, output, back = (tmp_path / name for name in ("model.onnx", "hardened.onnx", "back.onnx"))
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    masks = random_masks(model, units, biases=True)
    harden_file(model, masks, output)
    products = {name: value.astype(dtype) for name, value in VALUES.items()}
    for mask in masks:
        products[mask.tap] = products[mask.tap] * mask.weights.astype(dtype)
    wanted = run(built(values=products, dtype=dtype, ir=ir, inputs=tuple(VALUES) if ir == 3 else ()))
    found = run(output.read_bytes())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-2) * np.ptp(wanted))
    assert np.ptp(run(proto) - found) > 0.1
    written = load(output)
    weights = {t.name: t.SerializeToString() for t in proto.graph.initializer}
    kept = {t.name: t.SerializeToString() for t in written.proto.graph.initializer if t.name in weights}
    assert kept == weights, "the weights themselves stay"
    for mask, again in zip(masks, read_masks(written), strict=True):
        assert (mask.key, mask.granularity, mask.weights.shape) == (again.key, again.granularity, again.weights.shape)
        np.testing.assert_array_equal(mask.weights.astype(dtype), again.weights.astype(dtype))
    strip_file(written, back)
    assert back.read_bytes() == path.read_bytes()
    assert not diff(hardened(model, masks), written)
    onnx.checker.check_model(written.proto)


def test_what_counts_as_a_kernel() -> None:
    model = load_bytes(built().SerializeToString())
    shapes = {p.name: granularity(KERNEL).shape(p) for p in list_weights(model)}
    assert shapes == {"conv.weight": (4, 2, 1, 1), "up.weight": (4, 3, 1, 1), "fc.weight": (5, 3), "last": (5, 4)}
    channels = {p.name: (p.shape[p.output_axis], p.shape[p.input_axis or 0]) for p in list_weights(model)}
    assert channels == {"conv.weight": (4, 2), "up.weight": (3, 4), "fc.weight": (5, 3), "last": (4, 5)}
    assert [p.name for p in list_weights(model, biases=True)][:2] == ["conv.weight", "conv.bias"]


def test_masks_at_activations_beside_masks_on_weights(tmp_path: Path) -> None:
    path, first, second = (tmp_path / name for name in ("model.onnx", "first.onnx", "second.onnx"))
    path.write_bytes(built().SerializeToString())
    model = load(path)
    on_weights = random_masks(model, (KERNEL,))
    at_tap = Mask("r", np.array([0, 1, 2, 0.5]))
    harden_file(model, [at_tap, *on_weights], first)
    assert stripped_bytes(load(first)) == path.read_bytes()
    harden_file(model, on_weights[:2], first, force=True)
    harden_file(load(first), [at_tap, *on_weights[2:]], second)
    assert stripped_bytes(load(second)) == path.read_bytes()
    np.testing.assert_allclose(
        run(second.read_bytes()), run(hardened(model, [at_tap, *on_weights]).proto), rtol=1e-5, atol=1e-5
    )


def test_a_weight_that_two_layers_read_is_masked_for_both() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w"], ["y"], name="second", pads=[1] * 4),
    ]
    values = {"w": RNG.normal(size=(2, 2, 3, 3))}
    model = load_bytes(built(nodes, values).SerializeToString())
    (mask,) = random_masks(model, (KERNEL,))
    made = hardened(model, [mask])
    assert [node.op_type for node in made.proto.graph.node] == ["Mul", "Conv", "Conv"]
    wanted = run(built(nodes, {"w": values["w"] * mask.weights}))
    np.testing.assert_allclose(run(made.proto), wanted, rtol=1e-4, atol=1e-4)
    assert stripped_bytes(made) == bytes(model.content)


def test_a_weight_that_comes_through_a_transpose() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flat"),
        helper.make_node("Transpose", ["w"], ["turned"], name="turn"),
        helper.make_node("MatMul", ["f", "turned"], ["y"], name="fc"),
    ]
    values = {"w": RNG.normal(size=(4, 72))}
    model = load_bytes(built(nodes, values).SerializeToString())
    (mask,) = random_masks(model, (KERNEL,))
    assert mask.tap == "turned"
    made = hardened(model, [mask])
    wanted = run(built(nodes, {"w": values["w"] * mask.weights.T}))
    np.testing.assert_allclose(run(made.proto), wanted, rtol=1e-4, atol=1e-4)
    assert stripped_bytes(made) == bytes(model.content)


def captured() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["last", "last"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    choice = helper.make_node("If", ["yes"], ["two"], name="choice", then_branch=body, else_branch=body)
    values = VALUES | {"yes": np.array(True)}
    proto = built([*NODES, choice])
    proto.graph.initializer.append(numpy_helper.from_array(values["yes"], "yes"))
    return proto


def embedded() -> onnx.ModelProto:
    proto = built([*NODES, helper.make_node("Gather", ["last", "rows"], ["more"], name="embedding")])
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
    return proto


def quantised() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flat"),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["last"], name="dequantise"),
        helper.make_node("MatMul", ["f", "last"], ["y"], name="fc"),
    ]
    proto = built(nodes, {"scale": np.array(0.1)})
    proto.graph.initializer.append(numpy_helper.from_array(RNG.integers(-9, 9, (72, 4)).astype(np.int8), "w"))
    return proto


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (captured, r"'last' is read inside the body of If \(node 'choice'\)"),
        (embedded, r"'last' is read by Gather \(node 'embedding'\) too"),
        (quantised, r"'last' is made by DequantizeLinear.*before it is quantised"),
    ],
)
def test_weights_that_are_refused(make: Callable[[], onnx.ModelProto], said: str) -> None:
    model = load_bytes(make().SerializeToString())
    assert "last" not in {place.name for place in list_weights(model)}
    with pytest.raises(TapError, match=said):
        find_weight(model, "last")


@pytest.mark.parametrize(("name", "said"), [("c", "computed from the data"), ("lust", "does not exist; did you mean")])
def test_what_is_no_weight(name: str, said: str) -> None:
    with pytest.raises(TapError, match=said):
        find_weight(load_bytes(built().SerializeToString()), name)


def test_masks_that_do_not_fit() -> None:
    model = load_bytes(built().SerializeToString())
    with pytest.raises(MaskError, match=r"has shape \(4, 2\), but one of kernel has \(4, 2, 1, 1\)"):
        hardened(model, [Mask("conv.weight", np.ones((4, 2)), granularity=KERNEL)])
    with pytest.raises(TapError, match=r"'conv.weight' is an initializer \(a weight\)"):
        hardened(model, [Mask("conv.weight", np.ones(4))])
    one = Mask("fc.weight", np.ones((5, 3)), granularity=KERNEL)
    with pytest.raises(MaskError, match="two masks"):
        hardened(model, [one, one])
    with pytest.raises(MaskError, match="'cornel' is no granularity"):
        granularity("cornel")


def test_layers_are_chosen_by_their_names() -> None:
    model = load_bytes(built().SerializeToString())
    assert [place.name for place in chosen_weights(model, patterns=["fc*", "up"])] == ["up.weight", "fc.weight"]
    with pytest.raises(TapError, match=r"layers blocks\.\* finds no weight"):
        chosen_weights(model, patterns=["blocks.*"])


def test_a_mask_that_was_moved_is_noticed() -> None:
    model = load_bytes(built().SerializeToString())
    made = hardened(model, random_masks(model, (KERNEL,)))
    entry = masks_of(made.proto)[0]
    assert isinstance(entry, WeightMaskEntry)
    bent = onnx.ModelProto()
    bent.CopyFrom(made.proto)
    next(n for n in bent.graph.node if n.name == entry.node).input[0] = "up.weight"
    with pytest.raises(CheckError, match="is not where the metadata says"):
        stripped_bytes(load_bytes(bent.SerializeToString()))


@pytest.mark.parametrize("write", [harden_file, fold_file])
def test_a_file_that_would_be_too_large(
    write: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if files ended one byte after the source: what would be larger is not written."""
    path, output = tmp_path / "model.onnx", tmp_path / "hardened.onnx"
    path.write_bytes(built().SerializeToString())
    model = load(path)
    monkeypatch.setattr(harden, "_MOST_BYTES", path.stat().st_size + 1)
    with pytest.raises(
        ModelError, match=r"with its masks the model file would be over 2 GB; (take masks|apply without)"
    ):
        write(model, random_masks(model, (WEIGHT,)), output)
    assert not output.exists()
    monkeypatch.setattr(harden, "_MOST_BYTES", path.stat().st_size - 1)
    write(model, random_masks(model, (WEIGHT,)), output)
    assert output.exists(), "a source that is over it already is written as before"
