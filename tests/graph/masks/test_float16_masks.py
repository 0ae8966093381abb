"""Masks on weights stored as float16: half the bytes, the numbers rounded and no others, nothing left to run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from cloakonnx.errors import CheckError, MaskError
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.fold.fold import folding
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import FEATURE, KERNEL, WEIGHT, Mask, largest_relative_error
from cloakonnx.graph.masks.metadata import WeightMaskEntry, masks_of
from cloakonnx.graph.masks.strip import read_masks, reinserted
from tests.graph.helpers import stripped_bytes
from tests.support.classifiers import cpu

from .test_weight_masks import UNITS, VALUES, built, random_masks, run

RNG = np.random.default_rng(5)


def optimised(model: Model, path: Path) -> Counter[str]:
    """Return the ops that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(bytes(model.content[:]), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("ir", [3, 8])
def test_the_products_are_of_the_rounded_numbers(units: tuple[str, ...], ir: int, tmp_path: Path) -> None:
    inputs = tuple(VALUES) if ir == 3 else ()
    path, output, back = (tmp_path / name for name in ("model.onnx", "hardened.onnx", "back.onnx"))
    path.write_bytes(built(ir=ir, inputs=inputs).SerializeToString())
    model = load(path)
    exact = random_masks(model, units, biases=True)
    masks = [mask.as_float16() for mask in exact]
    harden_file(model, masks, output)
    products = {name: value.astype(np.float32) for name, value in VALUES.items()}
    for mask in exact:
        products[mask.tap] = products[mask.tap] * mask.weights.astype(np.float16).astype(np.float32)
    wanted = run(built(values=products, ir=ir, inputs=inputs))
    np.testing.assert_allclose(run(output.read_bytes()), wanted, rtol=0, atol=1e-5 * np.ptp(wanted))
    written = load(output)
    if ir == 8:
        stored = {t.name: t for t in written.proto.graph.initializer if t.name.endswith("_mask")}
        assert {t.data_type for t in stored.values()} == {onnx.TensorProto.FLOAT16}
        assert optimised(written, tmp_path / "a.onnx") == optimised(model, tmp_path / "b.onnx")
    for mask, again in zip(masks, read_masks(written), strict=True):
        assert again.is_float16
        assert again.key == mask.key
        np.testing.assert_array_equal(mask.weights, again.weights)
    assert not diff(reinserted(written), written)
    strip_file(written, back)
    assert back.read_bytes() == path.read_bytes()
    onnx.checker.check_model(written.proto)
    found = verify(cpu(written), source=model)
    assert found.passed
    assert all(check.status == "passed" for check in found.checks)


def test_the_file_is_smaller() -> None:
    values = {"w": RNG.normal(size=(72, 400))}
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    model = load_bytes(built(nodes, values).SerializeToString())
    (mask,) = random_masks(model, (WEIGHT,))
    wide, narrow = (len(hardened(model, [each]).content) for each in (mask, mask.as_float16()))
    assert 72 * 400 * 2 - 200 < wide - narrow <= 72 * 400 * 2


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_weights(dtype: type, tmp_path: Path) -> None:
    """A weight of two bytes takes a mask of its own type; one of eight a Cast."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"], name="fc")]
    model = load_bytes(built(nodes, {"w": RNG.normal(size=(72, 4))}, dtype=dtype).SerializeToString())
    (mask,) = random_masks(model, (KERNEL,))
    made = hardened(model, [mask.as_float16()])
    ops = [node.op_type for node in made.proto.graph.node]
    assert ops.count("Cast") == (dtype == np.float64)
    (stored,) = (t for t in made.proto.graph.initializer if t.name == "w_mask")
    np.testing.assert_array_equal(numpy_helper.to_array(stored), mask.weights.astype(np.float16))
    assert stripped_bytes(made) == bytes(model.content)
    assert not diff(reinserted(made), made)


def test_beside_masks_of_full_precision() -> None:
    model = load_bytes(built().SerializeToString())
    first, *others = random_masks(model, (KERNEL,))
    made = hardened(hardened(model, [first]), [*(mask.as_float16() for mask in others), Mask("r", np.ones(4))])
    kinds = [entry.cast is not None for entry in masks_of(made.proto) if isinstance(entry, WeightMaskEntry)]
    assert kinds == [False, True, True, True]
    assert stripped_bytes(made) == bytes(model.content)
    assert not diff(reinserted(made), made)


def test_the_error_is_that_of_rounding() -> None:
    weights = np.array([[1.0, 1 + 2.0**-12, 3.0, 1e-3], [0.1, 2.0**-24, 1e-9, 0]], np.float32)
    exact = Mask("w", weights, granularity=WEIGHT)
    errors = [abs(float(np.float16(value)) - float(value)) / float(value) for value in weights.flat if value]
    assert largest_relative_error([(exact, exact.as_float16())]) == max(errors) == 1
    inside = Mask("w", weights[:, :2], granularity=WEIGHT)
    assert largest_relative_error([(inside, inside.as_float16())]) < 2.0**-11
    assert largest_relative_error([(exact, exact)]) == 0


def test_what_float16_can_not_hold() -> None:
    with pytest.raises(MaskError, match="overflows float16"):
        Mask("w", np.array([[7e4]]), granularity=WEIGHT).as_float16()
    with pytest.raises(MaskError, match="at an activation"):
        Mask("r", np.ones(4), granularity=FEATURE).as_float16()
    with pytest.raises(MaskError, match="fold it as it was"):
        model = load_bytes(built().SerializeToString())
        folding(model, [mask.as_float16() for mask in random_masks(model, (KERNEL,))])


def bent(model: Model, change: str) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    cast = next(node for node in proto.graph.node if node.op_type == "Cast")
    if change == "input":
        cast.input[0] = next(n.input[0] for n in proto.graph.node if n.op_type == "Cast" and n is not cast)
    elif change == "op":
        cast.op_type = "CastLike"
    else:
        cast.attribute[0].i = onnx.TensorProto.DOUBLE
    return load_bytes(proto.SerializeToString())


@pytest.mark.parametrize("change", ["input", "op", "type"])
def test_a_changed_cast_is_noticed(change: str) -> None:
    model = load_bytes(built().SerializeToString())
    made = bent(hardened(model, [mask.as_float16() for mask in random_masks(model, (KERNEL,))]), change)
    if change == "type":
        assert any("Cast" in str(each) for each in diff(reinserted(made), made))
    else:
        with pytest.raises(CheckError, match="is not where the metadata says"):
            reinserted(made)
