"""verify passes what was hardened honestly, and says what it could not check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from cloakonnx.classifier.classifier import input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import open_source
from cloakonnx.errors import DataError, ModelError
from cloakonnx.evaluation.verification.verify import verify
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file, strip_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap, list_taps
from cloakonnx.preprocessing import Preprocessing
from tests.evaluation.helpers import MASK, checked, failures, flip, harden, statuses, weight, write
from tests.fixtures.models import FIXTURES, TAP, Fixture, manifest, mlp, write_external
from tests.support.classifiers import cpu

ASSETS = manifest() or {}
ALL = {"masks in place", "mask values", "metadata", "source", "structure", "external data", "numbers"}
RUNNING = [pytest.param(each, id=each.name) for each in FIXTURES if each.runs_in_ort]
STRUCTURE_ONLY = [pytest.param(each, id=each.name) for each in FIXTURES if not each.runs_in_ort]


@pytest.mark.parametrize("fixture", RUNNING)
def test_honest(fixture: Fixture, tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", fixture.model)
    tap = find_tap(load(source), fixture.tap)
    weights = np.resize(MASK, fixture.features)
    model = harden(source, Mask(tap.name, weights, tap.feature_axis))
    result = checked(model, source)
    assert not failures(result)
    wanted = dict.fromkeys(ALL, "passed")
    if len(load(source).inputs) > 1:
        wanted["numbers"] = "not checked"
    assert statuses(result) == wanted
    assert result.passed
    alone = checked(model)
    assert alone.passed
    trusted = {"source", "structure", "external data"}
    assert statuses(alone) == wanted | dict.fromkeys(trusted, "not checked")
    details = {check.detail for check in alone.checks if check.name in trusted}
    assert details == {
        "no trusted reference given; name the source with --source or its attestation with --attestation"
    }


@pytest.mark.parametrize("fixture", STRUCTURE_ONLY)
def test_honest_but_not_to_be_run(fixture: Fixture, tmp_path: Path) -> None:
    """Nothing is said of numbers where the source itself does not run; a mask that alone does not run is told."""
    source = write(tmp_path / "source.onnx", fixture.model)
    result = checked(harden(source, Mask(fixture.tap, MASK)), source)
    found = statuses(result)
    assert set(found.values()) <= {"passed", "not checked", "failed"}
    numbers = found.pop("numbers")
    assert set(found.values()) == {"passed"}
    if "bfloat16" in fixture.name:  # ONNX Runtime has a Cast to bfloat16 but no Mul
        assert numbers == "failed"
        assert "Mul" in failures(result)["numbers"]
    elif numbers == "not checked":
        (detail,) = (check.detail for check in result.checks if check.name == "numbers")
        assert detail.startswith("the model without this mask does not run: ")


def test_several_masks(tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == "nchw")
    source = write(tmp_path / "source.onnx", fixture.model)
    masks = [Mask(tap.name, np.resize(MASK, tap.features)) for tap in list_taps(load(source)) if tap.features]
    at_once = checked(harden(source, *masks), source)
    assert at_once.passed
    assert sum(check.name == "numbers" for check in at_once.checks) == len(masks) >= 4
    step = harden(source, masks[0], output="step.onnx")
    one_by_one = checked(harden(step, *masks[1:], output="both.onnx"), source)
    assert [check.detail for check in one_by_one.checks] == [check.detail for check in at_once.checks]
    assert not checked(tmp_path / "both.onnx", step).passed, "made from the source, not from the step between"


def test_two_masks_after_one_node(tmp_path: Path) -> None:
    fixture = next(each for each in FIXTURES if each.name == "tap_second_output")
    source = write(tmp_path / "source.onnx", fixture.model)
    masks = [Mask("low", [0, 2]), Mask("features", [1, 0, 0.5, 3])]  # type: ignore[arg-type]
    assert checked(harden(source, *masks), source).passed
    step = harden(source, masks[0], output="step.onnx")
    assert checked(harden(step, masks[1], output="both.onnx"), source).passed


def test_a_mask_of_many_features(tmp_path: Path) -> None:
    """Its values stay in the file, as other large weights do."""
    fixture = next(each for each in FIXTURES if each.name == "raw_data_4_mib")
    source = write(tmp_path / "source.onnx", fixture.model)
    assert checked(harden(source, Mask(TAP, np.resize(MASK, 2048))), source).passed


def test_external_data(tmp_path: Path) -> None:
    source = write_external(tmp_path / "a")
    assert checked(harden(source), source).passed
    (tmp_path / "b").mkdir()
    copy = tmp_path / "b" / "hardened.onnx"
    harden_file(load(source), [Mask(TAP, MASK)], copy, hash_external=False)
    result = checked(copy, source)
    assert result.passed
    assert next(c.detail for c in result.checks if c.name == "external data") == "2 files have the same content"
    data = bytearray((copy.parent / "external.data").read_bytes())
    data[7] ^= 4
    (copy.parent / "external.data").write_bytes(data)
    assert "'external.data' differs from the source's" in failures(checked(copy, source))["external data"]


def test_external_data_gone(tmp_path: Path) -> None:
    source = write_external(tmp_path / "a")
    (tmp_path / "b").mkdir()
    copy = tmp_path / "b" / "hardened.onnx"
    harden_file(load(source), [Mask(TAP, MASK)], copy, hash_external=False)
    made = ModelProto.FromString(copy.read_bytes())
    target = next(each for each in made.graph.initializer if each.name == "w2")
    target.ClearField("external_data")
    target.ClearField("data_location")
    target.raw_data = (copy.parent / "weights" / "w2.bin").read_bytes()
    (copy.parent / "weights" / "w2.bin").unlink()
    write(copy, made)
    found = failures(checked(copy, source))
    assert "external data 'weights/w2.bin' removed (held 1 initializer" in found["structure"]
    assert "external data" not in found, "it is not asked for any more"


def test_an_odd_encoding_of_the_source(tmp_path: Path) -> None:
    """A length with a byte more than it needs: the hardened model is made from protobuf's own encoding."""
    made = mlp()
    graph = made.graph.SerializeToString()
    made.ClearField("graph")
    source = tmp_path / "source.onnx"
    source.write_bytes(made.SerializeToString() + b"\x3a" + _padded(len(graph)) + graph)
    assert checked(harden(source), source).passed


def _padded(value: int) -> bytes:
    assert 128 <= value < 2**14
    return bytes([value & 127 | 128, value >> 7 | 128, 0])


def test_on_given_samples(tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", mlp())
    model = load(harden(source))
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((70, 4), np.float32))
    samples = Dataset(open_source(tmp_path / "data.npz"), Preprocessing(), input_shape(model))
    result = verify(cpu(model), source=load(source), samples=samples)
    assert result.passed
    assert "70 samples" in result.checks[-1].detail


def test_samples_that_are_unusable_are_no_verdict(tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", mlp())
    model = load(harden(source))
    np.savez(tmp_path / "data.npz", x=np.full((3, 4), 7, np.float32))
    with pytest.raises(DataError):
        verify(cpu(model), samples=Dataset(open_source(tmp_path / "data.npz"), Preprocessing(), input_shape(model)))


@pytest.mark.skipif(not ASSETS, reason="no assets: $CLOAKONNX_ASSETS or ../shared/assets")
@pytest.mark.parametrize("name", ASSETS)
def test_assets(name: str, tmp_path: Path) -> None:
    asset = ASSETS[name]
    target = tmp_path / "hardened.onnx"
    harden_file(load(asset.path), [Mask(asset.tap, np.resize(MASK, asset.features))], target)
    result = checked(target, asset.path)
    assert set(statuses(result).values()) == {"passed"}, failures(result)


def test_not_finite_activations(tmp_path: Path) -> None:
    """Log of negative values: NaN in both models is no difference, and infinity makes no tolerance."""
    nodes = [helper.make_node("Sub", ["logits", "one"], ["less"]), helper.make_node("Log", ["less"], ["odd"])]
    made = mlp(
        nodes, [helper.make_tensor_value_info("odd", 1, ["N", 3])], [numpy_helper.from_array(np.float32(1), "one")]
    )
    source = write(tmp_path / "source.onnx", made)
    assert checked(harden(source, Mask("odd", [0, 1, 2])), source).passed  # type: ignore[arg-type]


def test_a_source_that_is_not_the_one(tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", mlp())
    model = harden(source)
    other = mlp()
    flip(weight(other, "w2"))
    result = checked(model, write(tmp_path / "other.onnx", other))
    assert "other.onnx has sha256" in failures(result)["source"]
    assert "initializer 'w2' changed (raw_data)" in failures(result)["structure"]
    assert not result.passed


def test_a_model_without_masks(tmp_path: Path) -> None:
    source = write(tmp_path / "source.onnx", mlp())
    with pytest.raises(ModelError, match="carries no cloakonnx masks"):
        checked(source)
    back = tmp_path / "back.onnx"
    strip_file(load(harden(source)), back)
    with pytest.raises(ModelError, match="carries no cloakonnx masks"):
        checked(back)
    found = failures(checked(back, source))
    assert "carries no cloakonnx masks" in found["metadata"]
    assert found["structure"] == "it is source.onnx itself"
