"""A classifier with masks of its own: what measures takes the file that would ship, the rest refuses."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import cloakonnx as ck
from cloakonnx.attacks import PGD
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.selection.learn.recipe import Recipe
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.support.classifiers import cpu

MASK = Mask("/6/Relu_output_0", np.r_[np.zeros(20), np.ones(44)].astype(np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x, y = digits_arrays()
    np.savez(tmp_path / "d.npz", x=x[:24], y=y[:24])
    return tmp_path


def data(folder: Path, classifier: Classifier) -> ck.records.Dataset:
    return ck.records.Dataset.of(folder / "d.npz", classifier)


def test_an_evaluation_is_of_the_file_that_would_ship(folder: Path) -> None:
    plain = cpu(DIGITS)
    masked, written = plain.with_masks([MASK]), cpu(hardened(plain.model, [MASK]))
    options = {"eps": [0.1], "attack": "fgsm", "sanity": False}
    found, wanted = (ck.evaluate(each, data(folder, each), **options) for each in (masked, written))  # type: ignore[arg-type]
    assert found.to_json() == wanted.to_json()
    assert [mask.removed for mask in found.masks] == [20]
    assert found.model.sha256 != found.baseline.sha256


def test_an_attack_names_the_file_that_would_ship(folder: Path) -> None:
    plain = cpu(DIGITS)
    masked = plain.with_masks([MASK])
    found = ck.attack(masked, data(folder, masked), output=folder / "a.npz", attack=PGD(eps=0.1, max_iter=3))
    assert found.settings["model_sha256"] == hardened(plain.model, [MASK]).sha256


def test_what_would_leave_masks_out_refuses(folder: Path) -> None:
    masked = cpu(DIGITS).with_masks([MASK])
    samples = data(folder, masked)
    for call in (
        lambda: ck.analyze(masked, ck.Pairs(samples, samples)),
        lambda: ck.learn(masked, samples, Recipe(eps=0.1, budget=0.1)),
        lambda: ck.select_greedy(masked, samples, budget=0.1, attack=PGD(eps=0.1)),
        lambda: ck.verify(masked),
    ):
        with pytest.raises(ck.CloakError, match="takes a classifier without masks of its own"):
            call()


def test_a_copy_shares_the_sessions() -> None:
    classifier = cpu(DIGITS).with_masks([MASK])
    other = copy.copy(classifier)
    assert other.sessions is classifier.sessions
    assert other.masks == classifier.masks
