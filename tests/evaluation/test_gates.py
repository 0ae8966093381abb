"""Gates: how they are written, what they decide, and how often they decide wrongly."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloakonnx.errors import OptionError
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.gates import Gate, check_gates, check_measured, parse_gate
from cloakonnx.evaluation.results import AtEps, DataRecord, ModelRecord, Robustness
from cloakonnx.evaluation.sanity.flags import MEANINGS, Flag, Sanity
from cloakonnx.statistics import Accuracy, Paired, exact, median_interval, newcombe_paired

EPS = 2 / 255


def evaluation(
    clean: Paired, robust: Paired | None = None, *, eps: tuple[float, ...] = (EPS,), sanity: Sanity | None = None
) -> Evaluation:
    """An evaluation with these counts; the hardened model comes first."""
    pairs = robust or clean
    hardened = Accuracy(pairs.both + pairs.only_first, pairs.count)
    baseline = Accuracy(pairs.both + pairs.only_second, pairs.count)
    result = AtEps(
        eps=EPS,
        static=Accuracy(pairs.count, pairs.count),
        hardened=Robustness(hardened, hardened, hardened, ()),
        baseline=Robustness(baseline, baseline, baseline, ()),
        pairs=pairs,
        random_masks=(),
    )
    return Evaluation(
        model=ModelRecord("m.hardened.onnx", "0" * 64),
        baseline=ModelRecord("m.onnx", "1" * 64),
        baseline_is_stripped=False,
        masks=(),
        data=DataRecord("d", clean.count, "2" * 64),
        preprocessing={},
        attack="quick",
        norm="linf",
        seed=0,
        batch_size=1,
        provider="CPUExecutionProvider",
        control={},
        clean_hardened=Accuracy(clean.both + clean.only_first, clean.count),
        clean=clean,
        results=tuple(dataclasses.replace(result, eps=each) for each in eps),
        sanity=sanity,
        versions={},
    )


def flags(**fired: bool | None) -> Sanity:
    names = {name.replace("_", "-"): value for name, value in fired.items()}
    return Sanity(
        8, (EPS,), (), 0, 0, tuple(Flag(name, names.get(name, False), 0.0, "ops", 0.0, None, "") for name in MEANINGS)
    )


def verdict(gate: str, found: Evaluation, latency: tuple[float, ...] | None = None) -> str:
    (decision,) = check_gates(found, [parse_gate(gate)], latency=latency)
    assert str(decision).startswith(decision.verdict) and "\n" not in str(decision)
    return decision.verdict


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("clean-drop<=1%", Gate("clean-drop<=1%", "clean-drop", 0.01)),
        ("robust-gain>=5%@2/255", Gate("robust-gain>=5%@2/255", "robust-gain", 0.05, EPS)),
        (" robust >= 40% @ 2/255 ", Gate("robust>=40%@2/255", "robust", 0.4, EPS)),
        ("ROBUST>=0.4", Gate("ROBUST>=0.4", "robust", 0.4)),
        ("flags==0", Gate("flags==0", "flags", 0.0)),
        ("latency-ratio<=1.02", Gate("latency-ratio<=1.02", "latency-ratio", 1.02)),
        ("clean>=90%", Gate("clean>=90%", "clean", 0.9)),
        ("clean-drop<=-1%", Gate("clean-drop<=-1%", "clean-drop", -0.01)),
    ],
)
def test_gates(text: str, gate: Gate) -> None:
    assert parse_gate(text) == gate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("static>=5%@2/255", "inputs made on another model"),
        ("static-gain>=5%", "inputs made on another model"),
        ("robust-gian>=5%@2/255", "did you mean 'robust-gain'"),
        ("zzz<=1", "there are clean, clean-drop, robust"),
        ("", "there is no gate ''"),
        ("clean-drop", "clean-drop goes with <="),
        ("clean-drop>=1%", "clean-drop goes with <=, as in clean-drop<=5%"),
        ("robust<=1%@2/255", "as in robust>=5%@2/255"),
        ("flags<=0", "flags goes with =="),
        ("flags==1", "write flags==0"),
        ("flags==0@2/255", "flags has no eps"),
        ("clean-drop<=1", "100% is beyond what shares can differ by; write 1% for 1 points"),
        ("clean-drop<=x", "'x' is not a number"),
        ("clean-drop<=", "'' is not a number"),
        ("robust>=5%@", "'' is not a number"),
        ("robust>=5%@1@2", "robust goes with >="),
        ("robust>=5%@0", "eps must be above 0"),
        ("latency-ratio<=0", "is above 0"),
        ("latency-ratio<=1.02@2/255", "latency-ratio has no eps"),
    ],
)
def test_no_gates(text: str, said: str) -> None:
    with pytest.raises(OptionError) as found:
        parse_gate(text)
    assert said in str(found.value)
    assert "\n" not in str(found.value)


SIGNS = {"clean": ">=", "clean-drop": "<=", "robust": ">=", "robust-gain": ">="}


@given(st.sampled_from(sorted(SIGNS)), st.integers(-9999, 9999), st.integers(1, 255), st.sampled_from(["", " "]))
def test_parsing_says_what_was_written(name: str, hundredths: int, level: int, space: str) -> None:
    eps = f"{space}@{space}{level}/255" if name.startswith("robust") else ""
    gate = parse_gate(f"{space}{name}{space}{SIGNS[name]}{space}{hundredths / 100}%{eps}{space}")
    assert (gate.name, gate.limit) == (name, pytest.approx(hundredths / 10_000, abs=1e-12))
    assert gate.eps == (level / 255 if eps else None)
    assert parse_gate(gate.text) == gate


@given(st.text(max_size=30))
def test_any_text_is_a_gate_or_one_line(text: str) -> None:
    try:
        gate = parse_gate(text)
    except OptionError as error:
        assert str(error)
    else:
        assert gate.name in {*SIGNS, "flags", "latency-ratio"}


@pytest.mark.parametrize(
    ("gate", "clean", "robust", "wanted"),
    [
        ("clean-drop<=1%", (900, 0, 0, 100), None, "pass"),
        ("clean-drop<=1%", (850, 0, 50, 100), None, "fail"),
        ("clean-drop<=1%", (890, 5, 12, 93), None, "inconclusive"),
        ("clean-drop<=0%", (890, 50, 0, 60), None, "pass"),
        ("clean>=90%", (950, 0, 0, 50), None, "pass"),
        ("clean>=90%", (900, 0, 0, 100), None, "inconclusive"),
        ("clean>=90%", (850, 0, 0, 150), None, "fail"),
        ("robust-gain>=5%@2/255", (900, 0, 0, 100), (300, 120, 10, 570), "pass"),
        ("robust-gain>=5%@2/255", (900, 0, 0, 100), (300, 60, 10, 630), "inconclusive"),
        ("robust-gain>=5%@2/255", (900, 0, 0, 100), (300, 10, 60, 630), "fail"),
        ("robust>=40%", (900, 0, 0, 100), (400, 60, 0, 540), "pass"),
        ("robust>=40%", (900, 0, 0, 100), (400, 0, 0, 600), "inconclusive"),
        ("robust>=40%", (900, 0, 0, 100), (300, 0, 400, 300), "fail"),
    ],
)
def test_verdicts(gate: str, clean: tuple[int, ...], robust: tuple[int, ...] | None, wanted: str) -> None:
    assert verdict(gate, evaluation(Paired(*clean), None if robust is None else Paired(*robust))) == wanted


def test_what_is_said() -> None:
    found = evaluation(Paired(900, 0, 0, 100), Paired(300, 70, 10, 620))
    gates = [parse_gate(text) for text in ("robust-gain>=5%@2/255", "robust>=30%", "robust-gain>=12%")]
    middle, good, bad = map(str, check_gates(found, gates))
    assert middle.startswith("inconclusive robust-gain>=5%@2/255: +6.0 points, between +4.")
    assert " samples would decide it" in middle
    assert good.startswith("pass         robust>=30%: 37.0%, at least 34.5% (95%), n = 1000")
    assert bad.startswith("fail         robust-gain>=12%: +6.0 points, at most +7.")


@pytest.mark.parametrize("gate", ["robust-gain>=5%", "robust-gain>=6.8%", "robust>=36%", "robust>=39%"])
def test_so_many_samples_would_decide(gate: str) -> None:
    """With the same shares among so many samples the gate is decided, among a seventh fewer it is not."""
    cells = 300, 75, 15, 610
    (decision,) = check_gates(evaluation(Paired(900, 0, 0, 100), Paired(*cells)), [parse_gate(gate)])
    assert decision.samples is not None and decision.samples > 1000

    def at(samples: float) -> str:
        scaled = Paired(*(round(each * samples / 1000) for each in cells))
        return verdict(gate, evaluation(scaled))

    assert at(1.02 * decision.samples) != "inconclusive"
    assert at(0.85 * decision.samples) == "inconclusive"


def test_a_figure_at_its_limit_is_never_decided() -> None:
    (decision,) = check_gates(evaluation(Paired(400, 0, 0, 600)), [parse_gate("robust>=40%")])
    assert decision.samples is None
    assert "no number of samples decides" in decision.detail


@pytest.mark.parametrize("count", [1, 3, 50, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_exact_is_scipys(count: int, confidence: float) -> None:
    for successes in sorted({0, 1, count // 3, count // 2, count - 1, count}):
        found = exact(successes, count, confidence=confidence)
        expected = stats.binomtest(successes, count).proportion_ci(confidence, method="exact")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("count", [1, 4, 5, 9, 30])
def test_interval_of_a_median(count: int) -> None:
    """Its ends are order statistics that the sign test just leaves out."""
    values = list(np.random.default_rng(0).permutation(count).astype(float))
    found = median_interval(values, confidence=0.9)
    skipped = int(stats.binom.ppf(0.05, count, 0.5))
    if stats.binom.cdf(0, count, 0.5) > 0.05:
        assert (found.low, found.high) == (-np.inf, np.inf)
    else:
        least = skipped if stats.binom.cdf(skipped, count, 0.5) <= 0.05 else skipped - 1
        assert (found.low, found.high) == (least, count - 1 - least)


@pytest.mark.parametrize("count", [100, 400])
@pytest.mark.parametrize("shares", [(0.4, 0.1, 0.05), (0.05, 0.08, 0.02), (0.8, 0.02, 0.02), (0.9, 0.0, 0.01)])
def test_verdicts_on_differences_are_wrong_in_one_of_twenty(shares: tuple[float, ...], count: int) -> None:
    """At the true difference a pass is the worst that a gate can get wrong, and a fail just above it.

    4,000 tables: the standard error of a rate of 5% is 0.35 points. Newcombe's one-sided ends keep near 5%, not below.
    """
    cells = (*shares, 1 - sum(shares))
    truth = shares[1] - shares[2]
    tables = np.random.default_rng(count).multinomial(count, cells, 4000)
    unique, times = np.unique(tables, axis=0, return_counts=True)
    bounds = [newcombe_paired(Paired(*map(int, row)), confidence=0.9) for row in unique]
    passes = sum(t for t, b in zip(times, bounds, strict=True) if b.low > truth + 1e-12) / 4000
    fails = sum(t for t, b in zip(times, bounds, strict=True) if b.high < truth - 1e-12) / 4000
    assert passes <= 0.075 and fails <= 0.075
    sample = list(itertools.islice(zip(unique, bounds, strict=True), 0, None, 50))
    for row, bound in sample:
        found = evaluation(Paired(*map(int, row)))
        wanted = "pass" if bound.low >= truth else "fail" if bound.high < truth else "inconclusive"
        assert verdict(f"robust-gain>={truth!r}", found) == wanted


@pytest.mark.parametrize("count", [30, 300])
@pytest.mark.parametrize("limit", [0.02, 0.4, 0.95])
def test_verdicts_on_shares_are_wrong_in_less_than_one_of_twenty(limit: float, count: int) -> None:
    """Exactly, by summing the binomial distribution over what passes, or fails."""
    clean = Paired(count, 0, 0, 0)
    found = [evaluation(clean, Paired(k, 0, 0, count - k)) for k in range(count + 1)]
    verdicts = np.array([verdict(f"robust>={limit}", each) for each in found])
    chances = stats.binom.pmf(np.arange(count + 1), count, limit)
    assert chances[verdicts == "pass"].sum() <= 0.05
    assert chances[verdicts == "fail"].sum() <= 0.05
    assert list(verdicts) == sorted(verdicts, key=["fail", "inconclusive", "pass"].index)


def test_latency() -> None:
    found = evaluation(Paired(9, 0, 0, 1))
    ratios = (1.0, 1.01, 1.0, 1.02, 1.01, 0.99, 1.0, 1.01, 1.3)
    assert verdict("latency-ratio<=1.02", found, ratios) == "pass"
    assert verdict("latency-ratio<=1.005", found, ratios) == "inconclusive"
    assert verdict("latency-ratio<=0.98", found, ratios) == "fail"
    (decision,) = check_gates(found, [parse_gate("latency-ratio<=1.005")], latency=ratios)
    assert "quiet machine" in decision.detail
    assert verdict("latency-ratio<=2", found, (1.0, 1.0, 1.0)) == "inconclusive", "three say nothing at 95%"


def test_flags() -> None:
    pairs = Paired(9, 0, 0, 1)
    assert verdict("flags==0", evaluation(pairs, sanity=flags())) == "pass"
    assert verdict("flags==0", evaluation(pairs, sanity=flags(saturation=True))) == "fail"
    assert verdict("flags==0", evaluation(pairs, sanity=flags(saturation=True, iterations=None))) == "fail"
    assert verdict("flags==0", evaluation(pairs, sanity=flags(iterations=None))) == "inconclusive"
    (decision,) = check_gates(evaluation(pairs, sanity=flags(static_gain=True)), [parse_gate("flags==0")])
    assert decision.detail == f"1 of {len(MEANINGS)} fired (static-gain)"


@pytest.mark.parametrize(
    ("gate", "measured", "said"),
    [
        ("robust>=5%@1/255", {"eps": (EPS,)}, "eps 1/255 is not among 2/255"),
        ("robust>=5%", {"eps": (EPS, 2 * EPS)}, "does not say at which eps (evaluated: 2/255, 4/255)"),
        ("flags==0", {"sanity": False}, "the sanity checks were left out"),
        ("latency-ratio<=1.02", {"latency": False}, "cloakonnx evaluate --require"),
    ],
)
def test_not_measured(gate: str, measured: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as found:
        check_measured([parse_gate(gate)], **({"eps": (EPS,), "sanity": True, "latency": True} | measured))
    assert said in str(found.value)


@pytest.mark.parametrize("eps", [8 / 255, 0.0123456789, 1.5 / 255])
def test_an_eps_that_a_message_names_is_taken(eps: float) -> None:
    with pytest.raises(OptionError) as found:
        check_measured([parse_gate("robust>=5%")], eps=(eps, 2 * eps), sanity=True, latency=True)
    named = str(found.value).partition("evaluated: ")[2].partition(",")[0]
    for text in (named, f"{eps:.6g}", f"{eps:.4g}"):
        check_measured([parse_gate(f"robust>=5%@{text}")], eps=(eps, 2 * eps), sanity=True, latency=True)


def test_the_eps_is_found() -> None:
    found = evaluation(Paired(400, 60, 0, 540), eps=(1 / 255, float(np.float32(EPS))))
    assert verdict("robust>=40%@2/255", found) == "pass"
    assert verdict("robust>=40%@0.00784314", found) == "pass"
    with pytest.raises(OptionError):
        verdict("robust>=40%", found)


ALL = ("clean>=1%", "clean-drop<=5%", "robust>=1%", "robust-gain>=-5%", "flags==0")


def at_chance(first: int, second: int, classes: int | None, *, count: int = 100) -> Evaluation:
    """So many clean samples right, the second's among the first's or the other way round, and nothing robust lost."""
    both = min(first, second)
    pairs = Paired(both, first - both, second - both, count - max(first, second))
    return dataclasses.replace(evaluation(pairs, sanity=flags()), classes=classes)


@pytest.mark.parametrize("gate", ALL)
@pytest.mark.parametrize(("right", "classes"), [(0, 5), (0, None), (20, 5), (25, 5), (8, 10), (55, 2), (50, 1)])
def test_at_chance_nothing_is_decided(gate: str, right: int, classes: int | None) -> None:
    """25 of 100 in 5 classes: the exact 95% lower bound is 0.180, and guessing gets 0.2."""
    (decision,) = check_gates(at_chance(right, right, classes), [parse_gate(gate)])
    assert decision.verdict == "inconclusive"
    chance = "at chance or below" if classes is None else f"no more than chance can give in {classes} classes"
    assert f"the hardened model gets {right} of 100 clean samples right, {chance}" in decision.detail
    assert "labels and preprocessing" in decision.detail


@pytest.mark.parametrize(("right", "classes"), [(28, 5), (60, 2), (20, None), (12, None)])
def test_better_than_chance(right: int, classes: int | None) -> None:
    """28 of 100 in 5 classes: the exact 95% lower bound is 0.208. Files of 0.1.0 do not say how many classes."""
    found = at_chance(right, right, classes)
    assert [verdict(gate, found) for gate in ("clean>=1%", "flags==0")] == ["pass", "pass"]


def test_a_note_of_chance() -> None:
    """Files of version 0.1.0 have the number of classes in the note alone."""
    found = at_chance(20, 20, None)
    note = "m gets 20 of 100 clean samples right, no more than chance would in 5 classes: are ... right?"
    assert verdict("clean>=1%", dataclasses.replace(found, notes=(note,))) == "inconclusive"


def test_masks_that_bring_a_model_to_chance_fail() -> None:
    """The baseline shows that labels and preprocessing are right, so the loss is the masks'."""
    found = at_chance(20, 90, 5)
    assert [verdict(gate, found) for gate in ("clean>=50%", "clean-drop<=5%", "robust-gain>=-5%")] == ["fail"] * 3
    assert verdict("clean>=1%", found) == "inconclusive"
    assert verdict("flags==0", found) == "inconclusive"


def test_a_baseline_at_chance() -> None:
    found = at_chance(90, 20, 5)
    assert [verdict(gate, found) for gate in ALL] == ["pass", "inconclusive", "pass", "inconclusive", "pass"]


def test_few_samples_may_be_chance() -> None:
    assert verdict("clean-drop<=90%", at_chance(5, 5, 2, count=10)) == "pass"
