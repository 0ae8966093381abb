"""The round trip on the made models: what real files lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cloakonnx.errors import MaskError, ModelError, TapError
from cloakonnx.graph.file.diff import diff
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import masks_of
from cloakonnx.graph.masks.strip import read_masks
from cloakonnx.graph.masks.taps import find_tap, list_taps
from tests.fixtures.models import FIXTURES, TAP, Fixture, mlp
from tests.graph.helpers import assert_masked, mask_for, round_trip, seed_of, tap_values, weights, whole_proto, write

EVERY = [pytest.param(each, id=each.name) for each in FIXTURES]
NO_DEFAULT = {"tap_first_output", "tap_second_output", "empty_optional_names"}
"""Their first output depends on no Gemm, MatMul or Conv with a computed input."""


@pytest.mark.parametrize("fixture", EVERY)
def test_named_tap(fixture: Fixture, tmp_path: Path) -> None:
    path = write(tmp_path, fixture.model)
    tap = find_tap(load(path), fixture.tap)
    assert tap.feature_axis == fixture.axis
    assert tap.features in {fixture.features, None}
    mask = mask_for(tap, fixture.features, seed_of(fixture.name))
    model = round_trip(path, [mask], tmp_path)
    np.testing.assert_array_equal(read_masks(model)[0].weights, _rounded(mask.weights, tap.dtype))
    assert model.path is not None
    if fixture.runs_in_ort:
        source = tap_values(path, fixture.tap, fixture.feed)
        assert_masked(source, tap_values(model.path, fixture.tap, fixture.feed), mask, fixture.axis)
    elif tap.dtype == "bfloat16":
        _assert_masked_in_the_reference(fixture, path, model.path, mask)


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return values.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)).astype(np.float32)
    return values.astype(dtype).astype(np.float32)


def _assert_masked_in_the_reference(fixture: Fixture, source: Path, masked: Path, mask: Mask) -> None:
    values = []
    for path in (source, masked):
        proto = whole_proto(path)
        proto.graph.output.add(name=fixture.tap)
        outputs = ReferenceEvaluator(proto).run([fixture.tap], fixture.feed)
        values.append(np.asarray(outputs[0]).astype(np.float32))
    wanted = _rounded(values[0] * _rounded(mask.weights, "bfloat16"), "bfloat16")
    np.testing.assert_array_equal(values[1], wanted)


@pytest.mark.parametrize("fixture", EVERY)
def test_default_tap(fixture: Fixture, tmp_path: Path) -> None:
    path = write(tmp_path, fixture.model)
    source = load(path)
    defaults = [tap.name for tap in list_taps(source) if tap.is_default]
    if fixture.name in NO_DEFAULT:
        assert not defaults
        with pytest.raises(TapError, match="no default tap"):
            find_tap(source)
        return
    tap = find_tap(source)
    assert defaults == [tap.name]
    if tap.name == fixture.tap:
        return  # test_named_tap has it
    mask = mask_for(tap, fixture.features, seed_of(fixture.name))
    model = round_trip(path, [mask], tmp_path)
    if fixture.runs_in_ort:
        assert model.path is not None
        values = [tap_values(each, tap.name, fixture.feed) for each in (path, model.path)]
        assert_masked(values[0], values[1], mask, tap.feature_axis)


@pytest.mark.parametrize("name", ["mlp", "nchw", "ir3_initializers_are_inputs", "tap_second_output", "function"])
def test_every_tap_at_once_and_one_after_the_other(name: str, tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == name)
    path = write(tmp_path, fixture.model)
    source = load(path)
    masks = [mask_for(tap, 6, i) for i, tap in enumerate(list_taps(source)) if tap.features]
    assert len(masks) >= 3
    at_once = round_trip(path, masks, tmp_path)
    current = path
    for index, mask in enumerate(masks):
        following = tmp_path / f"step{index}.onnx"
        harden_file(load(current), [mask], following)
        current = following
    assert at_once.path is not None
    assert current.read_bytes() == at_once.path.read_bytes()
    strip_file(load(current), tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()
    assert [entry.tap for entry in masks_of(at_once.proto)] == [mask.tap for mask in masks]


def test_masks_on_two_outputs_of_one_node(tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == "tap_second_output")
    path = write(tmp_path, fixture.model)
    masks = [Mask(name, weights(count, count)) for name, count in (("high", 3), ("low", 2), ("features", 4))]
    model = round_trip(path, masks, tmp_path)
    assert model.path is not None
    for mask in masks:
        values = [tap_values(each, mask.tap, fixture.feed) for each in (path, model.path)]
        assert_masked(values[0], values[1], mask, 1)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 4.0, -1.5, 1e-30])
def test_constant_masks(value: float, tmp_path: Path) -> None:
    fixture = FIXTURES[0]
    path = write(tmp_path, fixture.model)
    mask = Mask(fixture.tap, np.full(6, value, np.float32))
    model = round_trip(path, [mask], tmp_path)
    assert model.path is not None
    values = [tap_values(each, fixture.tap, fixture.feed) for each in (path, model.path)]
    assert_masked(values[0], values[1], mask, 1)


def test_explicit_feature_axis(tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == "nchw")
    path = write(tmp_path, fixture.model)
    mask = Mask(fixture.tap, weights(5), -1)
    model = round_trip(path, [mask], tmp_path)
    assert masks_of(model.proto)[0].feature_axis == 3
    assert model.path is not None
    values = [tap_values(each, fixture.tap, fixture.feed) for each in (path, model.path)]
    assert_masked(values[0], values[1], mask, 3)


def test_same_bytes_each_time(tmp_path: Path) -> None:
    source = load(write(tmp_path, mlp()))
    for name in ("a.onnx", "b.onnx"):
        harden_file(source, [Mask(TAP, weights(6))], tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_names_that_training_and_annotations_speak_of_are_not_taken(tmp_path: Path) -> None:
    """A new tensor of such a name would be bound or quantized with the old one's settings."""
    for name in ("training_info", "quantization_annotation", "names_taken_value_info"):
        fixture = next(each for each in FIXTURES if each.name == name)
        path = write(tmp_path, fixture.model, f"{name}.onnx")
        output = tmp_path / f"{name}.out.onnx"
        harden_file(load(path), [Mask(TAP, weights(6))], output)
        (entry,) = masks_of(load(output).proto)
        before = path.read_bytes()
        for new in (entry.unmasked, entry.initializer):
            assert b"\x0a" + bytes([len(new)]) + new.encode() not in before
            assert b"\x42" + bytes([len(new)]) + new.encode() not in before


def test_masked_again_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    harden_file(load(write(tmp_path, mlp())), [Mask(TAP, weights(6))], output)
    model = load(output)
    assert {tap.name for tap in list_taps(model)} == {"hidden", "logits"}
    for name in (TAP, "features_unmasked"):
        with pytest.raises(TapError, match=f"'{name}' is already masked; strip the model first"):
            harden_file(model, [Mask(name, weights(6))], tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "there is no mask to insert"),
        ([(TAP, 6), (TAP, 6)], "'features' has two masks"),
        ([(TAP, 5)], "mask for 'features' has 5 weights, but the tensor has 6 features on axis 1"),
    ],
)
def test_masks_that_do_not_fit(masks: list[tuple[str, int]], message: str, tmp_path: Path) -> None:
    source = load(write(tmp_path, mlp()))
    with pytest.raises(MaskError, match=message):
        harden_file(source, [Mask(tap, weights(count)) for tap, count in masks], tmp_path / "out.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("values", [[], [[]], 1.0, [1.0, np.nan], [np.inf], ["a"], [1e39], [1j]])
def test_weights_that_are_no_mask(values: object) -> None:
    with pytest.raises(MaskError, match="'tap'"):
        Mask("tap", np.array(values))


def test_weight_that_overflows_the_tap(tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == "float16")
    with pytest.raises(MaskError, match="overflows float16"):
        harden_file(load(write(tmp_path, fixture.model)), [Mask(TAP, np.full(6, 1e6))], tmp_path / "out.onnx")


def test_metadata_without_masks_is_refused(tmp_path: Path) -> None:
    """Masks taken out by hand, with what they were recorded under left behind: nothing could be stripped."""
    made = mlp()
    made.metadata_props.add(key="cloakonnx.stripped_sha256", value="0" * 64)
    source = load(write(tmp_path, made))
    with pytest.raises(ModelError, match="has cloakonnx metadata"):
        harden_file(source, [Mask(TAP, weights(6))], tmp_path / "out.onnx")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"tap": "features"}]', "[" * 100_000, '{"a": [}', "null"])
def test_damaged_metadata(text: str, tmp_path: Path) -> None:
    made = mlp()
    made.metadata_props.add(key="cloakonnx.masks", value=text)
    source = load(write(tmp_path, made))
    with pytest.raises(ModelError, match=r"'cloakonnx.masks' is damaged|carries no cloakonnx masks"):
        strip_file(source, tmp_path / "out.onnx")
    assert diff(source, source) == []
