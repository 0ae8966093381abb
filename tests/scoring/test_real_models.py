"""Scores of the manifest's models against plain numpy, to 1e-6 relative."""

from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.scoring.analyze import analyze
from tests.fixtures import models

from .reference import CRITERIA, activations, relative_difference, scores, with_noise

NAMES = (
    "cifar10_resnet20", "cifar10_resnet20_dynamo", "cifar10_resnet20_raw", "cifar10_resnet56", "mnist_cnn_raw",
    "mnist_cntk_ir3", "text_direction_rapidocr",
)  # fmt: skip
COUNT = 20


def asset(name: str) -> models.Asset:
    found = models.manifest()
    if found is None or name not in found:
        pytest.skip(f"the real model {name} is not beside the checkout (set CLOAKONNX_ASSETS)")
    return found[name]


@cache
def samples(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = asset(name).images(COUNT)
    return images, with_noise(images)


@cache
def raw(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = asset(name)
    proto = onnx.load(known.path)
    clean, adversarial = (activations(proto, known.tap, known.input_name, known.inputs(x)) for x in samples(name))
    return clean, adversarial


def analysed(name: str, criterion: str, batch_size: int) -> Analysis:
    known = asset(name)
    preprocessing = Preprocessing(scale=known.scale, mean=known.mean, std=known.std)
    classifier = Classifier(known.path, preprocessing=preprocessing, provider=choose_provider("cpu"))
    clean, adversarial = (
        Dataset.of(ArraySource(kind, x, None), classifier)
        for kind, x in zip(("clean", "adversarial"), samples(name), strict=True)
    )
    return analyze(
        classifier,
        FittedPairs(clean, adversarial),
        criterion=criterion,
        batch_size=batch_size,
    )


@pytest.mark.parametrize(("criterion", "batch_size"), list(zip(CRITERIA, (7, 20, 64), strict=True)))
@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_numpy(name: str, criterion: str, batch_size: int) -> None:
    known, (clean, adversarial) = asset(name), raw(name)
    result = analysed(name, criterion, batch_size)
    assert result.scores is not None
    assert result.scores.tap == known.tap
    assert result.scores.scores.shape == (known.features,)
    assert result.scores.values_per_feature == clean.size // known.features
    wanted = scores(clean, adversarial, result.scores.feature_axis, criterion)
    assert wanted.max() > 0
    assert relative_difference(result.scores.scores, wanted) <= 1e-6
    assert result.samples.largest_difference == pytest.approx(4 / 255, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("name", ["cifar10_resnet20", "mnist_cntk_ir3"])
def test_every_batch_size_gives_the_same(name: str, batch_size: int) -> None:
    clean, adversarial = raw(name)
    for criterion in CRITERIA:
        found = analysed(name, criterion, batch_size).scores
        assert found is not None
        wanted = scores(clean, adversarial, found.feature_axis, criterion)
        assert relative_difference(found.scores, wanted) <= 1e-6
