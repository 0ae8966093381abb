"""The round trip on real models: those in the onnx wheel, the light ones at opset 17, and the assets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from cloakonnx.errors import CloakError, ModelError, TapError
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap, list_taps
from tests.fixtures.models import Feed, light_models_opset17, manifest, onnx_wheel_models, random_feed
from tests.fixtures.real import WHEEL_DATA
from tests.graph.helpers import assert_masked, mask_for, round_trip, tap_values, weights, whole_proto, write

ASSETS = manifest() or {}
LIGHT = sorted(path.stem for path in (WHEEL_DATA / "light").glob("*.onnx"))

_RANK_0 = "rank 0; a tap needs a batch axis and a feature axis"
_RANK_1 = "rank 1; a tap needs a batch axis and a feature axis"
_INTEGERS = "element type int64; a mask needs float16, bfloat16, float32 or float64"
_STRINGS = "element type string; a mask needs float16, bfloat16, float32 or float64"
NO_TAP = {
    "simple/test_gradient_of_add": _RANK_0,
    "simple/test_gradient_of_add_and_mul": _RANK_0,
    "simple/test_sequence_model6": _INTEGERS,
    "simple/test_sequence_model8": _INTEGERS,
    "simple/test_shrink": _RANK_1,
    "simple/test_sign_model": _RANK_1,
    "simple/test_strnorm_model_monday_casesensintive_lower": _STRINGS,
    "simple/test_strnorm_model_monday_casesensintive_nochangecase": _STRINGS,
    "simple/test_strnorm_model_monday_casesensintive_upper": _STRINGS,
    "simple/test_strnorm_model_monday_empty_output": _STRINGS,
    "simple/test_strnorm_model_monday_insensintive_upper_twodim": _STRINGS,
    "simple/test_strnorm_model_nostopwords_nochangecase": _STRINGS,
}
"""The wheel's models at opset 7 or later with nothing to mask, and why their output is refused."""

HEAVY = {"light/light_" + name for name in ("vgg19", "bvlc_alexnet", "zfnet512", "densenet121", "inception_v2")}
"""Their numbers are left out: they take seconds, and the other light models have the same operators."""


def key(path: Path) -> str:
    relative = path.relative_to(WHEEL_DATA)
    return str(relative.parent if path.name == "model.onnx" else relative.with_suffix(""))


@cache
def opset_of(path: Path) -> int:
    opsets = whole_proto(path).opset_import
    return next((each.version for each in opsets if each.domain in {"", "ai.onnx"}), 0)


WHEEL = {key(path): path for path in onnx_wheel_models() if "node" not in path.relative_to(WHEEL_DATA).parts}
"""All of them: older wheels have, besides, over a thousand models of one node."""

OLD = [name for name, path in WHEEL.items() if opset_of(path) < 7]
MASKABLE = [name for name in WHEEL if name not in {*OLD, *NO_TAP}]


def some_taps(source: Model, most: int = 3) -> list[str]:
    """The default tap, or the last one, and a few from all over the graph."""
    taps = [tap for tap in list_taps(source) if tap.features]
    chosen = [tap.name for tap in taps if tap.is_default] or [taps[-1].name]
    spread = np.linspace(0, len(taps) - 1, most, dtype=int)
    return list(dict.fromkeys([*chosen, *(taps[i].name for i in spread)]))[:most]


def assert_numbers(source: Path, model: Model, masks: Sequence[Mask], feed: Feed) -> None:
    """Compare the first masked tap only: the others' inputs may have been masked before them."""
    first = min(masks, key=lambda mask: find_tap(load(source), mask.tap).node)
    axis = find_tap(load(source), first.tap).feature_axis
    assert model.path is not None
    assert_masked(tap_values(source, first.tap, feed), tap_values(model.path, first.tap, feed), first, axis)


def feed_of(path: Path) -> Feed:
    """The inputs that the wheel's test has, else random ones."""
    feed = random_feed(whole_proto(path))
    for index, name in enumerate(feed):
        stored = path.parent / "test_data_set_0" / f"input_{index}.pb"
        if stored.is_file():
            feed[name] = numpy_helper.to_array(onnx.TensorProto.FromString(stored.read_bytes()))
    return feed


def test_the_lists_are_whole() -> None:
    assert {*NO_TAP, *OLD, *MASKABLE} == set(WHEEL)
    assert len(OLD) == 112
    assert len(MASKABLE) == 25


@pytest.mark.parametrize("name", MASKABLE)
def test_wheel(name: str, tmp_path: Path) -> None:
    path = WHEEL[name]
    source = load(path)
    masks = [mask_for(find_tap(source, tap), seed=i) for i, tap in enumerate(some_taps(source))]
    round_trip(path, masks[:1], tmp_path)
    for each in ("out.hardened.onnx", "out.stripped.onnx"):
        (tmp_path / each).unlink()
    model = round_trip(path, masks, tmp_path)
    if name not in HEAVY:
        assert_numbers(path, model, masks, feed_of(path))


@pytest.mark.parametrize("name", OLD)
def test_wheel_below_opset_7_is_refused(name: str, tmp_path: Path) -> None:
    source = load(WHEEL[name])
    output = source.proto.graph.output[0].name
    with pytest.raises(ModelError, match=r"uses opset [56]; a mask needs opset 7 or later"):
        harden_file(source, [Mask(output, weights(3))], tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NO_TAP)
def test_wheel_without_a_tap_is_refused(name: str, tmp_path: Path) -> None:
    source = load(WHEEL[name])
    assert list_taps(source) == []
    with pytest.raises(TapError, match="no default tap"):
        find_tap(source)
    output = source.proto.graph.output[0].name
    with pytest.raises(TapError, match=NO_TAP[name]):
        harden_file(source, [Mask(output, weights(3))], tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


@cache
def light(name: str) -> ModelProto:
    return dict(light_models_opset17())[name]


@pytest.mark.parametrize("name", LIGHT)
def test_light_at_opset_17(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, light(name))
    source = load(path)
    tap = find_tap(source)
    assert tap.is_default
    mask = mask_for(tap)
    model = round_trip(path, [mask], tmp_path)
    if name in {"light_squeezenet", "light_shufflenet"}:  # the quick ones; the others ran above at their own opset
        assert_numbers(path, model, [mask], random_feed(whole_proto(path)))


@pytest.mark.skipif(not ASSETS, reason="no assets: $CLOAKONNX_ASSETS or ../shared/assets")
@pytest.mark.parametrize("name", ASSETS)
def test_assets(name: str, tmp_path: Path) -> None:
    asset = ASSETS[name]
    source = load(asset.path)
    tap = find_tap(source)
    assert (tap.name, tap.features, tap.is_default) == (asset.tap, asset.features, True)
    mask = mask_for(tap, seed=3)
    model = round_trip(asset.path, [mask], tmp_path)
    feed = {asset.input_name: asset.inputs(asset.images(asset.batch or 4))}
    assert_numbers(asset.path, model, [mask], feed)
    for each in ("out.hardened.onnx", "out.stripped.onnx"):
        (tmp_path / each).unlink()
    masks = [mask_for(find_tap(source, tap), seed=i) for i, tap in enumerate(some_taps(source, 4))]
    model = round_trip(asset.path, masks, tmp_path)
    assert_numbers(asset.path, model, masks, feed)


@pytest.mark.parametrize("name", [*MASKABLE, *NO_TAP])
def test_every_listed_tap_can_be_masked(name: str, tmp_path: Path) -> None:
    """What list_taps offers, find_tap finds; every other tensor is refused with one line."""
    source = load(WHEEL[name])
    offered = {tap.name: tap for tap in list_taps(source)}
    for node in source.proto.graph.node[:20]:
        for tensor in filter(None, node.output):
            if tensor in offered:
                assert find_tap(source, tensor) == offered[tensor]
                continue
            with pytest.raises(CloakError) as caught:
                find_tap(source, tensor)
            assert "\n" not in str(caught.value)
            assert repr(tensor) in str(caught.value)
