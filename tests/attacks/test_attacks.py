"""Every attack on the sample model: what is weaker than what, and what each promises."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from cloakonnx.attacks.ball import Norm, ball
from cloakonnx.attacks.base import make
from cloakonnx.attacks.methods.apgd import APGDCE
from cloakonnx.attacks.methods.pgd import FGSM, PGD
from cloakonnx.attacks.run import Adversarial
from cloakonnx.attacks.victim import Victim
from cloakonnx.errors import DataError, DifferentiationError, OptionError
from cloakonnx.gradient.losses import Loss
from cloakonnx.runtime.provider import Provider
from cloakonnx.runtime.session import Session

from .helpers import digits, flat, victim

EPS: dict[Norm, float] = {"linf": 1.5 / 16, "l2": 0.6}
COUNT = 100
QUICK: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "pgd": {"max_iter": 8},
    "apgd-ce": {"max_iter": 8},
    "apgd-dlr": {"max_iter": 8},
    "apgd-t": {"max_iter": 2},
    "fab-t": {"max_iter": 3},
    "square": {"max_iter": 40},
    "noise": {},
}
BOTH_NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
EVERY = pytest.mark.parametrize("attack", list(QUICK))


@cache
def attacked(attack: str, norm: Norm = "linf", **options: Any) -> Adversarial:
    classifier, x, y = digits(COUNT)
    return make(attack, eps=options.pop("eps", EPS[norm]), norm=norm, **options).run(classifier, x, y)


def robust(attack: str, norm: Norm = "linf", **options: Any) -> int:
    return int((~attacked(attack, norm, **options).success).sum())


@EVERY
@BOTH_NORMS
def test_inside_ball_and_bounds_and_success_is_true(attack: str, norm: Norm) -> None:
    found = attacked(attack, norm, **QUICK[attack])
    classifier, x, y = digits(COUNT)
    assert found.x.dtype == np.float32
    assert found.x.shape == x.shape
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    assert ball(norm, 0).measure(found.x - x.astype(np.float64)).max() <= EPS[norm] + 1e-6
    np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)
    assert found.success.any()


@EVERY
@BOTH_NORMS
def test_a_sample_fares_the_same_in_any_batch_and_order(attack: str, norm: Norm) -> None:
    classifier, x, y = digits(24)
    settings = make(attack, eps=EPS[norm], norm=norm, **QUICK[attack], early_stop=False)
    whole = settings.run(classifier, x, y)
    order = np.random.default_rng(0).permutation(len(x))
    for start in range(0, len(x), 7):
        rows = order[start : start + 7]
        found = settings.run(classifier, x[rows], y[rows], samples=rows)
        same = np.abs(found.x - whole.x[rows]).reshape(len(rows), -1).max(axis=1) < 1e-5
        assert same.mean() >= 0.8, attack  # a gradient of nearly 0 may round to the other side
        np.testing.assert_array_equal(found.success[same], whole.success[rows][same])


@EVERY
def test_the_same_again_and_another_seed(attack: str) -> None:
    classifier, x, y = digits(16)
    runs = [
        make(attack, eps=0.1, seed=seed, early_stop=False, **QUICK[attack]).run(classifier, x, y) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    if attack not in {"fgsm", "fab-t"}:  # a single start of FAB-T is the input itself
        assert not np.array_equal(runs[0].x, runs[2].x)


@EVERY
@BOTH_NORMS
def test_eps_0_changes_nothing(attack: str, norm: Norm) -> None:
    classifier, x, y = digits(40)
    found = make(attack, eps=0.0, norm=norm, **QUICK[attack]).run(classifier, x, y)
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.success, classifier.predict(x) != y)


@BOTH_NORMS
def test_who_is_stronger(norm: Norm) -> None:
    """Iterative attacks beat the single step, the black box does not beat the white box, noise is a control."""
    noise, single = robust("noise", norm), robust("fgsm", norm)
    square = robust("square", norm, max_iter=200)
    white = {name: robust(name, norm, max_iter=40) for name in ("pgd", "apgd-ce", "apgd-dlr")}
    white |= {name: robust(name, norm, max_iter=10) for name in ("apgd-t", "fab-t")}
    assert single < noise
    assert square < noise
    for name, left in white.items():
        assert left <= single, name
        assert left <= square, name
    assert max(white.values()) - min(white.values()) <= 6


@BOTH_NORMS
@pytest.mark.parametrize("attack", ["pgd", "apgd-ce", "apgd-dlr", "square"])
def test_more_iterations_are_not_weaker(attack: str, norm: Norm) -> None:
    few, many = (10, 40) if attack != "square" else (50, 200)
    assert robust(attack, norm, max_iter=many) <= robust(attack, norm, max_iter=few) + 1


@pytest.mark.parametrize("attack", ["pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "noise"])
def test_restarts_only_help(attack: str) -> None:
    """The first start of several is the same as a single one, so whatever it fools stays fooled."""
    one, three = (attacked(attack, restarts=n, **QUICK[attack]).success for n in (1, 3))
    assert (three | ~one).all()
    if attack in {"square", "noise"}:
        assert three.sum() > one.sum()


@BOTH_NORMS
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "square"])
def test_targeted(attack: str, norm: Norm) -> None:
    classifier, x, y = digits(60)
    targets = (y + 1) % 10
    options = {**QUICK[attack]} | ({"max_iter": 20} if attack == "pgd" else {})
    settings = make(attack, eps=4 * EPS[norm], norm=norm, targeted=True, **options)
    found = settings.run(classifier, x, targets)
    np.testing.assert_array_equal(classifier.predict(found.x) == targets, found.success)
    assert found.success.mean() > {"fgsm": 0.1, "pgd": 0.9, "square": 0.1}[attack]


@pytest.mark.parametrize("loss", ["ce", "ce-softmax", "margin", "dlr"])
def test_pgd_with_each_loss(loss: str) -> None:
    assert abs(robust("pgd", loss=loss, max_iter=20) - robust("pgd", max_iter=20)) <= 4


def test_early_stop() -> None:
    """With it, misclassified samples stay as they are and fooled ones leave; without it, all are moved."""
    classifier, x, y = digits(60)
    y = np.where(np.arange(60) < 10, (y + 1) % 10, y)  # the first ten are misclassified
    for attack in (PGD, APGDCE):
        classifier.counts.gradients = 0
        stopped = attack(eps=0.2, max_iter=10).run(classifier, x, y)
        np.testing.assert_array_equal(stopped.x[:10], x[:10])
        assert stopped.success[:10].all()
        assert classifier.counts.gradients < 0.7 * 60 * 10
        whole = attack(eps=0.2, max_iter=10, early_stop=False).run(classifier, x, y)
        assert np.abs(whole.x - x).reshape(60, -1).max(axis=1).min() > 0.01


def test_apgd_without_early_stop_ends_at_its_largest_loss() -> None:
    classifier, x, y = digits(30)
    found = APGDCE(eps=0.02, max_iter=20, early_stop=False).run(classifier, x, y)
    loss = classifier.gradient(found.x, y, loss=Loss.CE).loss
    held = ~found.success
    assert held.sum() > 20
    assert (loss >= classifier.gradient(x, y, loss=Loss.CE).loss)[held].all()
    longer = APGDCE(eps=0.02, max_iter=60, early_stop=False).run(classifier, x, y)
    gain = classifier.gradient(longer.x, y, loss=Loss.CE).loss[held] - loss[held]
    assert np.median(gain / loss[held]) < 0.05  # it had nearly converged


def test_pgd_from_the_input_itself() -> None:
    """One step of size eps from there is FGSM."""
    classifier, x, y = digits(40)
    single = FGSM(eps=0.05).run(classifier, x, y)
    walked = PGD(eps=0.05, eps_step=0.05, max_iter=1, random_start=False, early_stop=False).run(classifier, x, y)
    np.testing.assert_allclose(walked.x, single.x, atol=1e-7)
    np.testing.assert_array_equal(walked.success, single.success)


class _Recorded(Victim):
    """Keeps what it was asked."""

    def __init__(self, other: Victim) -> None:
        self.__dict__.update(other.__dict__)
        self.batches: list[int] = []

    def logits(self, x: Any) -> Any:
        found = super().logits(x)
        self.batches.append(len(found))
        return found


def test_fooled_samples_leave_the_batch() -> None:
    classifier, x, y = digits(40)
    watched = _Recorded(classifier)
    make("square", eps=0.15, max_iter=30).run(watched, x, y)
    assert watched.batches == sorted(watched.batches, reverse=True)
    assert watched.batches[-1] < watched.batches[0] - 5


def bad() -> Iterator[tuple[str, dict[str, Any], str]]:
    yield "pgd", {"eps": -0.1}, "eps -0.1 is negative"
    yield "pgd", {"eps": 1.5}, "wider than pixel space, [0, 1], in linf (1)"
    yield "fgsm", {"eps": 8.5, "norm": "l2"}, "in l2 (8)"
    yield "square", {"eps": float("nan")}, "eps nan"
    yield "pgd", {"eps": 0.1, "eps_step": -1.0}, "eps_step -1 must be above 0"
    yield "apgd-ce", {"eps": 0.1, "max_iter": -1}, "at least 1"
    yield "noise", {"eps": 0.1, "restarts": -2}, "at least 1"
    yield "pgd", {"eps": 0.1, "norm": "l1"}, "there is no norm 'l1'"


@pytest.mark.parametrize(("attack", "options", "message"), list(bad()))
def test_settings_that_make_no_sense(attack: str, options: dict[str, Any], message: str) -> None:
    classifier, x, y = digits(2)
    with pytest.raises(OptionError) as raised:
        make(attack, **options).run(classifier, x, y)
    assert message in str(raised.value)


def test_settings_that_an_attack_does_not_take() -> None:
    for attack, option in (("fgsm", {"max_iter": 3}), ("square", {"loss": "ce"}), ("apgd-t", {"targeted": True})):
        with pytest.raises(OptionError, match=f"{attack} takes no {next(iter(option))}"):
            make(attack, eps=0.1, **option)
    with pytest.raises(OptionError, match=r"there is no attack 'pdg'.*did you mean 'pgd'"):
        make("pdg", eps=0.1)


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_that_is_no_class(label: int) -> None:
    classifier, x, _ = digits(2)
    with pytest.raises(DataError, match=f"label {label} does not fit"):
        FGSM(eps=0.1).run(classifier, x, np.array([0, label]))


def test_the_black_box_needs_no_gradient() -> None:
    made = flat(3)
    made.graph.node[1].op_type = "Sign"
    classifier = victim(made)
    x = np.random.default_rng(0).random((6, 12)).astype(np.float32)
    y = classifier.predict(x)
    with pytest.raises(DifferentiationError, match="attack square"):
        PGD(eps=0.1).run(classifier, x, y)
    found = make("square", eps=0.3, max_iter=50).run(classifier, x, y)
    np.testing.assert_array_equal(classifier.predict(found.x) != y, found.success)


@BOTH_NORMS
def test_a_second_call_makes_no_sessions(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[onnx.ModelProto] = []

    def session(graph: onnx.ModelProto, provider: Provider, **options: Any) -> Session:
        made.append(graph)
        return Session(graph, provider, **options)

    for module in ("attacks.arithmetic", "classifier.sessions", "classifier.activations"):
        monkeypatch.setattr(f"cloakonnx.{module}.Session", session)
    shared, x, y = digits(12)
    for attack in ("fgsm", "pgd", "apgd-ce"):
        plan = make(attack, eps=EPS[norm], norm=norm, max_iter=None if attack == "fgsm" else 4)
        plan.run(shared, x, y)
        count = len(made)
        assert count > 0
        again = plan.run(shared, x[:7], y[:7])
        assert len(made) == count
        np.testing.assert_array_equal(again.x, plan.run(digits(7)[0], x[:7], y[:7]).x)
