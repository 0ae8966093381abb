"""Sanity checks: signs that attacks fail for reasons of their own, where the model is not robust.

After Carlini et al. 2019 (arXiv 1902.06705, section 5), Athalye et al. 2018 (arXiv 1802.00420, section 3.1: signs of
obfuscated gradients) and Tramer et al. 2020 (arXiv 2002.08347). They are made apart from the cascade, with budgets of
their own, on the first samples that the model classifies correctly. docs/sanity.md says what each flag measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from cloakonnx.attacks.base import Attack
from cloakonnx.attacks.victim import Gradients, Victim
from cloakonnx.data.batch import LabelledBatch
from cloakonnx.evaluation.outcomes import Gain, Outcomes
from cloakonnx.evaluation.sanity._bench import QUERIES, STRONG, Bench
from cloakonnx.evaluation.sanity.flags import Flag, Sanity
from cloakonnx.gradient.losses import Loss
from cloakonnx.runtime.session import to_numpy
from cloakonnx.statistics import Paired, mcnemar_exact, newcombe_paired

SAMPLES = 100
"""How many samples the checks are made on, at most."""

SINGLE_STEP, BLACK_BOX, ITERATIONS, RISE, WEAKER = 1.0, 0.2, 1.0, 1.0, 2.0
"""Thresholds in points."""

LEVEL = 0.05
"""Of McNemar's exact test, where attacks that walk other ways are compared: on 100 samples, six against none."""

ABOVE_CHANCE, ZERO, DIFFERENCE = 0.05, 0.01, 1e-4
"""Robust share above chance in half of pixel space; share of zero gradients; relative difference between two runs."""

_UNITS = {
    "single-step": ("points", SINGLE_STEP),
    "black-box": ("points", BLACK_BOX),
    "iterations": ("points", ITERATIONS),
    "eps-curve": ("points", RISE),
    "large-eps": ("share", ABOVE_CHANCE),
    "zero-gradients": ("share", ZERO),
    "saturation": ("points", WEAKER),
    "run-to-run": ("relative", DIFFERENCE),
}
"""The flags that need samples; their units and thresholds."""

_NAMED = 3
"""Ops that a flag names, at most."""

_NOTHING = "more steps of that length change nothing"

_LEAST = 2
"""Samples that a comparison of two attacks needs to fire: one sample more or less is chance."""


class Correct:
    """Gathers the first samples that a model classifies correctly.

    Args:
        count: How many.
    """

    def __init__(self, count: int = SAMPLES) -> None:
        self._count = count
        self._parts: list[LabelledBatch] = []

    def add(self, batch: LabelledBatch, right: Outcomes) -> None:
        """Take what is still wanted of a batch, of which the model gets some right."""
        missing = self._count - sum(len(part.y) for part in self._parts)
        rows = np.flatnonzero(right)[: max(missing, 0)]
        if len(rows):
            self._parts.append(batch.take(rows))

    def samples(self) -> LabelledBatch | None:
        """Return them as one batch; None where there are none."""
        if not self._parts:
            return None
        arrays = ((part.x, part.y, part.indices) for part in self._parts)
        x, y, indices = (np.concatenate(each) for each in zip(*arrays, strict=True))
        return LabelledBatch(x, y, indices)


def check(
    victim: Victim,
    samples: LabelledBatch | None,
    *,
    plans: Sequence[Sequence[Attack]],
    random_ops: Sequence[str],
    gains: Sequence[Gain],
    batch_size: int,
    converged: Mapping[float, int] | None = None,
) -> Sanity:
    """Make all checks on a model.

    Args:
        victim: The model.
        samples: Samples that it classifies correctly, from :class:`Correct`.
        plans: The evaluation's attacks, one plan for each eps.
        random_ops: The model's random ops, described.
        gains: What the masks gain in the evaluation, static and adaptive, at each eps; none where the baseline is not
            the model without its masks, so that there is no static protocol to doubt.
        batch_size: Samples at a time.
        converged: The eps at which the evaluation's own PGD converged for every sample that holds it, to their number.
    """
    before = victim.counts.queries, victim.counts.gradients
    gradients = Gradients.of(victim)
    passes = any(each.passes_straight for each in plans[0]) or bool(gradients.zero and gradients.pass_straight)
    bench = None if samples is None else Bench(victim, samples, plans, batch_size, straight_through=passes)
    flags = (
        *_on_samples(bench, gradients, converged or {}),
        _counted("random-ops", random_ops, "the scores depend on no random op"),
        _non_differentiable(victim, gradients, passes=passes),
        *((_static_gain(gains),) if gains else ()),
    )
    return Sanity(
        samples=0 if samples is None else len(samples.y),
        eps=() if bench is None else bench.ladder,
        attacks=() if bench is None else bench.attacks(),
        queries=victim.counts.queries - before[0],
        gradients=victim.counts.gradients - before[1],
        flags=flags,
    )


def _dead(bench: Bench, gradients: Gradients) -> Outcomes | None:
    """Return (N,) which clean samples have a gradient that is 0 everywhere, or not a number; None where there is none.

    The model's own gradient, as the attacks climb it, and none that goes straight through.
    """

    def dead(batch: LabelledBatch) -> Outcomes:
        gradient = to_numpy(bench.victim.gradient(batch.x, batch.y, loss=Loss.CE.climbed).gradient)
        flat = gradient.reshape(len(gradient), -1)
        return np.asarray(~flat.any(axis=1) | ~np.isfinite(flat).all(axis=1))

    if gradients.zero:
        return np.ones(bench.count, np.bool_)
    return None if gradients.missing else bench.each(dead)


def _on_samples(bench: Bench | None, gradients: Gradients, converged: Mapping[float, int]) -> tuple[Flag, ...]:
    if bench is None:
        missing = "the model classifies none of the samples correctly"
        return tuple(_not_measured(name, missing) for name in _UNITS)
    white = f"PGD-{bench.max_iter}"
    if gradients.missing:
        climbing = [_not_measured(name, gradients.missing) for name in ("single-step", "iterations", "saturation")]
    else:
        saturated = int(bench.each(lambda batch: _saturated(bench.victim, batch)).sum())
        double = f"PGD-{2 * bench.max_iter}"
        climbing = [
            _compared(
                bench, "single-step", SINGLE_STEP, (white, bench.pgd), ("one step of FGSM", bench.fgsm), level=LEVEL
            ),
            _compared(
                bench,
                "iterations",
                ITERATIONS,
                (white, bench.pgd),
                (double, partial(bench.pgd, times=2)),
                more=partial(_converged, bench),
                needless=partial(_needless, bench, converged),
            ),
            _compared(
                bench,
                "saturation",
                WEAKER,
                (f"{white} up frameworks' cross-entropy", partial(bench.pgd, loss=Loss.CE_SOFTMAX)),
                (f"{white} up the margin", partial(bench.pgd, loss=Loss.MARGIN)),
                also=f"; {saturated} of {bench.count} have a probability of exactly 1 as they are",
                possible=saturated > 0,
                level=LEVEL,
            ),
        ]
    found = {flag.name: flag for flag in climbing}
    return (
        found["single-step"],
        _black_box(bench, gradients),
        found["iterations"],
        *_curve(bench, square=bool(gradients.missing)),
        _zero_gradients(bench, gradients),
        found["saturation"],
        _run_to_run(bench),
    )


def _compared(
    bench: Bench,
    name: str,
    threshold: float,
    expected: tuple[str, Callable[[float], Outcomes]],
    other: tuple[str, Callable[[float], Outcomes]],
    *,
    also: str = "",
    more: Callable[[float, int], str] = lambda eps, left: "",
    needless: Callable[[float], str] = lambda eps: "",
    possible: bool = True,
    level: float = 1.0,
) -> Flag:
    """Count how many samples fewer withstand an attack than the one that should be at least as strong.

    Where ``needless`` says why the comparison can show nothing at an eps, it is not made there.
    """
    flags = []
    for eps in bench.eps:
        if why := needless(eps):
            flags.append(Flag(name, False, 0.0, "points", threshold, eps, why))
            continue
        pairs = Paired.of(expected[1](eps), other[1](eps))
        left, fewer = pairs.both + pairs.only_first, pairs.both + pairs.only_second
        value, p = 100 * (left - fewer) / bench.count, mcnemar_exact(pairs)
        fired = possible and left - fewer >= _LEAST and value > threshold and p <= level
        said = f"{left} of {bench.count} withstand {expected[0]}, {fewer} {other[0]}{also}{more(eps, fewer)}"
        if value > threshold and possible and not fired:
            said += f"; that may be chance: {left - fewer} of {bench.count}, McNemar's p {p:.2g}"
        flags.append(Flag(name, fired, value, "points", threshold, eps, said))
    return _worst(flags)


def _converged(bench: Bench, eps: float, left: int) -> str:
    """Say for how many of the samples that are left more steps of the same length change nothing."""
    count = bench.converged(eps, times=2)
    if not left or not count:
        return ""
    which = f"all {left}" if count == left else f"{count} of these {left}"
    return f"; in an exact cycle: {which}, for which {_NOTHING}"


def _needless(bench: Bench, converged: Mapping[float, int], eps: float) -> str:
    """Say that every sample that holds has converged, where that is known; empty where it is not."""
    if eps in converged:
        count = converged[eps]
        return f"the evaluation's own PGD ran into an exact cycle for each of the {count} robust samples: {_NOTHING}"
    left = int(bench.pgd(eps).sum())
    if left != bench.converged(eps):
        return ""
    cycle = f"all of them in an exact cycle: {_NOTHING}" if left else "so there is nothing for more iterations to find"
    return f"{left} of {bench.count} withstand PGD-{bench.max_iter}, {cycle}"


def _worst(flags: Sequence[Flag]) -> Flag:
    return max(flags, key=lambda flag: (bool(flag.fired), flag.value or 0.0))


def _black_box(bench: Bench, gradients: Gradients) -> Flag:
    """Count what Square finds and no attack with gradients does: those it finds are attacked once more, strongly."""
    if gradients.missing and not gradients.zero:
        return _not_measured("black-box", gradients.missing)
    flags = []
    for eps in bench.eps:
        if gradients.missing:  # every gradient is 0: no step moves anything
            missed = ~bench.square(eps)
            said = f"no step of FGSM or PGD moves anything; Square with {QUERIES} queries finds {int(missed.sum())} of"
            said = f"{said} {bench.count}"
        else:
            made = bench.fgsm(eps), bench.pgd(eps), bench.pgd(eps, times=2), bench.pgd(eps, loss=Loss.MARGIN)
            before = np.asarray(np.logical_and.reduce(made))
            missed = bench.strong(eps, before & ~bench.square(eps, before))
            said = (
                f"{int(before.sum())} of {bench.count} withstand FGSM and PGD; Square with {QUERIES} queries finds "
                f"{int(missed.sum())} that APGD-CE and APGD-targeted with {STRONG} iterations miss, too"
            )
        value = 100 * int(missed.sum()) / bench.count
        flags.append(Flag("black-box", value > BLACK_BOX, value, "points", BLACK_BOX, eps, said))
    return _worst(flags)


def _curve(bench: Bench, *, square: bool) -> tuple[Flag, Flag]:
    """Look at robust accuracy along the ladder of eps."""
    attack = bench.square if square else bench.pgd
    by = f"Square with {QUERIES} queries" if square else f"PGD-{bench.max_iter}"
    left = [int(attack(eps).sum()) for eps in bench.ladder]
    rises = [after - before for before, after in pairwise(left)]
    chance = 1 / bench.victim.classes
    at = left[bench.ladder.index(bench.half)]
    stuck = left[0] > chance * bench.count and left[-1] >= left[0]
    worst = max(range(len(rises)), key=rises.__getitem__) if rises else 0
    rise = max(rises, default=0)
    points = " ".join(f"{count} at {eps:.4g}," for eps, count in zip(bench.ladder, left, strict=True)).rstrip(",")
    said = f"of {bench.count} withstand {by}: {points}"
    share, limit = at / bench.count, chance + ABOVE_CHANCE
    return (
        Flag(
            "eps-curve",
            stuck or (rise >= _LEAST and 100 * rise / bench.count > RISE),
            100 * rise / bench.count,
            "points",
            RISE,
            bench.ladder[min(worst + 1, len(left) - 1)],
            f"{said}; it never falls" if stuck else said,
        ),
        Flag("large-eps", share > limit, share, "share", limit, bench.half, f"{at} {said.partition(':')[0]}"),
    )


def _zero_gradients(bench: Bench, gradients: Gradients) -> Flag:
    dead = _dead(bench, gradients)
    if dead is None:
        return _not_measured("zero-gradients", gradients.missing)
    count = int(dead.sum())
    share = count / bench.count
    said = (
        f"{count} of {bench.count} clean samples have an input gradient of 0 in every pixel, or none that is a number"
    )
    why = f": {gradients.zero}" if gradients.zero else ""
    instead = "; straight-through gradients stand in" if gradients.zero and gradients.pass_straight else ""
    return Flag("zero-gradients", share >= ZERO, share, "share", ZERO, None, said + why + instead)


def _saturated(victim: Victim, batch: LabelledBatch) -> Outcomes:
    logits = victim.logits(batch.x)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((powers / powers.sum(axis=1, keepdims=True)).max(axis=1) == 1)


def _run_to_run(bench: Bench) -> Flag:
    first, second = (bench.each(lambda batch: bench.victim.logits(batch.x)) for _ in range(2))
    decide = bench.victim.task.decide
    differ = ~((first == second) | (np.isnan(first) & np.isnan(second)))
    size = float(np.abs(first[np.isfinite(first)]).max(initial=0)) or 1.0
    value = float(np.abs(first[differ].astype(np.float64) - second[differ]).max(initial=0)) / size
    value = value if np.isfinite(value) else 1.0
    classes = int((decide(first) != decide(second)).sum())
    said = f"of a logit, at most, over the largest logit; {classes} of {bench.count} samples change class"
    return Flag("run-to-run", value > DIFFERENCE, value, "relative", DIFFERENCE, None, said)


def _counted(name: str, ops: Sequence[str], nothing: str) -> Flag:
    said = ", ".join(ops[:_NAMED]) + (f" and {len(ops) - _NAMED} more" if len(ops) > _NAMED else "")
    return Flag(name, bool(ops), float(len(ops)), "ops", 0.0, None, said or nothing)


def _non_differentiable(victim: Victim, gradients: Gradients, *, passes: bool) -> Flag:
    found = _counted("non-differentiable", victim.blocked, "gradients pass no op of zero gradient")
    used = "straight-through was used" if passes else "straight-through was not used (--straight-through)"
    if gradients.zero and not gradients.pass_straight:
        used = "straight-through gradients are 0 as well, so none were used"
    return replace(found, measured=f"{found.measured}; {used}") if found.fired else found


def _static_gain(gains: Sequence[Gain]) -> Flag:
    """Look whether anything is left of what the masks gain against replayed inputs once the attack is made again.

    Where eps is so large that nothing holds, nothing is left for any mask: one eps with a gain of its own is enough.
    """
    sure = [each for each in gains if newcombe_paired(each.static).low > 0]
    left = max(sure or gains, key=lambda each: newcombe_paired(each.adaptive).low)
    low = 100 * newcombe_paired(left.adaptive).low
    said = (
        f"{100 * left.static.difference:+.1f} points against inputs made on the baseline, "
        f"{100 * left.adaptive.difference:+.1f} adaptive (at least {low:+.1f}, 95%)"
    )
    if not sure and left.static.difference > 0:
        said += "; the static gain itself may be chance"
    return Flag("static-gain", bool(sure) and low <= 0, low, "points", 0.0, left.eps, said)


def _not_measured(name: str, reason: str) -> Flag:
    unit, threshold = _UNITS[name]
    return Flag(name, None, None, unit, threshold, None, f"not measured: {reason}")
