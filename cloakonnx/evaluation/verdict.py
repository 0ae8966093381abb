"""What an evaluation comes to, in a sentence, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloakonnx.evaluation.cells import eps_text
from cloakonnx.evaluation.intervals import Paired, newcombe_paired
from cloakonnx.evaluation.result import AtEps, Evaluation

_TITLES = {
    "gain": "Harder to attack",
    "doubt": "A gain that should not be trusted yet",
    "none": "No gain shown",
    "loss": "Easier to attack",
}


@dataclass(frozen=True)
class Verdict:
    """The verdict.

    Attributes:
        kind: ``gain``, ``doubt`` (a gain, but sanity flags fired or samples had been seen), ``none`` or ``loss``.
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


def verdict(found: Evaluation) -> Verdict:
    """Judge an evaluation by its paired 95% intervals: a gain or a loss is one whose interval leaves 0 out."""
    gains = [each for each in found.results if newcombe_paired(each.pairs).low > 0]
    losses = [each for each in found.results if newcombe_paired(each.pairs).high < 0]
    caveats = _caveats(found)
    who = "the masks" if found.masks else "the model's changes"
    if losses:
        worst = min(losses, key=lambda each: each.pairs.difference)
        beside = f" They gain at {_radii(gains)}." if gains else ""
        text = f"Under attacks made on the hardened model, {who} cost {_points(-worst.pairs.difference)} points of "
        text += f"robust accuracy at {_at(worst)}.{beside}"
        return Verdict("loss", text, caveats)
    if not gains:
        best = max(found.results, key=lambda each: each.pairs.difference)
        text = f"No difference in robust accuracy is shown at {_radii(found.results)}: "
        text += "the highest is " if len(found.results) > 1 else "it is "
        text += f"{best.pairs.difference * 100:+.1f} points at {_at(best)}, which does not rule out 0."
        return Verdict("none", text, caveats)
    best = max(gains, key=lambda each: each.pairs.difference)
    text = f"Under attacks that know them, {who} raise robust accuracy at {eps_text(best.eps)} from "
    text = text if found.masks else text.replace("that know them", "made on the hardened model")
    text += f"{best.baseline.robust.value:.1%} to {best.hardened.robust.value:.1%}, that is by "
    text += f"{_points(best.pairs.difference)} points {interval_text(best.pairs)}, and {_clean(found.clean)}."
    silent = [each for each in found.results if each not in gains]
    text += f" No gain is shown at {_radii(silent)}." if silent else ""
    doubted = bool(found.data.seen) or (found.sanity is not None and bool(found.sanity.fired))
    return Verdict("doubt" if doubted else "gain", text, caveats)


def interval_text(pairs: Paired) -> str:
    """Return the interval of a paired difference, in points."""
    interval = newcombe_paired(pairs)
    return f"[{interval.low * 100:+.1f}, {interval.high * 100:+.1f}]"


def _clean(clean: Paired) -> str:
    change = clean.difference
    if change == 0:
        return f"leave clean accuracy as it is {interval_text(clean)}"
    word = "raise it on clean samples by" if change > 0 else "cost"
    of = "" if change > 0 else " of clean accuracy"
    return f"{word} {_points(abs(change))} points{of} (difference {change * 100:+.1f} {interval_text(clean)})"


def _at(each: AtEps) -> str:
    return f"{eps_text(each.eps)} {interval_text(each.pairs)}"


def _points(value: float) -> str:
    return f"{value * 100:.1f}"


def _radii(results: Sequence[AtEps]) -> str:
    names = [eps_text(each.eps) for each in results]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _caveats(found: Evaluation) -> tuple[str, ...]:
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
