"""Real models, where the assets are: known numbers, preprocessing, fixed batch, open height and width."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.attacks.base import make
from cloakonnx.attacks.methods.apgd import APGDCE, APGDDLR, APGDT
from cloakonnx.attacks.methods.pgd import FGSM, PGD
from cloakonnx.attacks.methods.square import Square
from cloakonnx.attacks.run import Adversarial
from cloakonnx.gradient.losses import Loss
from tests.fixtures.real import Asset, manifest

from .helpers import asset_pixels, asset_victim

FGSM_COUNTS = {1: 269, 2: 173, 4: 110, 8: 89}
"""Of 600, at eps in 1/255: from the manifest of the assets."""


def asset(name: str) -> Asset:
    found = (manifest() or {}).get(name)
    if found is None:
        pytest.skip("no real models and data: CLOAKONNX_ASSETS")
    return found


def start(name: str, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    labels = asset(name).labels(count)
    assert labels is not None
    return asset_pixels(asset(name), count), labels


def test_fgsm_as_a_framework_computes_it() -> None:
    """The counts of the manifest, and the stored adversarial inputs, which torch made."""
    entry = asset("cifar10_resnet20")
    x, y = start("cifar10_resnet20", 600)
    classifier = asset_victim(entry)
    for level, count in FGSM_COUNTS.items():
        parts = [
            FGSM(eps=level / 255, loss=Loss.CE_SOFTMAX).run(classifier, x[i : i + 150], y[i : i + 150])
            for i in range(0, 600, 150)
        ]
        assert abs(sum(int((~part.success).sum()) for part in parts) - count) <= 3
        if level == 4:
            assert entry.test_adversarial is not None
            adversarial = np.rint(np.concatenate([part.x for part in parts]).transpose(0, 2, 3, 1) * 255)
            stored = entry.images(600, entry.test_adversarial)
            assert (adversarial == stored).mean() >= 0.999
            exact = FGSM(eps=4 / 255).run(classifier, x[:50], y[:50])
            assert (~exact.success).sum() < (~parts[0].success[:50]).sum()  # saturated samples keep their gradient


def test_who_is_stronger_on_resnet20() -> None:
    x, y = start("cifar10_resnet20", 24)
    classifier = asset_victim(asset("cifar10_resnet20"))
    eps = 1 / 255

    def robust(found: Adversarial) -> int:
        return int((~found.success).sum())

    single = robust(FGSM(eps=eps).run(classifier, x, y))
    walked = robust(PGD(eps=eps, max_iter=10).run(classifier, x, y))
    adaptive = [
        robust((APGDCE if loss is Loss.CE else APGDDLR)(eps=eps, max_iter=10).run(classifier, x, y))
        for loss in (Loss.CE, Loss.DLR)
    ]
    targeted = robust(APGDT(eps=eps, max_iter=4).run(classifier, x, y))
    black = robust(Square(eps=eps, max_iter=60).run(classifier, x, y))
    noise = robust(make("noise", eps=eps).run(classifier, x, y))
    assert max(walked, targeted, *adaptive) <= min(single, black)
    assert max(single, black) <= noise
    reached = PGD(eps=8 / 255, max_iter=8, targeted=True).run(classifier, x, (y + 1) % 10)
    assert reached.success.mean() > 0.9


def test_preprocessing_outside_the_model() -> None:
    """The ResNet without its normalisation, given --mean and --std, fares as the one that has it inside."""
    x, y = start("cifar10_resnet20", 24)
    inside, outside = (asset_victim(asset(name)) for name in ("cifar10_resnet20", "cifar10_resnet20_raw"))
    one, two = (FGSM(eps=2 / 255).run(each, x, y) for each in (inside, outside))
    assert (np.abs(one.x - two.x) < 1e-6).mean() > 0.999
    one, two = (PGD(eps=1 / 255, max_iter=5).run(each, x, y) for each in (inside, outside))
    assert (one.success != two.success).sum() <= 1


def test_preprocessing_of_one_channel() -> None:
    x, y = start("mnist_cnn_raw", 60)
    classifier = asset_victim(asset("mnist_cnn_raw"))
    assert (classifier.predict(x) == y).mean() > 0.95
    single, walked = FGSM(eps=0.15).run(classifier, x, y), PGD(eps=0.15, max_iter=10).run(classifier, x, y)
    assert walked.success.sum() >= single.success.sum() > 5
    assert np.abs(walked.x - x).max() <= 0.15 + 1e-6


def test_a_batch_fixed_at_1() -> None:
    """Its logits are hundreds apart, so the cross-entropy is 0 in float32; attacks that increase it still go on."""
    x, y = start("mnist_cntk_ir3", 12)
    classifier = asset_victim(asset("mnist_cntk_ir3"))
    assert (classifier.predict(x) == y).mean() > 0.9
    assert (classifier.gradient(x, y, loss=Loss.CE).loss == 0).mean() > 0.5
    black = Square(eps=0.25, max_iter=50).run(classifier, x, y).success.sum()
    assert black > 0
    moved = FGSM(eps=0.25).run(classifier, x, y)
    assert (np.abs(moved.x - x).reshape(len(x), -1).max(axis=1) > 0).all()
    for found in (
        PGD(eps=0.25, max_iter=10).run(classifier, x, y),
        APGDCE(eps=0.25, max_iter=10).run(classifier, x, y),
        APGDDLR(eps=0.25, max_iter=10).run(classifier, x, y),
    ):
        np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)
        assert found.success.sum() >= max(black, moved.success.sum())


def test_open_height_and_width() -> None:
    entry = asset("text_direction_rapidocr")
    classifier = asset_victim(entry)
    assert classifier.classes == 2
    x = asset_pixels(entry, 6)
    y = classifier.predict(x)
    found = PGD(eps=8 / 255, max_iter=10).run(classifier, x, y)
    np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)
    assert found.success.all()
