"""Masks on the weights of real models, at every granularity: stripped, the file is the source to the byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.errors import ModelError, TapError
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.masks.granularity import granularity
from cloakonnx.graph.masks.harden import harden_file, hardened, strip_file
from cloakonnx.graph.masks.mask import KERNEL, ON_WEIGHTS, OUTPUT_CHANNEL, WEIGHT, Mask
from cloakonnx.graph.masks.strip import read_masks
from cloakonnx.graph.masks.weights import chosen_weights, list_weights
from tests.fixtures.real import assets_folder

from .test_float16_masks import optimised
from .test_round_trip_real import OLD, WHEEL
from .test_weight_masks import UNITS

MOST = 1 << 16
"""Numbers of the largest mask: above it, a weight has one for its output channels."""

READ_AGAIN = 4_000_000
"""Numbers of the largest weight that takes a mask: larger ones that other nodes make would not be read again."""

WITH_WEIGHTS = [name for name in WHEEL if name.startswith("light/")]
ASSETS = assets_folder()
PATHS = {name: WHEEL[name] for name in WITH_WEIGHTS} | {
    path.stem: path for path in sorted((ASSETS / "models").glob("*.onnx") if ASSETS else ())
}


def masks_on(model: Model, first: int) -> list[Mask]:
    """Return seeded masks on all weights and biases, one granularity after the other, every other one as float16."""
    rng = np.random.default_rng(0)
    found: list[Mask] = []
    for number, place in enumerate(list_weights(model, biases=True)):
        units = list(UNITS.values())[(first + number) % 3] if place.input_axis is not None else (WEIGHT,)
        if np.prod(granularity(units[0]).shape(place)) > MOST:
            units = (OUTPUT_CHANNEL,)
        if place.size <= READ_AGAIN:
            masks = [Mask(place.name, rng.uniform(0, 2, granularity(u).shape(place)), granularity=u) for u in units]
            found += [mask.as_float16() for mask in masks] if (first + number) % 2 else masks
    return found


@pytest.mark.parametrize("name", PATHS)
def test_strip_gives_the_source(name: str, tmp_path: Path) -> None:
    path, output, back = PATHS[name], tmp_path / "hardened.onnx", tmp_path / "back.onnx"
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    model = load(path)
    places = list_weights(model, biases=True)
    seen: set[str | None] = set()
    for first in range(3 if len(places) < FEW else 1):
        masks = masks_on(model, first)
        seen |= {mask.granularity for mask in masks}
        assert len(places) - len({mask.tap for mask in masks}) == LEFT_OUT.get(name, 0)
        harden_file(model, masks, output, force=True, hash_external=False)
        written = load(output)
        assert written.sha256 != wanted
        for mask, again in zip(masks, read_masks(written), strict=True):
            assert mask.key == again.key
            np.testing.assert_array_equal(mask.weights, again.weights)
        strip_file(written, back, force=True)
        assert hashlib.sha256(back.read_bytes()).hexdigest() == wanted
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted
    assert seen == ON_WEIGHTS


FEW = 20
"""Weights of a model that needs more than one round for every granularity to meet a weight that it suits."""


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("stored", ["own", "float16"])
@pytest.mark.parametrize("name", ["cifar10_resnet20", "cifar10_resnet20_dynamo", "mnist_cnn_raw"])
def test_onnx_runtime_runs_the_same_ops(name: str, stored: str, units: tuple[str, ...], tmp_path: Path) -> None:
    """All that masks add is computed when the session is made, so it costs no latency."""
    if name not in PATHS:
        pytest.skip("no real models: set CLOAKONNX_ASSETS")
    model = load(PATHS[name])
    rng = np.random.default_rng(0)
    masks = [
        Mask(place.name, rng.uniform(0.5, 1.5, granularity(unit).shape(place)), granularity=unit)
        for place in list_weights(model, biases=True)
        for unit in (units if place.input_axis is not None else (WEIGHT,))
    ]
    made = hardened(model, [mask.as_float16() for mask in masks] if stored == "float16" else masks)
    assert sum(node.op_type == "Mul" for node in made.proto.graph.node) >= len(masks)
    assert optimised(made, tmp_path / "a.onnx") == optimised(model, tmp_path / "b.onnx")


LEFT_OUT = {"light/light_bvlc_alexnet": 3, "light/light_vgg19": 3, "light/light_zfnet512": 2}
"""How many weights of over four million numbers, which these files make by ConstantOfShape, are left without a mask."""


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_would_not_be_read_again_is_not_written(name: str, tmp_path: Path) -> None:
    model = load(PATHS[name])
    place = max(list_weights(model), key=lambda each: each.size)
    mask = Mask(place.name, np.ones(granularity(OUTPUT_CHANNEL).shape(place)), granularity=OUTPUT_CHANNEL)
    with pytest.raises(
        ModelError, match=rf"with a mask on '{place.name}': ConstantOfShape .* from constants; the limit"
    ):
        harden_file(model, [mask], tmp_path / "hardened.onnx")
    assert not list(tmp_path.iterdir())


def test_the_others_of_the_wheel_are_refused_with_a_reason() -> None:
    """Those without weights, and those of an opset whose Mul does not broadcast."""
    without, old = 0, 0
    for name, path in WHEEL.items():
        if name in WITH_WEIGHTS:
            continue
        model = load(path)
        places = list_weights(model)
        if not places:
            without += 1
            with pytest.raises(TapError, match="has no Conv, ConvTranspose, Gemm, MatMul or recurrent layer with"):
                chosen_weights(model)
            continue
        assert name in OLD
        old += 1
        mask = Mask(places[0].name, np.ones(granularity(KERNEL).shape(places[0])), granularity=KERNEL)
        with pytest.raises(ModelError, match=r"uses opset 6; a mask needs opset 7 or later"):
            hardened(model, [mask])
    assert without + old + len(WITH_WEIGHTS) == len(WHEEL)
    assert old > 20
    assert without > 20
