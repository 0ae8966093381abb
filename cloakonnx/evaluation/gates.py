"""Gates: what an evaluation must show for a build to pass, judged by one-sided 95% bounds.

A gate passes when even the unfavourable confidence bound meets the limit, fails when not even the favourable one does,
and is inconclusive in between; so either verdict is wrong in about 5% of all cases. Bounds are the ends of
two-sided 90% intervals: Newcombe's method 10 for differences on the same samples, the exact binomial interval for
shares of one model, the sign test's for the median of latency ratios.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cloakonnx.errors import OptionError, nearest
from cloakonnx.evaluation.evaluation import Evaluation
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.statistics import Accuracy, Interval, Paired, exact, median_interval, newcombe_paired, wilson
from cloakonnx.text import eps_text, parse_number

CONFIDENCE = 0.9
"""Two-sided: each end alone is a 95% bound."""

Outcome = Literal["pass", "fail", "inconclusive"]
_MOST_SAMPLES, _MOST_EXACT = 10_000_000, 20_000
_SIGNS = {
    "clean": ">=", "clean-drop": "<=", "robust": ">=", "robust-gain": ">=", "flags": "==", "latency-ratio": "<=",
}  # fmt: skip
_AT_EPS = {"robust", "robust-gain"}
_COMPARING = {"clean-drop", "robust-gain"}
_WITH_BASELINE = {*_COMPARING, "latency-ratio"}
_FEWEST = 20
"""Samples of which a model that works gets more right than by chance."""
_NOTED = re.compile(r"no more than chance would in (\d{1,9}) classes")
_SHARES = {"clean", "clean-drop", "robust", "robust-gain"}
_GATE = re.compile(r"\s*([a-z][a-z0-9_-]*)\s*(<=|>=|==|!=|=|<|>)\s*([^@]*?)\s*(?:@\s*([^@]*?)\s*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        text: As it was written, without spaces.
        name: What is judged: ``clean``, ``clean-drop``, ``robust``, ``robust-gain``, ``flags`` or ``latency-ratio``.
        limit: A share (0.05 is 5 points), a count of flags, or a ratio.
        eps: The radius that it is judged at; None takes the only one, and where there is no such thing.
    """

    text: str
    name: str
    limit: float
    eps: float | None = None


@dataclass(frozen=True)
class Decision:
    """What became of a gate.

    Attributes:
        gate: The gate, as it was written.
        verdict: ``pass``, ``fail`` or ``inconclusive``.
        detail: The figure, its bounds, and what would decide it, in words.
        samples: About how many samples would decide it; None where it is decided, or none would.
        value: The figure: a share, a difference of shares, a ratio, or a number of flags.
        low: Lower 95% bound of the figure; None for flags.
        high: Upper 95% bound of the figure; None for flags.
        limit: The gate's limit.
        count: Samples that the figure is of; None for flags and latency.
    """

    gate: str
    verdict: Outcome
    detail: str
    samples: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    count: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds: the gate in words and in numbers, ``n`` samples, and how many are ``needed``."""
        numbers = asdict(self)
        count = numbers.pop("count")
        return {**numbers, "n": count, "needed": self.samples}

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.verdict:<12} {self.gate}: {self.detail}"


def parse_gate(text: str) -> Gate:
    """Read a gate: ``clean-drop<=1%``, ``robust-gain>=5%@2/255``, ``robust>=40%@2/255``, ``flags==0``, ...

    Raises:
        OptionError: no gate, an unknown name, a static figure, the wrong sign, or a limit that makes no sense.
    """
    name = re.split(r"[<>=!@\s]", text.strip(), maxsplit=1)[0].lower()
    if name.startswith("static"):
        raise OptionError(
            f"{text!r} is no gate: static figures are of inputs made on another model, which says nothing of an attack "
            "on this one; use robust or robust-gain"
        )
    if name not in _SIGNS:
        raise OptionError(f"there is no gate {name!r}{nearest(name, _SIGNS) or '; there are ' + ', '.join(_SIGNS)}")
    found = _GATE.fullmatch(text)
    sign = _SIGNS[name]
    if found is None or found[2] != sign:
        at = "@2/255" if name in _AT_EPS else ""
        limit = {"flags": "0", "latency-ratio": "1.02"}.get(name, "5%")
        raise OptionError(f"{text!r} is no gate: {name} goes with {sign}, as in {name}{sign}{limit}{at}")
    eps = None
    if found[4] is not None:
        if name not in _AT_EPS:
            raise OptionError(f"{text!r} is no gate: {name} has no eps")
        eps = _number(found[4], text)
        if eps <= 0:
            raise OptionError(f"{text!r} is no gate: eps must be above 0")
    return Gate("".join(text.split()), name, _limit(name, found[3], text), eps)


def _number(written: str, text: str) -> float:
    try:
        return parse_number(written)
    except ValueError:
        raise OptionError(f"{text!r} is no gate: {written!r} is not a number like 5%, 0.05 or 8/255") from None


def _limit(name: str, written: str, text: str) -> float:
    limit = _number(written, text)
    if name in _SHARES and not -1 < limit < 1:
        meant = f"; write {limit:g}% for {limit:g} points" if "%" not in written else ""
        raise OptionError(f"{text!r} is no gate: {limit:.0%} is beyond what shares can differ by{meant}")
    if name == "flags" and limit != 0:
        raise OptionError(f"{text!r} is no gate: no flag may fire; write flags==0")
    if name == "latency-ratio" and limit <= 0:
        raise OptionError(f"{text!r} is no gate: the ratio of two latencies is above 0, as in latency-ratio<=1.02")
    return limit


def check_measured(gates: Iterable[Gate], *, eps: Sequence[float], sanity: bool, latency: bool) -> None:
    """Check that an evaluation has the numbers that gates ask for.

    Args:
        gates: The gates.
        eps: The radii that are evaluated.
        sanity: Whether the sanity checks are made.
        latency: Whether the latency is measured.

    Raises:
        OptionError: it has not.
    """
    for gate in gates:
        if gate.name in _AT_EPS:
            _which_eps(gate, eps)
        if gate.name == "flags" and not sanity:
            raise OptionError(f"{gate.text} asks for what wasn't measured: the sanity checks were left out")
        if gate.name == "latency-ratio" and not latency:
            raise OptionError(
                f"{gate.text} asks for what wasn't measured: an evaluation's file holds no times; give it to "
                "'cloakonnx evaluate --require', which measures them"
            )


def check_compared(gates: Iterable[Gate], *, has_baseline: bool) -> None:
    """Check that there is a baseline where gates compare with one; raises OptionError."""
    for gate in gates:
        if gate.name in _WITH_BASELINE and not has_baseline:
            raise OptionError(
                f"{gate.text} compares with a baseline, and this is an evaluation of one model; name what to compare "
                "it with ({baseline})",
                parameter="baseline",
            )


def _which_eps(gate: Gate, eps: Sequence[float]) -> int:
    """Return the index of the radius that a gate is about."""
    said = ", ".join(map(eps_text, eps))
    if gate.eps is None:
        if len(eps) != 1:
            raise OptionError(f"{gate.text} does not say at which eps (evaluated: {said}); add @ and one of them")
        return 0
    wanted = gate.eps
    found = [i for i, each in enumerate(eps) if math.isclose(each, wanted, rel_tol=1e-6)]
    found = found or [i for i, each in enumerate(eps) if wanted in {float(f"{each:.4g}"), float(f"{each:.6g}")}]
    if len(found) != 1:
        raise OptionError(f"{gate.text} asks for what wasn't measured: eps {eps_text(wanted)} is not among {said}")
    return found[0]


def check_gates(
    found: Evaluation, gates: Sequence[Gate | str], *, latency: Sequence[float] | None = None
) -> tuple[Decision, ...]:
    """Judge an evaluation by gates.

    Args:
        found: The evaluation.
        gates: The gates, such as ``"robust-gain>=5%@2/255"``.
        latency: Latency ratios of the hardened model to the baseline, from
            :func:`~cloakonnx.runtime.latency_ratios`, where a gate asks for them.

    Raises:
        OptionError: not a gate, or one that asks for a number that wasn't measured.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=50)
        >>> clf = ck.Classifier("samples/digits_cnn.onnx")
        >>> found = ck.evaluate(clf, data, eps=1 / 16, attack="fgsm", baseline=clf, sanity=False)
        >>> [each.verdict for each in ck.check_gates(found, ["clean>=1%"])]
        ['pass']
    """
    asked = [parse_gate(each) if isinstance(each, str) else each for each in gates]
    radii = [result.eps for result in found.results]
    check_measured(asked, eps=radii, sanity=found.sanity is not None, latency=latency is not None)
    check_compared(asked, has_baseline=found.clean is not None)
    return tuple(_decided(gate, found, radii, latency or ()) for gate in asked)


def _decided(gate: Gate, found: Evaluation, radii: Sequence[float], latency: Sequence[float]) -> Decision:
    decision = _measured(gate, found, radii, latency)
    if gate.name == "latency-ratio":
        return decision
    reason = _at_chance(found, decision, both=gate.name in _COMPARING)
    if not reason:
        return decision
    return replace(decision, verdict="inconclusive", detail=f"{decision.detail}; {reason}", samples=None)


def _at_chance(found: Evaluation, decision: Decision, *, both: bool) -> str:
    """Return why clean accuracy at chance leaves a gate undecided; empty where it does not.

    Where the baseline is not at chance, a hardened model that is has lost its accuracy to the masks: what fails then
    stays failed.
    """
    who = "the model" if found.clean_baseline is None else "the hardened model"
    shares = [(who, found.clean_hardened)]
    if found.clean_baseline is not None:
        shares.append(("the baseline", found.clean_baseline))
    classes = _classes(found)
    lost = [(name, clean) for name, clean in shares if _explained_by_chance(clean, classes)]
    broken = len(shares) == 2 and [name for name, _ in lost] == [who]
    concerned = lost if both else [each for each in lost if each[0] == who]
    if not concerned or (broken and decision.verdict == "fail"):
        return ""
    who, clean = concerned[0]
    chance = f"no more than chance can give in {classes} classes" if classes else "at chance or below"
    return (
        f"{who} gets {clean.correct} of {clean.count} clean samples right, {chance}, so this says nothing: check "
        "labels and preprocessing (--scale, --mean, --std, --layout)"
    )


def _classes(found: Evaluation) -> int | None:
    """Return the number of classes: files of version 0.1.0 have it only in the note that accuracy is at chance."""
    noted = (_NOTED.search(note) for note in found.notes)
    return found.classes or next((int(each[1]) for each in noted if each), None)


def _explained_by_chance(clean: Accuracy, classes: int | None) -> bool:
    """Return whether the 95% lower bound of clean accuracy is no higher than the share that guessing gets right.

    Where the number of classes is not known, that is certain only where nothing is right.
    """
    if clean.correct == 0:
        return True
    if classes is None or clean.count < _FEWEST:
        return False
    return exact(clean.correct, clean.count, confidence=CONFIDENCE).low <= 1 / max(classes, 2)


def _measured(gate: Gate, found: Evaluation, radii: Sequence[float], latency: Sequence[float]) -> Decision:
    if gate.name == "flags":
        assert found.sanity is not None
        return _flags(gate, found.sanity)
    if gate.name == "latency-ratio":
        return _judged(gate, _latency(latency))
    if gate.name == "clean":
        return _judged(gate, _share(found.clean_hardened.correct, found.clean_hardened.count))
    if gate.name == "clean-drop":
        assert found.clean is not None  # checked by check_compared
        c = found.clean  # turned round: the baseline's share less the hardened model's
        return _judged(gate, _difference(Paired(c.both, c.only_second, c.only_first, c.neither)))
    at = found.results[_which_eps(gate, radii)]
    if gate.name == "robust":
        return _judged(gate, _share(at.hardened.robust.correct, at.hardened.robust.count))
    assert at.pairs is not None  # checked by check_compared
    return _judged(gate, _difference(at.pairs))


@dataclass(frozen=True)
class _Figure:
    """A figure to be judged.

    Attributes:
        value: The figure.
        interval: Its two-sided interval at :data:`CONFIDENCE`.
        basis: What it was measured on.
        show: Puts such a number into words.
        count: Of samples; 0 where it is not of samples.
        at: Returns the interval that the same figure would have with a number of samples.
    """

    value: float
    interval: Interval
    basis: str
    show: Callable[[float], str]
    count: int = 0
    at: Callable[[int], Interval] | None = None


def _share(correct: int, count: int) -> _Figure:
    def at(samples: int) -> Interval:
        method = exact if samples <= _MOST_EXACT else wilson
        return method(round(correct * samples / count), samples, confidence=CONFIDENCE)

    interval = exact(correct, count, confidence=CONFIDENCE)
    return _Figure(correct / count, interval, f"n = {count}", "{:.1%}".format, count, at)


def _difference(pairs: Paired) -> _Figure:
    cells = pairs.both, pairs.only_first, pairs.only_second, pairs.neither

    def at(samples: int) -> Interval:
        scaled = Paired(*(round(each * samples / pairs.count) for each in cells))
        return newcombe_paired(scaled, confidence=CONFIDENCE)

    return _Figure(pairs.difference, at(pairs.count), f"n = {pairs.count}", _points, pairs.count, at)


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _latency(ratios: Sequence[float]) -> _Figure:
    interval = median_interval(ratios, confidence=CONFIDENCE)
    basis = f"{len(ratios)} pairs of sessions, one sample at a time"
    return _Figure(statistics.median(ratios), interval, basis, "{:.3f}".format)


def _judged(gate: Gate, figure: _Figure) -> Decision:
    verdict, show, interval = _verdict(gate, figure.interval), figure.show, figure.interval
    numbers: dict[str, Any] = {
        "value": figure.value, "low": interval.low, "high": interval.high, "limit": gate.limit,
        "count": figure.count or None,
    }  # fmt: skip
    if verdict != "inconclusive":
        low = (verdict == "pass") == (_SIGNS[gate.name] == ">=")
        bound = f"at least {show(interval.low)}" if low else f"at most {show(interval.high)}"
        return Decision(gate.text, verdict, f"{show(figure.value)}, {bound} (95%), {figure.basis}", **numbers)
    samples = _deciding(gate, figure)
    if figure.at is None:
        advice = "measure again on a quiet machine"
    elif samples is None:
        advice = "so near the limit no number of samples decides"
    else:
        advice = f"about {samples:,} samples would decide it"
    between = f"between {show(interval.low)} and {show(interval.high)} (95% each)"
    return Decision(
        gate.text, verdict, f"{show(figure.value)}, {between}, {figure.basis}; {advice}", samples, **numbers
    )


def _verdict(gate: Gate, interval: Interval) -> Outcome:
    if _SIGNS[gate.name] == ">=":
        worst, best, limit = interval.low, interval.high, gate.limit
    else:
        worst, best, limit = -interval.high, -interval.low, -gate.limit
    if worst >= limit:
        return "pass"
    return "fail" if best < limit else "inconclusive"


def _deciding(gate: Gate, figure: _Figure) -> int | None:
    """Return the least number of samples that decides, should the figure stay, to two digits; None where none does."""
    if figure.at is None:
        return None
    low = high = figure.count
    while _verdict(gate, figure.at(high)) == "inconclusive":
        low, high = high, 2 * high
        if high > _MOST_SAMPLES:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if _verdict(gate, figure.at(middle)) == "inconclusive" else (low, middle)
    digit = int(10 ** max(len(str(high)) - 2, 0))
    return -(-high // digit) * digit


def _flags(gate: Gate, sanity: Sanity) -> Decision:
    fired = [flag.name for flag in sanity.fired]
    missing = [flag.name for flag in sanity.flags if flag.fired is None]
    said = f"{len(fired)} of {len(sanity.flags)} fired" + (f" ({', '.join(fired)})" if fired else "")
    said += f", {len(missing)} could not be measured ({', '.join(missing)})" if missing else ""
    verdict: Outcome = "fail" if fired else "inconclusive" if missing else "pass"
    return Decision(gate.text, verdict, said, value=len(fired), limit=gate.limit)
