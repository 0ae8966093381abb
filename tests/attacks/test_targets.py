"""Classes to reach: chosen for each sample, counted where reached already, refused where they make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloakonnx as ck
from cloakonnx.attacks.targets import Targets
from cloakonnx.errors import CloakError, DataError, OptionError
from tests.attacks.helpers import DIGITS, digits_arrays

COUNT = 24
EPS = 4 / 16


@pytest.fixture(scope="module")
def classifier() -> ck.Classifier:
    return ck.Classifier(DIGITS, provider=ck.Provider("CPUExecutionProvider"))


def data() -> tuple[Any, Any]:
    x, y = digits_arrays()
    return x[:COUNT], y[:COUNT]


def attacked(classifier: ck.Classifier, targets: Any, **options: Any) -> Any:
    return ck.attack(classifier, data(), "pgd", eps=EPS, max_iter=10, targets=targets, **options)


def test_one_class(classifier: ck.Classifier) -> None:
    x, y = data()
    found = attacked(classifier, 3)
    assert (found.target == 3).all()
    assert (found.y == y).all(), "labels stay what they are"
    there = classifier.predict(x) == 3
    assert found.count - found.correct == there.sum()
    assert (
        found.target_hint
        == f"{there.sum()} of {COUNT} samples are classified as the target already, and are not attacked"
    )
    assert ((classifier.predict(found.x) == 3) == found.success | there).all()
    assert found.robust == (~found.success & ~there).sum()


@pytest.mark.parametrize("targets", ["random", "least-likely"])
def test_chosen_for_each_sample(classifier: ck.Classifier, targets: str) -> None:
    x, y = data()
    found = attacked(classifier, targets)
    assert (found.target != y).all()
    assert len(set(map(int, found.target))) > 1
    reached = classifier.predict(found.x) == found.target
    assert (reached[found.success]).all()
    assert found.success.any()
    if targets == "least-likely":
        scores = classifier.logits(x)
        scores[np.arange(COUNT), y] = np.inf
        assert (found.target == scores.argmin(axis=1)).all()


def test_random_ones_depend_on_the_seed_and_not_on_the_batch(classifier: ck.Classifier) -> None:
    first = attacked(classifier, "random", batch_size=5).target
    assert (first == attacked(classifier, "random", batch_size=24).target).all()
    assert (first != attacked(classifier, "random", seed=1).target).any()


def test_given_for_each_sample(classifier: ck.Classifier, tmp_path: Path) -> None:
    wanted = (data()[1] + 1) % 10
    np.save(tmp_path / "t.npy", wanted)
    for targets in (wanted, tmp_path / "t.npy", str(tmp_path / "t.npy")):
        assert (attacked(classifier, targets).target == wanted).all()
    assert attacked(classifier, "labels").target is None, "the labels are the targets"


def test_the_file_holds_them(classifier: ck.Classifier, tmp_path: Path) -> None:
    attacked(classifier, "least-likely", output=tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert set(arrays) == {"x", "y", "target", "success", "settings"}
        assert '"targets": "least-likely"' in str(arrays["settings"])
        assert (arrays["y"] == data()[1]).all()


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        (10, OptionError, "targets has class 10, but the model has 10, counted from 0"),
        (-1, OptionError, "classes are counted from 0"),
        ("randm", OptionError, "did you mean 'random'"),
        ("t.txt", OptionError, "nor an .npy file"),
        (np.arange(5), DataError, "there are 5 targets for 24 samples"),
        (np.arange(24.0), DataError, "not a class from 0 on for each sample"),
        (np.full(24, 12), OptionError, "has class 12"),
    ],
)
def test_refused(classifier: ck.Classifier, targets: Any, error: type[CloakError], said: str) -> None:
    with pytest.raises(error, match=said):
        attacked(classifier, targets)


def test_nothing_left_to_reach(classifier: ck.Classifier) -> None:
    x, _ = data()
    with pytest.raises(DataError, match="all 24 samples are classified as their target already"):
        attacked(classifier, classifier.predict(x))
    with pytest.raises(DataError, match="targets random, least-likely or a class takes others"):
        ck.attack(classifier, (x, classifier.predict(x)), "pgd", eps=EPS, targets="labels")


def test_an_attack_without_a_targeted_form(classifier: ck.Classifier) -> None:
    with pytest.raises(OptionError, match="apgd-t has no targeted form"):
        ck.attack(classifier, data(), "apgd-t", eps=EPS, targets=1)


def test_what_a_choice_records() -> None:
    assert [Targets.of(each).record for each in (3, "7", "random")] == [3, 7, "random"]
    assert len(str(Targets.of(np.arange(3)).record)) == 64
