"""What an evaluation says in words: a gain, a loss, no difference, or the numbers of one model, and what to doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cloakonnx.evaluation.results import AtEps, Beside, DataRecord, MaskRecord, ModelRecord, Robustness
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.statistics import Accuracy, Paired, newcombe_paired, share_cell
from cloakonnx.text import eps_text


class Judged(Protocol):
    """What a verdict is made of: an evaluation."""

    @property
    def model(self) -> ModelRecord:
        """The model."""

    @property
    def baseline(self) -> ModelRecord | None:
        """What it is compared with; None where it was evaluated alone."""

    @property
    def baseline_is_source(self) -> bool:
        """Whether the baseline is the model without its masks."""

    @property
    def masks(self) -> tuple[MaskRecord, ...]:
        """What the model carries."""

    @property
    def data(self) -> DataRecord:
        """The samples."""

    @property
    def clean_hardened(self) -> Accuracy:
        """Clean accuracy of the model."""

    @property
    def clean(self) -> Paired | None:
        """Clean samples that the model (first) and the baseline (second) classify correctly; None without one."""

    @property
    def results(self) -> tuple[AtEps, ...]:
        """One for each eps."""

    @property
    def sanity(self) -> Sanity | None:
        """The sanity checks; None where they were not made."""


_TITLES = {
    "gain": "Harder to attack",
    "doubt": "A gain that should not be trusted yet",
    "none": "No gain shown",
    "loss": "Easier to attack",
    "measured": "Robust accuracy of one model",
    "unsure": "Robust accuracy that should not be trusted yet",
}


@dataclass(frozen=True)
class Verdict:
    """The verdict.

    Attributes:
        kind: ``gain``, ``doubt`` (a gain, but sanity flags fired or samples had been seen), ``none`` or ``loss``; of
            one model ``measured``, or ``unsure`` (sanity flags fired).
        sentence: It, with the numbers.
        caveats: What speaks against the numbers, a sentence each.
    """

    kind: str
    sentence: str
    caveats: tuple[str, ...]

    @property
    def title(self) -> str:
        """It in a few words."""
        return _TITLES[self.kind]


def verdict(found: Judged) -> Verdict:
    """Judge an evaluation by its paired 95% intervals: a gain or a loss is one whose interval leaves 0 out.

    Of one model without a baseline it says the numbers.
    """
    caveats = _caveats(found)
    doubted = bool(found.data.seen) or (found.sanity is not None and bool(found.sanity.fired))
    if found.clean is None or found.baseline is None:
        return Verdict("unsure" if doubted else "measured", _alone(found), caveats)
    at = [_Change(each.eps, each.beside, each.hardened) for each in found.results if each.beside is not None]
    gains = [each for each in at if newcombe_paired(each.pairs).low > 0]
    losses = [each for each in at if newcombe_paired(each.pairs).high < 0]
    if losses:
        worst = min(losses, key=lambda each: each.pairs.difference)
        text = _loss(found, worst, gains)
        return Verdict("loss", text if found.baseline_is_source else _difference(found, worst, found.clean), caveats)
    if not gains:
        best = max(at, key=lambda each: each.pairs.difference)
        text = f"No difference in robust accuracy is shown at {_radii(at)}: "
        text += "the highest is " if len(at) > 1 else "it is "
        text += f"{best.pairs.difference * 100:+.1f} points at {_at(best)}, which does not rule out 0."
        return Verdict("none", text, caveats)
    best = at[0] if at[0] in gains else max(gains, key=lambda each: each.pairs.difference)
    text = (_gain if found.baseline_is_source else _difference)(found, best, found.clean)
    silent = [each for each in at if each not in gains]
    text += f" No gain is shown at {_radii(silent)}." if silent else ""
    return Verdict("doubt" if doubted else "gain", text, caveats)


@dataclass(frozen=True)
class _Change:
    """Both models at one eps."""

    eps: float
    beside: Beside
    hardened: Robustness

    @property
    def pairs(self) -> Paired:
        return self.beside.pairs


def _alone(found: Judged) -> str:
    """Return the numbers of one model in a sentence."""
    robust = [f"{share_cell(each.hardened.robust)} at {eps_text(each.eps)}" for each in found.results]
    listed = robust[0] if len(robust) == 1 else f"{', '.join(robust[:-1])} and {robust[-1]}"
    return (
        f"Under attacks made on the model, its robust accuracy is {listed}; its clean accuracy is "
        f"{share_cell(found.clean_hardened)} (95% intervals)."
    )


def _loss(found: Judged, worst: _Change, gains: Sequence[_Change]) -> str:
    who = "the masks" if found.masks else "the model's changes"
    beside = f" They gain at {_radii(gains)}." if gains else ""
    return (
        f"Under attacks made on the hardened model, {who} cost {_points(-worst.pairs.difference)} points of robust "
        f"accuracy at {_at(worst)}.{beside}"
    )


def _gain(found: Judged, best: _Change, clean: Paired) -> str:
    who = "the masks" if found.masks else "the model's changes"
    under = "that know them" if found.masks else "made on the hardened model"
    return (
        f"Under attacks {under}, {who} raise robust accuracy at {eps_text(best.eps)} from "
        f"{best.beside.baseline.robust.value:.1%} to {best.hardened.robust.value:.1%}, that is by "
        f"{_points(best.pairs.difference)} points {interval_text(best.pairs)}, and {_clean(clean)}."
    )


def _difference(found: Judged, at: _Change, clean: Paired) -> str:
    """Compare two models that are not one model with and without masks."""
    assert found.baseline is not None  # there are two
    return (
        f"Under attacks made on each model, robust accuracy at {eps_text(at.eps)} is {at.hardened.robust.value:.1%} "
        f"for {found.model.name} and {at.beside.baseline.robust.value:.1%} for {found.baseline.name}, a difference "
        f"of {at.pairs.difference * 100:+.1f} points {interval_text(at.pairs)}; clean accuracy differs by "
        f"{clean.difference * 100:+.1f} {interval_text(clean)}."
    )


def interval_text(pairs: Paired) -> str:
    """Return the interval of a paired difference, in points."""
    interval = newcombe_paired(pairs)
    return f"[{interval.low * 100:+.1f}, {interval.high * 100:+.1f}]"


def _clean(clean: Paired) -> str:
    """Say what becomes of clean accuracy; a change whose interval holds 0 is not called one."""
    change = clean.difference
    if change == 0:
        return f"leave clean accuracy as it is {interval_text(clean)}"
    if 0 in newcombe_paired(clean):
        return f"show no difference in clean accuracy ({change * 100:+.1f} points {interval_text(clean)})"
    word = "raise clean accuracy by" if change > 0 else "cost"
    of = "" if change > 0 else " of clean accuracy"
    return f"{word} {_points(abs(change))} points{of} (difference {change * 100:+.1f} {interval_text(clean)})"


def _at(each: _Change) -> str:
    return f"{eps_text(each.eps)} {interval_text(each.pairs)}"


def _points(value: float) -> str:
    return f"{value * 100:.1f}"


def _radii(results: Sequence[_Change]) -> str:
    names = [eps_text(each.eps) for each in results]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _caveats(found: Judged) -> tuple[str, ...]:
    said = []
    if found.data.seen:
        said.append(
            f"The masks' analysis has seen {found.data.seen} of the {found.data.count} samples, so the numbers are too "
            "good."
        )
    if found.sanity is None:
        said.append("The sanity checks were left out, so nothing here tells whether the attacks worked.")
    elif found.sanity.fired:
        names = ", ".join(flag.name for flag in found.sanity.fired)
        count = len(found.sanity.fired)
        said.append(f"{count} sanity flag{'s' * (count > 1)} fired: {names}.")
    missing = 0 if found.sanity is None else sum(flag.fired is None for flag in found.sanity.flags)
    if missing:
        said.append(f"{missing} sanity flag{'s' * (missing > 1)} could not be measured.")
    return tuple(said)
