"""The whole job on models of kinds that version 0.1.0 stopped at: gradients, default tap, masks, learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cloakonnx as ck
from cloakonnx.classifier.abilities import abilities
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.file.model import Model, load, load_bytes
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.selection.learn.places import first_masks
from tests.fixtures import kinds
from tests.support.classifiers import cpu

MADE = {make.__name__: make() for make in kinds.KINDS}


def opened(name: str) -> tuple[Model, ck.Classifier, np.ndarray, np.ndarray]:
    kind = MADE[name]
    model = load_bytes(kind.proto.SerializeToString())
    classifier = cpu(model, output_name=kind.output)
    x = np.random.default_rng(0).random((4, *kind.shape)).astype(np.float32)
    return model, classifier, x, classifier.predict(x)


@pytest.mark.parametrize("name", MADE)
def test_gradients_are_the_slope_of_the_loss(name: str) -> None:
    _, classifier, x, y = opened(name)
    passes = MADE[name].quantised
    found = classifier.answer(x, y, loss=Loss.CE, straight_through=passes)
    gradient = np.asarray(found.gradient, np.float64)
    assert np.abs(gradient).max() > 1e-6
    if passes:
        return
    direction = gradient / np.abs(gradient).max() + np.random.default_rng(1).normal(size=x.shape) * 0.3
    wanted = (gradient * direction).reshape(len(x), -1).sum(axis=1)

    def slope(step: float) -> np.ndarray:
        ends = [classifier.answer((x + h * direction).astype(np.float32), y, loss=Loss.CE) for h in (step, -step)]
        return (ends[0].loss.astype(np.float64) - ends[1].loss) / (2 * step)

    off = np.min([np.abs(slope(step) - wanted) for step in (1e-2, 1e-3, 3e-4)], axis=0)  # between the kinks of Relu
    assert (off <= 0.05 * np.abs(wanted) + 1e-3).all()


@pytest.mark.parametrize("name", MADE)
def test_what_inspect_says_holds(name: str, tmp_path: Path) -> None:
    kind = MADE[name]
    model, classifier, x, y = opened(name)
    attack, analyze, learn = abilities(model)
    assert attack.works
    assert attack.how.startswith("straight through" if kind.quantised else "by gradients")
    assert analyze.works == (kind.tap is not None)
    assert learn.works == (kind.tap is not None)
    if kind.tap is None:
        return
    tap = find_tap(model)
    assert (tap.name, tap.feature_axis) == (kind.tap, kind.axis)
    mask = ones(tap)
    weights = np.linspace(0.5, 1.5, mask.weights.size, dtype=np.float32)
    (tmp_path / "m.onnx").write_bytes(kind.proto.SerializeToString())
    source = load(tmp_path / "m.onnx")
    ck.apply(source, [replace(mask, weights=weights)], tmp_path / "hardened.onnx")
    hardened = cpu(load(tmp_path / "hardened.onnx"), output_name=kind.output)
    assert np.abs(hardened.scores(x) - classifier.scores(x)).max() > 1e-4
    ck.strip(load(tmp_path / "hardened.onnx"), tmp_path / "stripped.onnx")
    assert (tmp_path / "stripped.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    if learn.how.startswith("on "):
        masks = first_masks(model, "weight")
    else:
        masks = first_masks(model, "feature", taps=[str(kind.tap)] if learn.option.startswith("--tap") else [])
    learner = MaskedClassifier(classifier, masks)
    learner.prepare_masks(Loss.CE, by_input=True, sample=x.shape[1:])
    sums = learner.mask_gradients(x, y, loss=Loss.CE).gradients
    assert max(np.abs(each).max() for each in sums.values()) > 1e-6
