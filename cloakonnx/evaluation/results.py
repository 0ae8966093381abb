"""What an evaluation holds: models, masks, samples, and both models' accuracy at each eps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloakonnx.records import Entries
from cloakonnx.statistics import (
    Accuracy,
    Paired,
    mcnemar_exact,
    newcombe_paired,
)


@dataclass(frozen=True)
class Stage:
    """One step of the worst case; its numbers are cumulative: it works on what those before have left.

    Attributes:
        name: An attack's name, ``replayed inputs`` or ``controls``.
        settings: Of the attack; None for the others.
        attacked: How many samples were still classified correctly before it.
        robust: How many still are after it.
        queries: Forward passes it took, in samples.
        gradients: Gradients it took, in samples.
        converged: Samples that hold and for which more steps of the attack change nothing.
    """

    name: str
    settings: Mapping[str, Any] | None
    attacked: int
    robust: int
    queries: int
    gradients: int
    converged: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds; where no sample converged there is no entry of it."""
        return {key: value for key, value in asdict(self).items() if key != "converged" or value}


@dataclass(frozen=True)
class Robustness:
    """One model at one eps.

    Attributes:
        robust: Correct on the clean input and on every input that was made or replayed: the worst case.
        noise: Control: correct on the clean input and on random noise of size eps.
        control: Control: the same under the control attack alone, which the random masks get too.
        stages: How the worst case came about.
    """

    robust: Accuracy
    noise: Accuracy
    control: Accuracy
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class RandomMask:
    """Control: a model with the mask's weights in random places, under the control attack."""

    clean: Accuracy
    control: Accuracy


@dataclass(frozen=True)
class AtEps:
    """Everything at one eps.

    Attributes:
        eps: The radius, in pixel space.
        static: The hardened model on the clean inputs and on those made on the baseline. No claim of robustness.
        hardened: The hardened model, attacked itself.
        baseline: The baseline, attacked itself in the same way.
        pairs: Robust samples of the hardened model (first) and of the baseline (second).
        random_masks: Controls; none where the model carries no masks.
    """

    eps: float
    static: Accuracy
    hardened: Robustness
    baseline: Robustness
    pairs: Paired
    random_masks: tuple[RandomMask, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and what follows from them, for files."""
        return _at_eps(self)


@dataclass(frozen=True)
class ModelRecord:
    """A model that was evaluated: its name, and its bytes' sha256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class MaskRecord:
    """A mask of the hardened model."""

    tap: str
    features: int
    removed: int


@dataclass(frozen=True)
class DataRecord:
    """The samples.

    Attributes:
        name: The source's name.
        count: How many.
        sha256: Of pixels and labels, in order.
        seen: How many of them the analysis that the mask comes from has seen; None where no analysis was given.
    """

    name: str
    count: int
    sha256: str
    seen: int | None = None


def difference_entries(pairs: Paired) -> dict[str, Any]:
    """Return a paired difference with its interval and p-value, for files."""
    interval = newcombe_paired(pairs)
    return {
        **asdict(pairs),
        "difference": pairs.difference,
        "interval": [interval.low, interval.high],
        "mcnemar_p": mcnemar_exact(pairs),
    }


def _robustness(found: Robustness) -> dict[str, Any]:
    return {
        "robust": found.robust.as_dict(),
        "noise": found.noise.as_dict(),
        "control": found.control.as_dict(),
        "stages": [stage.as_dict() for stage in found.stages],
    }


def _at_eps(result: AtEps) -> dict[str, Any]:
    return {
        "eps": result.eps,
        "static": result.static.as_dict(),
        "hardened": _robustness(result.hardened),
        "baseline": _robustness(result.baseline),
        "difference": difference_entries(result.pairs),
        "random_masks": [{"clean": m.clean.as_dict(), "control": m.control.as_dict()} for m in result.random_masks],
    }


def read_model(entries: Entries) -> ModelRecord:
    """Read a model's record; raises ValueError where it is damaged, as all readers here do."""
    return ModelRecord(entries.text("name"), entries.text("sha256"))


_MOST_SAMPLES = 10_000_000


def read_data(entries: Entries) -> DataRecord:
    """Read the record of samples."""
    return DataRecord(
        entries.text("name"), entries.whole("count", 1), entries.text("sha256"), entries.optional_whole("seen")
    )


def read_accuracy(entries: Entries) -> Accuracy:
    """Read the counts of a share."""
    count = _few(entries.whole("count", 1))
    correct = entries.whole("correct")
    if correct > count:
        raise ValueError(f"{correct} of {count} samples are correct")
    return Accuracy(correct, count)


def read_pairs(entries: Entries) -> Paired:
    """Read the counts of a paired difference."""
    return Paired(*(_few(entries.whole(key)) for key in ("both", "only_first", "only_second", "neither")))


def _few(count: int) -> int:
    """Return a number of samples; exact tests go through all numbers up to it, so a forged one may not be endless."""
    if count > _MOST_SAMPLES:
        raise ValueError(f"{count} samples are more than {_MOST_SAMPLES:,}")
    return count


def _read_robustness(entries: Entries) -> Robustness:
    stages = tuple(
        Stage(
            name=stage.text("name"),
            settings=stage.optional_object("settings"),
            attacked=stage.whole("attacked"),
            robust=stage.whole("robust"),
            queries=stage.whole("queries"),
            gradients=stage.whole("gradients"),
            converged=stage.whole_if_there("converged") or 0,
        )
        for stage in entries.objects("stages")
    )
    robust, noise, control = (read_accuracy(entries.object(key)) for key in ("robust", "noise", "control"))
    return Robustness(robust, noise, control, stages)


def read_at_eps(entries: Entries) -> AtEps:
    """Read what :meth:`AtEps.as_dict` gave."""
    return AtEps(
        eps=entries.number("eps"),
        static=read_accuracy(entries.object("static")),
        hardened=_read_robustness(entries.object("hardened")),
        baseline=_read_robustness(entries.object("baseline")),
        pairs=read_pairs(entries.object("difference")),
        random_masks=tuple(
            RandomMask(read_accuracy(m.object("clean")), read_accuracy(m.object("control")))
            for m in entries.objects("random_masks")
        ),
    )
