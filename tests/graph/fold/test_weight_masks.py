"""Masks on weights multiplied into the weights: the numbers, what stays a Mul and why, and how it is verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cloakonnx.errors import MaskError, ModelError, TapError
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.fold.fold import fold_file, folded, folding, refolded
from cloakonnx.graph.fold.recorded import read_masks
from cloakonnx.graph.masks.harden import harden_file, hardened
from cloakonnx.graph.masks.mask import KERNEL, OUTPUT_CHANNEL, WEIGHT, Mask
from tests.graph.helpers import stripped_bytes
from tests.graph.masks.test_weight_masks import NODES, RNG, UNITS, VALUES, built, random_masks, run
from tests.support.classifiers import cpu

CASES = [(np.float32, 8), (np.float16, 8), (np.float32, 3)]


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize(("dtype", "ir"), CASES)
def test_the_weights_are_the_products(units: tuple[str, ...], dtype: type, ir: int, tmp_path: Path) -> None:
    proto = built(dtype=dtype, ir=ir, inputs=tuple(VALUES) if ir == 3 else ())
    path, output, mul = (tmp_path / name for name in ("model.onnx", "folded.onnx", "mul.onnx"))
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    masks = random_masks(model, units, biases=True)
    fates = fold_file(model, masks, output)
    harden_file(model, masks, mul)
    assert all(fate.folded and fate.layers for fate in fates)
    made = load(output)
    assert [n.op_type for n in made.proto.graph.node] == [n.op_type for n in proto.graph.node]
    wanted = {name: value.astype(dtype).astype(np.float64) for name, value in VALUES.items()}
    for mask in masks:
        wanted[mask.tap] = wanted[mask.tap] * mask.weights.astype(dtype).astype(np.float64)
    for tensor in made.proto.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), wanted[tensor.name].astype(dtype))
    found, expected = run(output.read_bytes()), run(mul.read_bytes())
    tolerance = 1e-6 if dtype == np.float32 else 1e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.ptp(expected))
    assert refolded(made, model).sha256 == made.sha256
    for mask, again in zip(masks, read_masks(made, model), strict=True):
        assert mask.key == again.key
        if mask.size < VALUES[mask.tap].size:
            np.testing.assert_array_equal(mask.weights, again.weights)
        else:
            np.testing.assert_allclose(again.weights, mask.weights, rtol=1e-6 if dtype == np.float32 else 2e-3)
    with pytest.raises(ModelError, match="is folded: its masks are in the weights"):
        stripped_bytes(made)
    onnx.checker.check_model(made.proto)


def test_verification_folds_again(tmp_path: Path) -> None:
    path, output, bent = (tmp_path / name for name in ("model.onnx", "folded.onnx", "bent.onnx"))
    path.write_bytes(built().SerializeToString())
    model = load(path)
    fold_file(model, random_masks(model, (KERNEL,), biases=True), output)
    found = verify(cpu(load(output)), source=model)
    assert found.passed
    assert {check.name: check.status for check in found.checks}["numbers"] == "passed"
    changed = onnx.load(output)
    weight = next(t for t in changed.graph.initializer if t.name == "fc.weight")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] += 1
    weight.raw_data = values.tobytes()
    onnx.save(changed, bent)
    assert not verify(cpu(load(bent)), source=model).passed


def tied() -> onnx.ModelProto:
    """The layer reads the transpose of what a Gather reads, too."""
    nodes = [helper.make_node("Transpose", ["table"], ["last"], name="turn"), *NODES]
    nodes.append(helper.make_node("Gather", ["table", "rows"], ["more"], name="embedding"))
    proto = built(nodes, {name: value for name, value in VALUES.items() if name != "last"})
    proto.graph.initializer.append(numpy_helper.from_array(VALUES["last"].T.astype(np.float32).copy(), "table"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
    return proto


def fed() -> onnx.ModelProto:
    return built(inputs=("last",))


def given_out() -> onnx.ModelProto:
    proto = built()
    proto.graph.output.append(helper.make_tensor_value_info("last", 1, [5, 4]))
    return proto


def computed() -> onnx.ModelProto:
    nodes = [helper.make_node("Cast", ["half"], ["last"], name="widen", to=1), *NODES]
    proto = built(nodes, {name: value for name, value in VALUES.items() if name != "last"})
    proto.graph.initializer.append(numpy_helper.from_array(VALUES["last"].astype(np.float16), "half"))
    return proto


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (tied, "its weight 'table' is used elsewhere, by Gather node 'embedding'"),
        (fed, "its weight 'last' is an input of the model that a caller may feed"),
        (given_out, "its weight 'last' is an output of the model"),
        (computed, "its weight 'last' is computed by Cast node 'widen'"),
    ],
)
def test_what_stays_a_mul(make: Callable[[], onnx.ModelProto], said: str) -> None:
    model = load_bytes(make().SerializeToString())
    masks = random_masks(model, (KERNEL,))
    found = folding(model, masks)
    assert {fate.tap: fate.reason for fate in found.fates if not fate.folded} == {"last": said}
    made = folded(model, masks)
    assert [n.op_type for n in made.proto.graph.node].count("Mul") == 1
    wanted = run(hardened(model, masks).proto)
    np.testing.assert_allclose(run(made.proto), wanted, rtol=0, atol=1e-6 * np.ptp(wanted))
    assert refolded(made, model).sha256 == made.sha256
    alone = folding(model, [mask for mask in masks if mask.tap == "last"])
    assert not alone.edit.replace_initializers, "nothing folds: as without --fold"
    assert "cloakonnx.kind" not in alone.edit.metadata


def test_a_weight_that_two_layers_read_changes_for_both() -> None:
    nodes = [*NODES, helper.make_node("MatMul", ["g", "last"], ["more"], name="again")]
    nodes.append(helper.make_node("Mul", ["y", "more"], ["square"], name="product"))
    model = load_bytes(built(nodes, outputs=("square",)).SerializeToString())
    masks = random_masks(model, (KERNEL,))
    found = {fate.tap: fate for fate in folding(model, masks).fates}
    assert found["last"].layers == ("MatMul node 'last_layer'", "MatMul node 'again'")
    products = VALUES | {mask.tap: VALUES[mask.tap] * mask.weights for mask in masks}
    wanted = run(built(nodes, products, outputs=("square",)))
    made = folded(model, masks)
    np.testing.assert_allclose(run(made.proto), wanted, rtol=0, atol=1e-5 * np.ptp(wanted))
    assert len(made.proto.graph.node) == len(nodes)


def test_verification_of_masks_on_weights_that_can_not_change(tmp_path: Path) -> None:
    path, output = tmp_path / "model.onnx", tmp_path / "hardened.onnx"
    path.write_bytes(given_out().SerializeToString())
    model = load(path)
    harden_file(model, [Mask("r", np.array([1, 2, 0, 1])), *random_masks(model, (KERNEL,))], output)
    found = verify(cpu(load(output)), source=model)
    said = [check.detail for check in found.checks if check.name == "numbers" and "weights" in check.detail]
    assert found.passed
    assert len(said) == 1
    assert "; the mask on 'last' is a Mul node in both: its weight 'last' is an output of the model" in said[0]


def held_by_a_node() -> onnx.ModelProto:
    held = numpy_helper.from_array(VALUES["last"].astype(np.float32), "last")
    nodes = [helper.make_node("Constant", [], ["last"], name="held", value=held), *NODES]
    return built(nodes, {name: value for name, value in VALUES.items() if name != "last"})


def turned() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Reshape", ["flat", "rows"], ["square"], name="reshape"),
        helper.make_node("Transpose", ["square"], ["last"], name="turn"),
        *NODES,
    ]
    proto = built(nodes, {name: value for name, value in VALUES.items() if name != "last"})
    flat = np.ascontiguousarray(VALUES["last"].T.astype(np.float32)).reshape(-1)
    proto.graph.initializer.append(numpy_helper.from_array(flat, "flat"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([4, 5]), "rows"))
    return proto


@pytest.mark.parametrize("make", [held_by_a_node, turned])
def test_constant_nodes_and_views_take_their_masks(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    assert np.allclose(run(proto), run(built())), "the same model, with its last weight held otherwise"
    model = load_bytes(proto.SerializeToString())
    masks = random_masks(model, (KERNEL,))
    assert all(fate.folded for fate in folding(model, masks).fates)
    products = VALUES | {mask.tap: VALUES[mask.tap] * mask.weights for mask in masks}
    wanted = run(built(values=products))
    np.testing.assert_allclose(run(folded(model, masks).proto), wanted, rtol=0, atol=1e-5 * np.ptp(wanted))
    assert not any(n.op_type == "Mul" for n in folded(model, masks).proto.graph.node)


def test_masks_on_weights_beside_masks_at_activations() -> None:
    """The mask at ``r`` goes into the weight behind it, which has one of its own; that at ``g`` follows suit."""
    model = load_bytes(built().SerializeToString())
    rng = np.random.default_rng(3)
    masks = [
        Mask("r", rng.uniform(0.5, 2, 4)),
        *random_masks(model, (WEIGHT,), biases=True),
        Mask("g", np.array([1, 0, 1, 2, 0.5])),
    ]
    found = folding(model, masks)
    assert all(fate.folded for fate in found.fates)
    assert [fate.tap for fate in found.fates] == [mask.tap for mask in masks]
    made = folded(model, masks)
    wanted = run(hardened(model, masks).proto)
    np.testing.assert_allclose(run(made.proto), wanted, rtol=0, atol=1e-5 * np.ptp(wanted))
    assert len(made.proto.graph.node) == len(NODES)
    assert refolded(made, model).sha256 == made.sha256


def test_ones_change_nothing() -> None:
    model = load_bytes(built().SerializeToString())
    (fate,) = folding(model, [Mask("last", np.ones((5, 4)), granularity=KERNEL)]).fates
    assert fate.folded and not fate.layers
    assert (
        run(folded(model, [Mask("last", np.ones((5, 4)), granularity=KERNEL)]).proto).tolist()
        == run(model.proto).tolist()
    )


def refused(model: Model, masks: list[Mask], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        folding(model, masks)


def test_what_does_not_fit_is_refused() -> None:
    model = load_bytes(built(dtype=np.float16).SerializeToString())
    one = Mask("last", RNG.random((5, 4)), granularity=KERNEL)
    refused(model, [one, one], MaskError, "two masks")
    refused(model, [Mask("last", np.ones((4, 5)), granularity=KERNEL)], MaskError, "has shape")
    refused(model, [Mask("lust", np.ones((5, 4)), granularity=KERNEL)], TapError, "does not exist")
    steep = [Mask("last", np.full(shape, 6e4), granularity=unit) for unit, shape in
             ((OUTPUT_CHANNEL, (1, 4)), ("input-channel", (5, 1)))]  # fmt: skip
    refused(model, steep, MaskError, "would overflow float16; apply the masks without fold")
