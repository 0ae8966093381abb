"""Folded files are as large as the source: digests stand for masks that both weights tell, and no change passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from cloakonnx.errors import CheckError, ModelError
from cloakonnx.evaluation.verification.attestation import AttestedMask, attest
from cloakonnx.evaluation.verification.verify import Verification, verify
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.fold._absorb import rounded
from cloakonnx.graph.fold.fold import fold_file, folding, refolded
from cloakonnx.graph.fold.recorded import factors, read_masks
from cloakonnx.graph.masks.mask import KERNEL, WEIGHT, Mask
from cloakonnx.graph.masks.metadata import folded_masks, given_text
from cloakonnx.graph.masks.strip import found_masks
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.scoring.analysis import Analysis, SampleSet
from tests.graph.masks.test_weight_masks import VALUES, built, random_masks
from tests.support.classifiers import cpu

WIDE = 256
FIRST, LAST = (np.random.default_rng(seed).normal(size=(WIDE, WIDE)) / 16 for seed in (1, 2))


def wide(tmp_path: Path) -> Model:
    """Two MatMuls of 512 KiB."""
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h"]), helper.make_node("MatMul", ["h", "last"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", WIDE])],
        [helper.make_tensor_value_info("y", 1, ["n", WIDE])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in (("first", FIRST), ("last", LAST))],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return load(path)


def written(model: Model, masks: list[Mask], tmp_path: Path) -> Model:
    fold_file(model, masks, tmp_path / "folded.onnx")
    return load(tmp_path / "folded.onnx")


@pytest.mark.parametrize("unit", [WEIGHT, KERNEL])
def test_the_file_is_as_large_as_the_source(unit: str, tmp_path: Path) -> None:
    model = wide(tmp_path)
    made = written(model, random_masks(model, (unit,)), tmp_path)
    assert len(made.buf) < 1.01 * len(model.buf)


def analysis(model: Model, masks: list[Mask]) -> Analysis:
    samples = SampleSet(clean="x", adversarial=None, count=1, largest_difference=0.1, hashes=("0" * 16,))
    return Analysis(
        model_name=model.name,
        model_sha256=model.sha256,
        preprocessing=Preprocessing(),
        samples=samples,
        provider="CPUExecutionProvider",
        masks=tuple(masks),
    )


def status(found: Verification) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


def test_verification_with_and_without_the_masks(tmp_path: Path) -> None:
    model = wide(tmp_path)
    masks = random_masks(model, (WEIGHT,))
    made = written(model, masks, tmp_path)
    assert verify(cpu(made), source=model).passed
    right = verify(cpu(made), source=model, analysis=analysis(model, masks))
    assert right.passed and status(right)["analysis"] == "passed"
    wrong = verify(cpu(made), source=model, analysis=analysis(model, others(model)))
    assert status(wrong)["analysis"] == "failed"


def others(model: Model) -> list[Mask]:
    return [replace(mask, weights=mask.weights + 1) for mask in random_masks(model, (WEIGHT,))]


def changed(made: Model, path: Path, name: str, by: float) -> onnx.ModelProto:
    proto = onnx.load(made.path or path)
    tensor = next(each for each in proto.graph.initializer if each.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[3, 5] += np.float32(by)
    tensor.raw_data = values.tobytes()
    return proto


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    model = wide(tmp_path)
    made = written(model, random_masks(model, (WEIGHT,)), tmp_path)
    bent = tmp_path / "bent.onnx"
    onnx.save(changed(made, bent, "last", 1e-3), bent)
    found = verify(cpu(load(bent)), source=model)
    assert status(found)["structure"] == "failed"
    said = next(check.detail for check in found.checks if check.name == "structure")
    assert "the weight 'last' is not the one that the metadata records" in said
    with pytest.raises(CheckError, match="not the one that the metadata records"):
        read_masks(load(bent), model)


def test_other_weights_do_not_pass_as_those_of_an_analysis(tmp_path: Path) -> None:
    """Somebody folds other masks and leaves the digests of the right ones."""
    model = wide(tmp_path)
    masks = random_masks(model, (WEIGHT,))
    right = folded_masks(written(model, masks, tmp_path).proto)
    fold_file(model, others(model), tmp_path / "other.onnx")
    proto = onnx.load(tmp_path / "other.onnx")
    entry = next(each for each in proto.metadata_props if each.key == "cloakonnx.folded")
    mixed = [replace(a, sha256=b.sha256, removed=b.removed) for a, b in zip(folded_masks(proto), right, strict=True)]  # type: ignore[type-var, union-attr]
    entry.value = given_text(mixed)
    onnx.save(proto, tmp_path / "mixed.onnx")
    found = status(verify(cpu(load(tmp_path / "mixed.onnx")), source=model, analysis=analysis(model, masks)))
    assert found["analysis"] == "passed" and found["structure"] == "failed"


def test_a_weight_that_is_no_product(tmp_path: Path) -> None:
    model = wide(tmp_path)
    zeroed = changed(model, tmp_path / "zeroed.onnx", "last", -float(np.float32(LAST[3, 5])))
    onnx.save(zeroed, tmp_path / "zeroed.onnx")
    made = written(model, random_masks(model, (WEIGHT,)), tmp_path)
    found = verify(cpu(made), source=load(tmp_path / "zeroed.onnx"))
    said = next(check.detail for check in found.checks if check.name == "structure")
    assert "is not that of zeroed.onnx times a mask" in said


def test_what_is_said_without_the_source(tmp_path: Path) -> None:
    model = wide(tmp_path)
    masks = random_masks(model, (WEIGHT,))
    made = written(model, masks, tmp_path)
    with pytest.raises(ModelError, match=r"the numbers of 2 masks \('first' first\) are in its weights only"):
        read_masks(made)
    assert found_masks(made) == ([], None)
    again = read_masks(made, model)
    assert [(mask.tap, mask.granularity, mask.weights.shape) for mask in again] == [
        (mask.tap, mask.granularity, mask.weights.shape) for mask in masks
    ]
    attested = attest(made, model, settings={}).masks
    assert attested == tuple(map(AttestedMask.of, masks))


def test_masks_that_share_a_weight_are_recorded_in_numbers() -> None:
    model = load_of(built())
    at_tap = Mask("r", np.random.default_rng(0).uniform(0.5, 2, 4))
    weights = np.random.default_rng(1).uniform(0, 2, VALUES["up.weight"].shape)
    masks = [at_tap, Mask("up.weight", weights, granularity=WEIGHT)]
    listed = json.loads(folding(model, masks).edit.metadata["cloakonnx.folded"])
    assert ["weights" in each for each in listed] == [True, True]


def load_of(proto: onnx.ModelProto) -> Model:
    return load_bytes(proto.SerializeToString())


def test_files_with_all_numbers_are_read_as_ever(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    model = wide(tmp_path)
    masks = random_masks(model, (WEIGHT,))
    proto = onnx.load(written(model, masks, tmp_path).path or "")
    next(each for each in proto.metadata_props if each.key == "cloakonnx.folded").value = given_text(masks)
    onnx.save(proto, tmp_path / "old.onnx")
    old = load(tmp_path / "old.onnx")
    assert refolded(old, model).sha256 == old.sha256
    assert verify(cpu(old), source=model).passed
    for mask, again in zip(masks, found_masks(old)[0], strict=True):
        np.testing.assert_array_equal(mask.weights, again.weights)


DAMAGES = {
    "a shape of text": {"shape": ["4"]},
    "a negative size": {"shape": [-1, 4]},
    "no shape": {"shape": []},
    "more removed than there are": {"removed": 10**9},
    "no digest": {"folded_sha256": "no"},
    "no granularity": {"granularity": "feature"},
    "a field too many": {"more": 1},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_records(damage: dict[str, object], tmp_path: Path) -> None:
    model = wide(tmp_path)
    proto = onnx.load(written(model, random_masks(model, (WEIGHT,)), tmp_path).path or "")
    entry = next(each for each in proto.metadata_props if each.key == "cloakonnx.folded")
    listed = json.loads(entry.value)
    entry.value = json.dumps([listed[0] | damage, *listed[1:]])
    with pytest.raises(ModelError, match="is damaged: it is not a list of masks"):
        folded_masks(proto)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([np.float64, np.float32, np.float16, ml_dtypes.bfloat16]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-44, 1e-7, 1.0, 1e3]),
    st.sampled_from([1e-7, 1.0, 4.0]),
)
def test_factors_make_the_same_products(dtype: type, seed: int, size: float, most: float) -> None:
    """Down to subnormal products, with zeros on both sides: where factors are found, they do it to the bit."""
    rng = np.random.default_rng(seed)
    old = (size * rng.normal(size=500)).astype(dtype)
    old[::7] = 0
    kind = np.float32 if np.dtype(dtype).itemsize >= 4 else dtype
    masks = rng.uniform(0, most, 500).astype(kind)
    masks[::5] = 0
    new = rounded(old.astype(np.float64) * masks.astype(np.float64), np.dtype(dtype))
    found = factors(old, new)
    assert found is not None
    again = rounded(old.astype(np.float64) * found.astype(np.float64), np.dtype(dtype))
    assert again.tobytes() == new.tobytes()


def test_no_factor_makes_something_of_nothing() -> None:
    assert factors(np.zeros(3, np.float32), np.array([0, 1, 0], np.float32)) is None
    assert factors(np.array([1e-40], np.float32), np.array([1e30], np.float32)) is None
