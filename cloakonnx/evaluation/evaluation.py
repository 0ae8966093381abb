"""What an evaluation found: counts, and the shares and intervals that follow from them.

The file is JSON; its schema is published as docs/evaluation.schema.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from cloakonnx.entries import OMITTED, At, Norm, Positive, Whole, derived
from cloakonnx.errors import DataError
from cloakonnx.evaluation.consistency import (
    check_clean,
    check_data,
    check_masks,
    check_model,
    check_norm,
    check_results,
    check_stated,
)
from cloakonnx.evaluation.results import AtEps, Beside, DataRecord, MaskRecord, ModelRecord, Robustness
from cloakonnx.evaluation.sanity.flags import Sanity
from cloakonnx.files import write_text
from cloakonnx.json_files import JsonFile, converted, installed_versions, read_text
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.statistics import CONFIDENCE, Accuracy, Paired, difference_cells, newcombe_paired, share_cell
from cloakonnx.text import eps_text, line, table, title

VERSION = 1

STATEMENT = (
    "A constant mask is known to the attacker; this is an empirical result under the named attacks, not a certificate."
)
"""Stands in every file, and below the numbers of a model with masks."""
_EMPIRICAL = "This is an empirical result under the named attacks, not a certificate."


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a model, alone or beside a baseline.

    Attributes:
        model: The model.
        baseline: What it is compared with; None where it was evaluated alone.
        baseline_is_stripped: Whether the baseline is the model without its masks, taken out for the evaluation.
        masks: What the model carries.
        data: The samples.
        preprocessing: From pixel space to the model's input.
        attack: Name of the preset or of the attack.
        norm: Norm of the eps balls.
        seed: Random seed.
        batch_size: Batch size.
        provider: The execution provider.
        control: Settings of the control attack, except eps.
        clean_hardened: Clean accuracy of the model.
        clean: Clean samples that the model (first) and the baseline (second) classify correctly; None without one.
        results: One for each eps.
        notes: What the attacks took instead of their own losses or targets or could not do, and what the labels and
            scores are not, in words.
        sanity: The sanity checks of the hardened model; None where they were not made.
        versions: Versions of the packages that decide the numbers.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.
        classes: The number of classes; None in files of versions that did not record it.
        baseline_is_source: Whether the baseline is the model without its masks, named or taken out: inputs made on it
            and replayed are the static protocol then, and plain transfer between two models where it is not.

    Example:
        >>> import cloakonnx as ck
        >>> samples = {"model": "samples/digits_cnn.onnx", "samples": "samples/digits_test_fgsm.npz"}
        >>> ck.evaluate(**samples, eps=0.01, attack="noise", sanity=False).attack
        'noise'
    """

    model: ModelRecord
    baseline: ModelRecord | None
    baseline_is_stripped: bool
    masks: tuple[MaskRecord, ...]
    data: DataRecord
    preprocessing: Annotated[Mapping[str, Any], At(described=Preprocessing)]
    attack: str
    norm: Norm
    seed: Whole
    batch_size: Positive
    provider: str
    control: Mapping[str, Any]
    clean_hardened: Annotated[Accuracy, At("clean.hardened")]
    clean: Annotated[Paired | None, At("clean.difference")]
    results: Annotated[tuple[AtEps, ...], Meta(extra_json_schema={"minItems": 1})]
    notes: tuple[str, ...] = ()
    sanity: Sanity | None = None
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    threads: Annotated[Positive | None, OMITTED] = None
    classes: Annotated[Positive | None, OMITTED] = None
    baseline_is_source: Annotated[bool, OMITTED] = True

    @property
    @derived("clean.baseline", before="clean")
    def clean_baseline(self) -> Accuracy | None:
        """Clean accuracy of the baseline; None without one."""
        pairs = self.clean
        return None if pairs is None else Accuracy(pairs.both + pairs.only_second, pairs.count)

    @property
    def statement(self) -> str:
        """What people read below the numbers."""
        return STATEMENT if self.masks else _EMPIRICAL

    @property
    def replayed(self) -> str:
        """Name of the accuracy on inputs that were made on the baseline."""
        return "static" if self.baseline_is_source else "transfer"

    @property
    def columns(self) -> tuple[str, str]:
        """Names of the baseline and of the model in tables."""
        return ("before", "after") if self.baseline_is_source else ("baseline", "model")

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds: the counts, and the shares, intervals and p-values that follow from them."""
        return EVALUATION.content(self)

    def to_json(self) -> str:
        """Return the file's text: the same evaluation always gives the same text."""
        return EVALUATION.text(self)

    @property
    def sha256(self) -> str:
        """sha256 of the file's text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def verdict(self) -> Verdict:
        """What it shows, in words, by its paired 95% intervals."""
        return verdict(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return evaluation_html(self)

    def save(self, path: str | Path) -> None:
        """Write the file atomically; raises OutputError where it can't be written."""
        write_text(Path(path), self.to_json())

    @classmethod
    def from_json(cls, text: str, *, name: str = "evaluation") -> Evaluation:
        """Read the file's text; what follows from the counts is worked out again.

        Raises:
            DataError: it is not an evaluation, or one of a later version, or its numbers contradict each other.
        """
        return EVALUATION.read(text, cls._of, name=name)

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Evaluation:
        found = converted(content, cls)
        found._check(content)
        return found

    def _check(self, stated: Mapping[str, Any]) -> None:
        """Check the counts against each other, and what the file states against the counts; raises ValueError."""
        if not self.results:
            raise ValueError("results is empty")
        check_model(self.model, "model")
        if self.baseline is not None:
            check_model(self.baseline, "baseline")
        check_masks(self.masks)
        check_data(self.data)
        check_norm(self.norm, "norm")
        if (self.clean is None) != (self.baseline is None):
            raise ValueError("baseline and clean.difference: one of them is null, the other is not")
        check_clean(self.clean_hardened, self.clean, self.data.count, where="clean")
        check_results(self.results, self.clean_hardened, self.clean, self.data.count, where="results")
        if self.sanity is not None:
            self.sanity.check()
        if self.sanity is not None and self.sanity.samples > self.clean_hardened.correct:
            raise ValueError(
                f"sanity.samples is {self.sanity.samples}, more than the {self.clean_hardened.correct} clean samples "
                "that the model gets right"
            )
        follows = self.as_dict()
        for key in ("confidence", "clean", "results"):
            check_stated(stated.get(key), follows[key], key)


EVALUATION = JsonFile("evaluation", VERSION, "evaluate", DataError, {"statement": STATEMENT, "confidence": CONFIDENCE})
"""The file of an evaluation."""


def load_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation's file.

    Raises:
        DataError: missing or damaged, or its numbers contradict each other.
    """
    return Evaluation.from_json(read_text(path, kind="evaluation", error=DataError), name=str(path))


def evaluation_html(found: Evaluation) -> str:
    """Return an evaluation as a piece of HTML."""
    judged = verdict(found)
    under = f"Attack: {found.attack} ({found.norm}). Data: {found.data.name}, n = {found.data.count}. Intervals: 95%."
    return "".join(
        (
            title(f"{judged.title}: {found.model.name}"),
            line(judged.sentence),
            *map(line, judged.caveats),
            _html_table(found),
            line(under),
            line(found.statement),
        )
    )


def _html_table(found: Evaluation) -> str:
    if found.clean is None or found.clean_baseline is None:
        alone = [("clean", share_cell(found.clean_hardened))]
        alone += [(f"robust at {eps_text(each.eps)}", share_cell(each.hardened.robust)) for each in found.results]
        return table(("", "accuracy"), alone)
    rows = [
        ("clean", share_cell(found.clean_baseline), share_cell(found.clean_hardened), *difference_cells(found.clean))
    ]
    for each in found.results:
        if each.beside is not None:
            before, after = share_cell(each.beside.baseline.robust), share_cell(each.hardened.robust)
            cells = difference_cells(each.beside.pairs)
            rows.append((f"robust at {eps_text(each.eps)} (adaptive)", before, after, *cells))
            replayed = f"{found.replayed} at {eps_text(each.eps)} (no claim)"
            rows.append((replayed, "", share_cell(each.beside.static), "", ""))
    return table(("", *found.columns, "difference, points", "p"), rows)


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


def verdict(found: Evaluation) -> Verdict:
    """Judge an evaluation by its paired 95% intervals: a gain or a loss is one whose interval leaves 0 out.

    Of one model without a baseline it says the numbers.
    """
    caveats = _caveats(found)
    doubted = bool(found.data.seen) or (found.sanity is not None and bool(found.sanity.fired))
    if found.clean is None:
        return Verdict("unsure" if doubted else "measured", _alone(found), caveats)
    at = [_Change(each.eps, each.beside, each.hardened) for each in found.results if each.beside is not None]
    gains = [each for each in at if newcombe_paired(each.pairs).low > 0]
    losses = [each for each in at if newcombe_paired(each.pairs).high < 0]
    if losses:
        worst = min(losses, key=lambda each: each.pairs.difference)
        return Verdict("loss", _loss(found, worst, gains), caveats)
    if not gains:
        best = max(at, key=lambda each: each.pairs.difference)
        text = f"No difference in robust accuracy is shown at {_radii(at)}: "
        text += "the highest is " if len(at) > 1 else "it is "
        text += f"{best.pairs.difference * 100:+.1f} points at {_at(best)}, which does not rule out 0."
        return Verdict("none", text, caveats)
    best = max(gains, key=lambda each: each.pairs.difference)
    text = _gain(found, best, found.clean)
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


def _alone(found: Evaluation) -> str:
    """Return the numbers of one model in a sentence."""
    robust = [f"{share_cell(each.hardened.robust)} at {eps_text(each.eps)}" for each in found.results]
    listed = robust[0] if len(robust) == 1 else f"{', '.join(robust[:-1])} and {robust[-1]}"
    return (
        f"Under attacks made on it, the model classifies {listed} of the samples correctly, and "
        f"{share_cell(found.clean_hardened)} of the clean ones (percent, 95% intervals)."
    )


def _loss(found: Evaluation, worst: _Change, gains: Sequence[_Change]) -> str:
    if not found.baseline_is_source:
        return _difference(found, worst)
    who = "the masks" if found.masks else "the model's changes"
    beside = f" They gain at {_radii(gains)}." if gains else ""
    return (
        f"Under attacks made on the hardened model, {who} cost {_points(-worst.pairs.difference)} points of robust "
        f"accuracy at {_at(worst)}.{beside}"
    )


def _gain(found: Evaluation, best: _Change, clean: Paired) -> str:
    if not found.baseline_is_source:
        return _difference(found, best)
    who = "the masks" if found.masks else "the model's changes"
    under = "that know them" if found.masks else "made on the hardened model"
    return (
        f"Under attacks {under}, {who} raise robust accuracy at {eps_text(best.eps)} from "
        f"{best.beside.baseline.robust.value:.1%} to {best.hardened.robust.value:.1%}, that is by "
        f"{_points(best.pairs.difference)} points {interval_text(best.pairs)}, and {_clean(clean)}."
    )


def _difference(found: Evaluation, at: _Change) -> str:
    """Compare two models that are not one model with and without masks."""
    baseline = "the baseline" if found.baseline is None else found.baseline.name
    text = (
        f"Under attacks made on each model, robust accuracy at {eps_text(at.eps)} is {at.hardened.robust.value:.1%} "
        f"for {found.model.name} and {at.beside.baseline.robust.value:.1%} for {baseline}, a difference of "
        f"{at.pairs.difference * 100:+.1f} points {interval_text(at.pairs)}"
    )
    if found.clean is None:
        return f"{text}."
    return f"{text}; clean accuracy differs by {found.clean.difference * 100:+.1f} {interval_text(found.clean)}."


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


def _at(each: _Change) -> str:
    return f"{eps_text(each.eps)} {interval_text(each.pairs)}"


def _points(value: float) -> str:
    return f"{value * 100:.1f}"


def _radii(results: Sequence[_Change]) -> str:
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
