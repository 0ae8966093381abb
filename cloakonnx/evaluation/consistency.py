"""Whether the numbers of a result file agree with each other: counts with counts, and what is stated with the counts.

A file that was changed by hand, or put together of two, is refused where it is read: a gate or a page made of it would
show numbers that nobody measured. Every check raises ValueError, which names the entry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cloakonnx.evaluation.results import (
    AtEps,
    Beside,
    DataRecord,
    MaskRecord,
    ModelRecord,
    RandomMask,
    Robustness,
    Stage,
)
from cloakonnx.statistics import Accuracy, Paired

_MOST_SAMPLES = 10_000_000
_NORMS = ("linf", "l2")
_NEAR = 1e-6
"""How far a stated number may be from the one that follows: other platforms round otherwise, people change more."""


def check_norm(norm: str, where: str) -> None:
    """Check that a norm is one that attacks know."""
    if norm not in _NORMS:
        raise ValueError(f"{where} is {norm!r}, neither {' nor '.join(_NORMS)}")


def check_model(model: ModelRecord, where: str) -> None:
    """Check the digest of a model."""
    _check_digest(model.sha256, f"{where}.sha256")


def check_data(data: DataRecord) -> None:
    """Check the record of the samples."""
    _check_digest(data.sha256, "data.sha256")
    if data.count > _MOST_SAMPLES:
        raise ValueError(f"data.count is {data.count}, more than {_MOST_SAMPLES:,} samples")
    if data.seen is not None and data.seen > data.count:
        raise ValueError(f"data.seen is {data.seen}, more than the {data.count} samples of data.count")


def check_masks(masks: Sequence[MaskRecord]) -> None:
    """Check that no mask removes more features than it has."""
    for i, mask in enumerate(masks):
        if mask.removed > mask.features:
            raise ValueError(f"masks[{i}].removed is {mask.removed}, more than its {mask.features} features")


def check_clean(right: Accuracy, pairs: Paired | None, count: int, *, where: str) -> None:
    """Check clean accuracy.

    Args:
        right: What the model gets right on clean samples.
        pairs: What the model and its baseline get right; None without a baseline.
        count: The number of samples, which is data.count.
        where: Place of both in the file, for messages.
    """
    if pairs is not None:
        check_paired(pairs, count, f"{where}.difference")
        first = pairs.both + pairs.only_first
        _equal(right.correct, first, f"{where}.hardened.correct is", f"the counts of {where}.difference")
    check_counts(right, count, f"{where}.hardened")


def check_results(results: Sequence[AtEps], right: Accuracy, pairs: Paired | None, count: int, *, where: str) -> None:
    """Check the counts of an evaluation at every eps.

    Args:
        results: One for each eps.
        right: What the model gets right on clean samples.
        pairs: What the model and its baseline get right on clean samples; None without a baseline.
        count: The number of samples, which is data.count.
        where: Place of the results in the file, for messages.
    """
    if not results:
        raise ValueError(f"{where} has no entry, so nothing was evaluated")
    known: list[float] = []
    for i, each in enumerate(results):
        here = f"{where}[{i}]"
        if each.eps <= 0:
            raise ValueError(f"{here}.eps is {each.eps:g}; a radius is above 0")
        if any(math.isclose(each.eps, other, rel_tol=1e-9) for other in known):
            raise ValueError(f"{here}.eps is {each.eps:g}, which an entry before it has too")
        known.append(each.eps)
        _check_at(each, right, pairs, count, here)


def check_length(entries: Sequence[object], count: int, where: str) -> None:
    """Check that a list has as many entries as there are things that it is about."""
    if len(entries) != count:
        raise ValueError(f"{where} has {len(entries)} entries, not {count}")


def check_paired(pairs: Paired, count: int, where: str) -> None:
    """Check that a comparison is one of all samples."""
    _equal(pairs.count, count, f"the counts of {where} add up to", "data.count")


def check_counts(accuracy: Accuracy, count: int, where: str) -> None:
    """Check that a share is one of all samples."""
    _equal(accuracy.count, count, f"{where}.count is", "data.count")


def check_stated(stated: Any, follows: Any, where: str) -> None:
    """Check the numbers that a file states against those that follow from its counts.

    Args:
        stated: An entry of the file.
        follows: The same entry, worked out of the counts.
        where: Its place in the file, for messages.
    """
    if isinstance(follows, Mapping):
        for key, value in follows.items():
            if not isinstance(stated, Mapping) or key not in stated:
                raise ValueError(f"the entry {where}.{key} is missing")
            check_stated(stated[key], value, f"{where}.{key}")
    elif isinstance(follows, (list, tuple)):
        if not isinstance(stated, list) or len(stated) != len(follows):
            raise ValueError(f"{where} is not a list of {len(follows)} entries")
        for i, (one, other) in enumerate(zip(stated, follows, strict=True)):
            check_stated(one, other, f"{where}[{i}]")
    elif isinstance(follows, (int, float)) and not isinstance(follows, bool):
        number, wanted = _as_float(stated), _as_float(follows)
        if number is None or wanted is None or not (number == wanted or abs(number - wanted) <= _NEAR):
            said = "no number" if number is None else f"{number:.6g}"
            raise ValueError(f"{where} is {said}, but {wanted:.6g} follows from the counts")


def _as_float(stated: Any) -> float | None:
    """Return a number of a file, infinity where a float can't hold it; None for what is no number."""
    if not isinstance(stated, (int, float)) or isinstance(stated, bool):
        return None
    try:
        return float(stated)
    except OverflowError:
        return math.inf


def _check_at(at: AtEps, right: Accuracy, pairs: Paired | None, count: int, where: str) -> None:
    beside = at.beside
    missing = [each is None for each in (pairs, at.static, at.baseline, at.pairs)]
    if any(missing) and not all(missing):
        raise ValueError(f"{where}: static, baseline and difference are null without a baseline, and only then")
    _check_model(at.hardened, right.correct, at.eps, count, f"{where}.hardened")
    if beside is not None and pairs is not None:
        _at_most(
            beside.static, right.correct, f"{where}.static", "the clean samples that the hardened model gets right"
        )
        _check_beside(at, beside, pairs, count, where)
    for i, mask in enumerate(at.random_masks):
        _check_random(mask, count, f"{where}.random_masks[{i}]")


def _check_beside(at: AtEps, beside: Beside, pairs: Paired, count: int, where: str) -> None:
    check_paired(beside.pairs, count, f"{where}.difference")
    check_counts(beside.static, count, f"{where}.static")
    _check_model(beside.baseline, pairs.both + pairs.only_second, at.eps, count, f"{where}.baseline")
    for who, found, robust in (
        ("hardened", at.hardened, beside.pairs.both + beside.pairs.only_first),
        ("baseline", beside.baseline, beside.pairs.both + beside.pairs.only_second),
    ):
        here = f"{where}.{who}"
        _equal(found.robust.correct, robust, f"{here}.robust.correct is", f"the counts of {where}.difference")
    _at_most(at.hardened.robust, beside.static.correct, f"{where}.hardened.robust", f"{where}.static.correct")


def _check_model(found: Robustness, right: int, eps: float, count: int, where: str) -> None:
    _check_robustness(found, right, count, where)
    _check_stages(found, right, eps, where)


def _check_robustness(found: Robustness, right: int, count: int, where: str) -> None:
    for name, share in (("robust", found.robust), ("noise", found.noise), ("control", found.control)):
        check_counts(share, count, f"{where}.{name}")
        _at_most(share, right, f"{where}.{name}", "the clean samples that the model gets right")
    for name, share in (("noise", found.noise), ("control", found.control)):
        _at_most(found.robust, share.correct, f"{where}.robust", f"{where}.{name}.correct")


def _check_stages(found: Robustness, right: int, eps: float, where: str) -> None:
    """Check that every stage begins with what the one before it left, and the last one ends with what is robust."""
    left, before = right, "the clean samples that the model gets right"
    for i, stage in enumerate(found.stages):
        here = f"{where}.stages[{i}]"
        _equal(stage.attacked, left, f"{here}.attacked is", before)
        if stage.robust > stage.attacked:
            raise ValueError(f"{here}.robust is {stage.robust}, more than the {stage.attacked} that were attacked")
        _check_radius(stage, eps, here)
        left, before = stage.robust, f"{here}.robust"
    if found.stages:
        _equal(found.robust.correct, left, f"{where}.robust.correct is", before)


def _check_radius(stage: Stage, eps: float, where: str) -> None:
    made = _as_float((stage.settings or {}).get("eps"))
    if made is not None and not math.isclose(made, eps, rel_tol=1e-6):
        raise ValueError(f"{where}.settings.eps is {made:g}, but it stands among those of eps {eps:g}")


def _check_random(mask: RandomMask, count: int, where: str) -> None:
    check_counts(mask.clean, count, f"{where}.clean")
    check_counts(mask.control, count, f"{where}.control")
    _at_most(mask.control, mask.clean.correct, f"{where}.control", f"{where}.clean.correct")


def _at_most(share: Accuracy, most: int, where: str, what: str) -> None:
    if share.correct > most:
        raise ValueError(f"{where}.correct is {share.correct}, more than {what}: {most}")


def _equal(one: int, other: int, said: str, what: str) -> None:
    if one != other:
        raise ValueError(f"{said} {one}, but {what} says {other}")


def _check_digest(text: str, where: str) -> None:
    if re.fullmatch("[0-9a-f]{64}", text) is None:
        raise ValueError(f"{where} is not 64 hex digits")
