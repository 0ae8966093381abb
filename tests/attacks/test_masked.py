"""One classifier, many masks: it gives what the hardened model of each mask gives, from the same sessions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cloakonnx.attacks.base import make
from cloakonnx.errors import MaskError, TapError
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import load, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.runtime.session import to_numpy
from tests.fixtures.core import mlp

from .helpers import DIGITS, convolution, digits_arrays, flat, victim_of


def weights(features: int, *removed: int) -> np.ndarray:
    made = np.ones(features, np.float32)
    made[list(removed)] = 0
    return made


MODELS = [
    pytest.param(flat(4), "a", 16, (12,), id="float"),
    pytest.param(flat(4, dtype=np.float64), "a", 16, (12,), id="double"),
    pytest.param(flat(4, dtype=np.float16), "a", 16, (12,), id="half"),
    pytest.param(convolution(nhwc=False), "r", 8, (3, 8, 8), id="channels"),
]


@pytest.mark.parametrize(("made", "tap", "features", "shape"), MODELS)
def test_what_the_hardened_model_gives(made: onnx.ModelProto, tap: str, features: int, shape: tuple[int, ...]) -> None:
    loaded = load_bytes(made.SerializeToString())
    rng = np.random.default_rng(0)
    x = rng.random((20, *shape)).astype(np.float32)
    shared = victim_of(loaded, masks=[Mask(tap, weights(features))])
    bare = victim_of(loaded)
    y = bare.predict(x)
    np.testing.assert_allclose(shared.logits(x), bare.logits(x), rtol=1e-5, atol=1e-5)
    is_half = made.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    for removed in ((0,), (1, 2, 5)):
        mask = Mask(tap, weights(features, *removed))
        masked, alone = shared.of(shared.classifier.with_masks([mask])), victim_of(hardened(loaded, [mask]))
        assert masked.classifier.sessions is shared.classifier.sessions
        # A float16 model's derived graphs round where the hardened file does not.
        slack = (2e-3, 2e-3) if is_half else (1e-4, 1e-6)
        found, wanted = (v.gradient(x, y, loss=Loss.CE.climbed) for v in (masked, alone))
        np.testing.assert_allclose(found.logits, wanted.logits, *slack)
        np.testing.assert_allclose(to_numpy(found.gradient), to_numpy(wanted.gradient), *slack)
        assert np.abs(found.logits - bare.logits(x)).max() > 1e-2
        np.testing.assert_array_equal(masked.predict(x), alone.predict(x))


def test_attacks_of_one_session_fool_the_hardened_model() -> None:
    x, y = digits_arrays()
    x, y = x[:40], y[:40]
    loaded, tap = load(DIGITS), "/6/Relu_output_0"
    shared = victim_of(loaded, sample_shape=(1, 8, 8), masks=[Mask(tap, weights(64))])
    settings = make("pgd", eps=0.1, max_iter=5)
    robust = []
    for removed in ((), tuple(range(0, 40, 2))):
        mask = Mask(tap, weights(64, *removed))
        masked, alone = shared.of(shared.classifier.with_masks([mask])), victim_of(hardened(loaded, [mask]))
        found = settings.run(masked, x, y)
        np.testing.assert_array_equal(alone.predict(found.x) != y, found.success)
        assert masked.counts.gradients > 0
        robust.append(int((~found.success).sum()))
    assert shared.counts.total == 0
    assert robust[0] != robust[1]


def test_a_fixed_batch() -> None:
    made = flat(3)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    loaded, mask = load_bytes(made.SerializeToString()), Mask("a", weights(16, 3, 4))
    x = np.random.default_rng(0).random((10, 12)).astype(np.float32)
    masked = victim_of(loaded, masks=[mask])
    alone = victim_of(hardened(loaded, [mask]))
    np.testing.assert_allclose(masked.logits(x), alone.logits(x), rtol=1e-5)


def test_masks_that_do_not_fit() -> None:
    loaded = load_bytes(mlp().SerializeToString())
    with pytest.raises(TapError, match="does not exist"):
        victim_of(loaded, masks=[Mask("featurs", weights(6))])
    with pytest.raises(MaskError, match="has 5 weights, but the tensor has 6"):
        victim_of(loaded, masks=[Mask("features", weights(5))])
    shared = victim_of(loaded, masks=[Mask("features", weights(6))])
    with pytest.raises(MaskError, match="has 7 weights"):
        shared.classifier.with_masks([Mask("features", weights(7))])
    with pytest.raises(MaskError, match="two masks at tap 'features'"):
        shared.classifier.with_masks([Mask("features", weights(6))] * 2)
    x = np.random.default_rng(0).random((5, 4)).astype(np.float32)
    for others in ([], [Mask("hidden", weights(6, 1))]):
        other = shared.of(shared.classifier.with_masks(others))
        alone = victim_of(hardened(loaded, others) if others else loaded)
        np.testing.assert_allclose(other.logits(x), alone.logits(x), rtol=1e-5)
        assert other.classifier.sessions is not shared.classifier.sessions
