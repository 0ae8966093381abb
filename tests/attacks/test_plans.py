"""What an evaluation attacks with, by the names of presets and attacks: one, or several."""

from __future__ import annotations

from typing import Any

import pytest

from cloakonnx.attacks.presets import Names, as_text, plan
from cloakonnx.errors import OptionError


def made(attack: Names, **settings: Any) -> list[tuple[str, Any, Any, bool]]:
    """Return of each attack of a plan its name, steps, restarts, and whether gradients go straight through."""
    records = [each.record() for each in plan(attack, eps=0.1, **settings)]
    return [(r["attack"], r["max_iter"], r["restarts"], r["straight_through"]) for r in records]


@pytest.mark.parametrize("attack", ["pgd,square", " pgd , square", ["pgd", "square"], ("pgd", "square")])
def test_several_attacks_in_their_order(attack: Names) -> None:
    assert made(attack) == [("pgd", 40, 1, False), ("square", 5000, 1, False)]
    assert as_text(attack) == "pgd,square"


def test_one_in_a_list_is_that_one() -> None:
    """So its steps may be queries."""
    assert (
        made(["square"], max_iter=7, restarts=2) == made("square", max_iter=7, restarts=2) == [("square", 7, 2, False)]
    )


def test_presets_beside_attacks() -> None:
    alone = plan("quick", eps=0.1, norm="l2", seed=3)
    assert plan("quick,fab-t", eps=0.1, norm="l2", seed=3)[:3] == alone
    assert [each.name for each in plan(["fab-t", "quick"], eps=0.1)] == ["fab-t", "pgd", "apgd-ce", "square"]


def test_settings_go_to_the_attacks_by_gradients() -> None:
    """Steps of Square are queries, and FGSM has none."""
    found = made("fgsm,pgd,apgd-ce,square", max_iter=7, restarts=2, straight_through=True)
    assert found == [
        ("fgsm", None, None, True),
        ("pgd", 7, 2, True),
        ("apgd-ce", 7, 2, True),
        ("square", 5000, 1, False),
    ]
    assert made("quick,fab-t", max_iter=7)[2:] == [("square", 500, 1, False), ("fab-t", 7, 1, False)]


def test_until_converged() -> None:
    (pgd, square) = plan("pgd,square", eps=0.1, max_iter="converged")
    assert pgd == plan("pgd", eps=0.1, max_iter="converged")[0]
    assert square == plan("square", eps=0.1)[0]


@pytest.mark.parametrize(
    ("attack", "settings", "said"),
    [
        ("pgd,squar", {}, "no attack or preset 'squar'; .*did you mean 'square'"),
        ("pgd,pgd", {}, "pgd,pgd makes pgd twice; name each attack once"),
        ("quick,pgd", {}, "quick,pgd makes pgd twice: quick has it; name"),
        (["standard", "quick"], {}, "standard,quick makes apgd-ce twice: standard and quick have it; name"),
        ("pgd,", {}, "'pgd,' has an empty name"),
        ("", {}, "'' has an empty name"),
        ([], {}, "'' has an empty name"),
        (["pgd", 3], {}, "takes names of attacks and presets, not \\['pgd', 3\\]"),
        (None, {}, "takes names of attacks and presets, not None"),
        ("square,noise", {"max_iter": 7}, "those by gradients take max_iter, and square,noise has none"),
        ("fgsm,square", {"restarts": 7}, "those by gradients take restarts, and fgsm,square has none"),
        ("square,noise", {"straight_through": True}, "take straight_through, and square,noise has none"),
        ("pgd,square", {"max_iter": 0}, "max_iter must be at least 1"),
        ("apgd-ce,pgd", {"max_iter": "converged"}, "converged goes with pgd, not apgd-ce"),
        ("pgd,quick", {"restarts": 2}, "quick has its own restarts"),
        ("fab-t,quick", {"max_iter": "converged"}, "go with attacks by name"),
    ],
)
def test_what_is_refused(attack: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        plan(attack, eps=0.1, **settings)
