"""What an evaluation found: counts, and the shares and intervals that follow from them.

The file is JSON; its schema is published as docs/evaluation.schema.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cloakonnx.errors import DataError
from cloakonnx.evaluation.accuracies import Accuracy
from cloakonnx.evaluation.flags import Sanity
from cloakonnx.evaluation.intervals import CONFIDENCE, Paired, mcnemar_exact, newcombe_paired
from cloakonnx.graph import write_text
from cloakonnx.scoring import Entries, installed_versions, read_json, read_text

FORMAT, VERSION = "cloakonnx.evaluation", 1

STATEMENT = (
    "A constant mask is known to the attacker; this is an empirical result under the named attacks, not a certificate."
)
"""Stands in every result that people read."""


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
    """

    name: str
    settings: Mapping[str, Any] | None
    attacked: int
    robust: int
    queries: int
    gradients: int


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


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a hardened model beside its baseline.

    Attributes:
        model: The hardened model.
        baseline: What it is compared with.
        baseline_is_stripped: Whether the baseline is the hardened model without its masks.
        masks: What the hardened model carries.
        data: The samples.
        preprocessing: From pixel space to the model's input.
        attack: Name of the preset or of the attack.
        norm: Of the balls.
        seed: Of all random numbers.
        batch_size: Samples at a time.
        provider: The execution provider.
        control: Settings of the control attack, but for eps.
        clean: Clean samples that the hardened model (first) and the baseline (second) classify correctly.
        results: One for each eps.
        notes: What the attacks took instead of their own losses or targets or could not do, and what the labels and
            scores are not, in words.
        sanity: The sanity checks of the hardened model; None where they were not made.
        versions: Of the packages.
    """

    model: ModelRecord
    baseline: ModelRecord
    baseline_is_stripped: bool
    masks: tuple[MaskRecord, ...]
    data: DataRecord
    preprocessing: Mapping[str, Any]
    attack: str
    norm: str
    seed: int
    batch_size: int
    provider: str
    control: Mapping[str, Any]
    clean: Paired
    results: tuple[AtEps, ...]
    notes: tuple[str, ...] = ()
    sanity: Sanity | None = None
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    @property
    def clean_hardened(self) -> Accuracy:
        """Clean accuracy of the hardened model."""
        return Accuracy(self.clean.both + self.clean.only_first, self.clean.count)

    @property
    def clean_baseline(self) -> Accuracy:
        """Clean accuracy of the baseline."""
        return Accuracy(self.clean.both + self.clean.only_second, self.clean.count)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds: the counts, and the shares, intervals and p-values that follow from them."""
        content = asdict(self)
        content["preprocessing"] = dict(self.preprocessing)
        content["clean"] = {
            "hardened": self.clean_hardened.as_dict(),
            "baseline": self.clean_baseline.as_dict(),
            "difference": difference_entries(self.clean),
        }
        content["results"] = [_at_eps(result) for result in self.results]
        content["notes"] = list(self.notes)
        content["sanity"] = None if self.sanity is None else self.sanity.as_dict()
        content["versions"] = dict(self.versions)
        head = {"format": FORMAT, "version": VERSION, "statement": STATEMENT, "confidence": CONFIDENCE}
        return {**head, **content}

    def to_json(self) -> str:
        """Return the file's text: the same evaluation always gives the same text."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n"

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from cloakonnx.evaluation.notebook import evaluation_html  # noqa: PLC0415

        return evaluation_html(self)

    def save(self, path: str | Path) -> None:
        """Write the file atomically; raises OutputError where it can't be written."""
        write_text(Path(path), self.to_json())

    @classmethod
    def from_json(cls, text: str, *, name: str = "evaluation") -> Evaluation:
        """Read the file's text; what follows from the counts is worked out again.

        Raises:
            DataError: it is not an evaluation, or one of a later version.
        """
        return read_json(
            text, cls._from_entries, kind="evaluation", version=VERSION, verb="evaluate", name=name, error=DataError
        )

    @classmethod
    def _from_entries(cls, entries: Entries) -> Evaluation:
        stripped = entries.any("baseline_is_stripped")
        if not isinstance(stripped, bool):
            raise ValueError("baseline_is_stripped is neither true nor false")
        return cls(
            model=read_model(entries.object("model")),
            baseline=read_model(entries.object("baseline")),
            baseline_is_stripped=stripped,
            masks=tuple(
                MaskRecord(m.text("tap"), m.whole("features", 1), m.whole("removed")) for m in entries.objects("masks")
            ),
            data=read_data(entries.object("data")),
            preprocessing=entries.optional_object("preprocessing") or {},
            attack=entries.text("attack"),
            norm=entries.text("norm"),
            seed=entries.whole("seed"),
            batch_size=entries.whole("batch_size", 1),
            provider=entries.text("provider"),
            control=entries.optional_object("control") or {},
            clean=read_pairs(entries.object("clean").object("difference")),
            results=tuple(map(read_at_eps, entries.objects("results"))),
            notes=entries.texts("notes"),
            sanity=None if entries.any("sanity") is None else Sanity.read(entries.object("sanity")),
            versions=entries.text_map("versions"),
        )


def load_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation's file.

    Raises:
        DataError: missing or damaged.
    """
    return Evaluation.from_json(read_text(path, kind="evaluation", error=DataError), name=str(path))


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
        "stages": [asdict(stage) for stage in found.stages],
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


def read_data(entries: Entries) -> DataRecord:
    """Read the record of samples."""
    return DataRecord(
        entries.text("name"), entries.whole("count", 1), entries.text("sha256"), entries.optional_whole("seen")
    )


def read_accuracy(entries: Entries) -> Accuracy:
    """Read the counts of a share."""
    count = entries.whole("count", 1)
    correct = entries.whole("correct")
    if correct > count:
        raise ValueError(f"{correct} of {count} samples are correct")
    return Accuracy(correct, count)


def read_pairs(entries: Entries) -> Paired:
    """Read the counts of a paired difference."""
    return Paired(*(entries.whole(key) for key in ("both", "only_first", "only_second", "neither")))


def _read_robustness(entries: Entries) -> Robustness:
    stages = tuple(
        Stage(
            name=stage.text("name"),
            settings=stage.optional_object("settings"),
            attacked=stage.whole("attacked"),
            robust=stage.whole("robust"),
            queries=stage.whole("queries"),
            gradients=stage.whole("gradients"),
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
