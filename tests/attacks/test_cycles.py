"""Exact cycles of PGD: the same bytes as all steps, for a fraction of the gradients."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from cloakonnx.attacks import cycles
from cloakonnx.attacks.base import make
from cloakonnx.attacks.cycles import Cycles
from cloakonnx.errors import OptionError

from .helpers import digits, model, victim


def walk(period: int, before: int, step: int) -> np.float32:
    """Return where a walk stands that runs into a cycle."""
    return np.float32(step if step < before else before + (step - before) % period)


@pytest.mark.parametrize(("period", "before"), [(1, 0), (2, 45), (7, 30), (40, 3), (60, 90), (400, 150)])
def test_a_sample_leaves_where_the_last_step_would_have_left_it(period: int, before: int) -> None:
    steps = 1000
    found = Cycles(np.array([[walk(period, before, 0)]]), steps)
    for step in range(1, steps + 1):
        if found.look(np.array([[walk(period, before, step)]]), step).any():
            break
    assert found.found[0]
    assert step < before + 2 * period  # the first step that repeats, and up to a turn more
    assert walk(period, before, step) == walk(period, before, steps)


@pytest.mark.parametrize("kept", [1024, 100])
def test_a_walk_that_never_repeats_takes_all_steps(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(cycles, "_KEPT", kept)
    found = Cycles(np.zeros((1, 1), np.float32), 300)
    assert not any(found.look(np.full((1, 1), step, np.float32), step).any() for step in range(1, 301))


@pytest.mark.parametrize(("period", "is_found"), [(64, True), (65, False)])
def test_of_a_long_walk_the_last_inputs_are_kept(monkeypatch: pytest.MonkeyPatch, period: int, is_found: bool) -> None:
    monkeypatch.setattr(cycles, "_KEPT", 64)
    found = Cycles(np.array([[walk(period, 200, 0)]]), 1000)
    left = [step for step in range(1, 1000) if found.look(np.array([[walk(period, 200, step)]]), step).any()]
    assert bool(found.found[0]) is is_found
    assert [walk(period, 200, step) for step in left[:1]] == [walk(period, 200, 1000)] * is_found


@pytest.mark.parametrize("restarts", [1, 2])
def test_the_bytes_are_those_of_all_steps(monkeypatch: pytest.MonkeyPatch, restarts: int) -> None:
    victim, x, y = digits(12)
    settings = make("pgd", eps=1 / 16, max_iter="converged", restarts=restarts)
    found = settings.run(victim, x, y)
    gradients = victim.counts.gradients
    assert found.converged.any()
    assert not (found.converged & found.success).any()
    monkeypatch.setattr(Cycles, "look", lambda self, x, step: np.zeros(len(x), np.bool_))
    all_steps = settings.run(victim, x, y)
    assert not all_steps.converged.any()
    assert found.x.tobytes() == all_steps.x.tobytes()
    assert (found.success == all_steps.success).all()
    assert 5 * gradients < victim.counts.gradients - gradients


def test_the_word_stands_for_settings_that_are_recorded() -> None:
    record = make("pgd", eps=0.4, max_iter="converged").record()
    assert (record["max_iter"], record["eps_step"]) == (1000, pytest.approx(0.025))
    assert make("pgd", eps=0.4, max_iter="converged", eps_step=0.1).record()["eps_step"] == 0.1


def test_other_attacks_refuse_the_word() -> None:
    with pytest.raises(OptionError, match="goes with pgd"):
        make("apgd-ce", eps=0.1, max_iter="converged")


@pytest.mark.parametrize("noise", [False, True])
def test_no_cycle_is_looked_for_where_scores_are_random(noise: bool) -> None:
    """A linear net, whose walk ends in a corner of the ball; noise on the scores leaves the gradient's signs alone."""
    w = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["z" if noise else "scores"])]
    if noise:
        nodes += [
            helper.make_node("RandomNormalLike", ["z"], ["n"], scale=1e-4),
            helper.make_node("Add", ["z", "n"], ["scores"]),
        ]
    found = victim(model(nodes, {"w": w}, ["N", 6], 2))
    x = np.random.default_rng(1).uniform(0.3, 0.7, (20, 6)).astype(np.float32)
    scores = x @ w
    y = scores.argmax(axis=1)
    holds = int((np.abs(scores[:, 0] - scores[:, 1]) > 0.05 * np.abs(w[:, 0] - w[:, 1]).sum() + 0.01).sum())
    before = found.counts.gradients
    made = make("pgd", eps=0.05, max_iter=200, eps_step=0.01).run(found, x, y)
    asked = found.counts.gradients - before
    assert 3 < holds <= int((~made.success).sum())
    if noise:
        assert not made.converged.any()
        assert asked >= 200 * holds
    else:
        assert (made.converged == ~made.success).all()
        assert asked < 200 * holds
