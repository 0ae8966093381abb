"""The main line on a real model: analyze, apply, verify, and accuracy before and after, as a user would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

from cloakonnx.classifier.classifier import Classifier, class_count, input_shape
from cloakonnx.data.samples import Dataset
from cloakonnx.data.sources import open_source
from cloakonnx.evaluation.accuracy import accuracy
from cloakonnx.graph.file.model import load
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.runtime.provider import choose_provider
from cloakonnx.statistics import Accuracy
from tests.fixtures import models


@pytest.fixture(scope="module")
def asset() -> models.Asset:
    found = models.manifest()
    if found is None or "cifar10_resnet20" not in found:
        pytest.skip("the real models and data are not beside the checkout (set CLOAKONNX_ASSETS)")
    return found["cifar10_resnet20"]


def cloakonnx(folder: Path, *arguments: object) -> str:
    """Run a verb in a folder and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "cloakonnx", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def measured(path: Path, samples: Path | None) -> Accuracy:
    assert samples is not None
    model = load(path)
    dataset = Dataset(open_source(samples), Preprocessing(), input_shape(model), classes=class_count(model))
    classifier = Classifier(model, provider=choose_provider("cpu"), preprocessing=dataset.preprocessing)
    return accuracy(classifier, dataset)


def test_main_line(asset: models.Asset, tmp_path: Path) -> None:
    source = tmp_path / "cifar10_resnet20.onnx"
    source.write_bytes(asset.path.read_bytes())
    said = cloakonnx(
        tmp_path, "analyze", source, "--data", asset.train, "--limit", 2000, "--adversarial", asset.train_adversarial
    )
    assert "64 features, deepcloak on 2000 pairs" in said
    assert "removed 3 of 64 features" in cloakonnx(tmp_path, "apply", source, "--remove", "5%")
    hardened = tmp_path / "cifar10_resnet20.hardened.onnx"
    said = cloakonnx(tmp_path, "verify", hardened, "--source", source, "--data", asset.test, "--limit", 64)
    assert "FAIL" not in said
    assert f"{hardened.name} is {source.name} with its masks" in said
    cloakonnx(tmp_path, "strip", hardened, "-o", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == source.read_bytes() == asset.path.read_bytes()

    before = [measured(source, samples) for samples in (asset.test, asset.test_adversarial)]
    after = [measured(hardened, samples) for samples in (asset.test, asset.test_adversarial)]
    print(f"clean {before[0]} -> {after[0]}; static FGSM {before[1]} -> {after[1]}")
    # Counts as the manifest has them; one sample more or less is another machine's rounding.
    assert abs(before[0].correct - 551) <= 1
    assert abs(before[1].correct - 110) <= 2
    assert [each.count for each in before + after] == [600] * 4
    # Three of 64 features: DeepCloak's masks move accuracy by a point or two either way (static, not robustness).
    assert abs(after[0].value - before[0].value) < 0.03
    assert abs(after[1].value - before[1].value) < 0.05
