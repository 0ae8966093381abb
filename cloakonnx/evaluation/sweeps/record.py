"""What a sweep found: a curve of clean and static accuracy, and adaptive accuracy at some of its points.

The file is JSON; its schema is published as docs/sweep.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cloakonnx.errors import DataError
from cloakonnx.evaluation.consistency import (
    check_counts,
    check_data,
    check_model,
    check_norm,
    check_results,
    check_stated,
)
from cloakonnx.evaluation.evaluation import STATEMENT
from cloakonnx.evaluation.results import (
    AtEps,
    DataRecord,
    ModelRecord,
    difference_entries,
    read_accuracy,
    read_at_eps,
    read_data,
    read_model,
    read_pairs,
)
from cloakonnx.files import write_text
from cloakonnx.records import Entries, installed_versions, read_json, read_text
from cloakonnx.statistics import CONFIDENCE, Accuracy, Paired

FORMAT, VERSION = "cloakonnx.sweep", 1


@dataclass(frozen=True)
class OfMask:
    """One mask.

    Attributes:
        clean: On clean samples.
        static: On the adversarial twins, made without the mask in sight. No claim of robustness.
    """

    clean: Accuracy
    static: Accuracy

    def as_dict(self) -> dict[str, Any]:
        """Return both, for files."""
        return {"clean": self.clean.as_dict(), "static": self.static.as_dict()}


@dataclass(frozen=True)
class Point:
    """The curve at one amount.

    Attributes:
        remove: The amount as people write it: 5%, or 3.
        removed: How many features that is.
        mask: Of the highest scores.
        random_masks: Controls: as many features in random places; none where nothing is removed.
    """

    remove: str
    removed: int
    mask: OfMask
    random_masks: tuple[OfMask, ...]


@dataclass(frozen=True)
class Adaptive:
    """The hardened model at one amount under attacks that are made on it, beside the model without a mask.

    Attributes:
        remove: The amount as people write it.
        removed: How many features that is.
        clean: Clean samples that the hardened model (first) and the model without a mask (second) classify correctly.
        results: One for each eps; the baseline is the model without a mask.
    """

    remove: str
    removed: int
    clean: Paired
    results: tuple[AtEps, ...]


@dataclass(frozen=True)
class Twins:
    """The adversarial samples of the static numbers.

    Attributes:
        name: The source's name.
        sha256: Of their pixels, in order.
        largest_difference: Largest |adversarial - clean| in pixel space.
    """

    name: str
    sha256: str
    largest_difference: float


@dataclass(frozen=True)
class Attacks:
    """How adaptive accuracy was measured.

    Attributes:
        attack: Name of the preset or of the attack.
        eps: Radii, in pixel space.
        norm: Of the balls.
        eps_is_of_twins: Whether the radius is the largest difference of the twins, because none was given.
        control: Settings of the control attack, but for eps.
        notes: What the attacks took instead of their own losses or targets or could not do, in words.
    """

    attack: str
    eps: tuple[float, ...]
    norm: str
    eps_is_of_twins: bool
    control: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """Where the masks come from."""

    tap: str
    feature_axis: int
    features: int
    criterion: str


@dataclass(frozen=True)
class Sweep:
    """A sweep over masks of one analysis.

    Attributes:
        model: The model without a mask.
        scores: What ranks its features.
        data: The clean samples.
        twins: Their adversarial twins.
        preprocessing: From pixel space to the model's input.
        seed: Of all random numbers.
        batch_size: Samples at a time.
        provider: The execution provider.
        points: The curve.
        attacks: How adaptive accuracy was measured; None where it was not.
        adaptive: Adaptive accuracy at some of the points.
        asked: How many of the images the hardened models themselves were asked, because rounding may decide there.
        versions: Of the packages.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.
        notes: How the model was run, where that is not as usual, in words.
    """

    model: ModelRecord
    scores: Scored
    data: DataRecord
    twins: Twins
    preprocessing: Mapping[str, Any]
    seed: int
    batch_size: int
    provider: str
    points: tuple[Point, ...]
    attacks: Attacks | None
    adaptive: tuple[Adaptive, ...]
    asked: int
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    threads: int | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds: the counts, and the shares, intervals and p-values that follow from them."""
        attacks = None if self.attacks is None else asdict(self.attacks)
        if self.attacks is not None and attacks is not None:
            attacks |= {"eps": list(self.attacks.eps), "notes": list(self.attacks.notes)}
        return {
            "format": FORMAT,
            "version": VERSION,
            "statement": STATEMENT,
            "confidence": CONFIDENCE,
            "model": asdict(self.model),
            "scores": asdict(self.scores),
            "data": asdict(self.data),
            "twins": asdict(self.twins),
            "preprocessing": dict(self.preprocessing),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "provider": self.provider,
            **({} if self.threads is None else {"threads": self.threads}),
            **({"notes": list(self.notes)} if self.notes else {}),
            "points": [_point(point) for point in self.points],
            "attacks": attacks,
            "adaptive": [_adaptive(each) for each in self.adaptive],
            "asked": self.asked,
            "versions": dict(self.versions),
        }

    def to_json(self) -> str:
        """Return the file's text: the same sweep always gives the same text."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file atomically; raises OutputError where it can't be written."""
        write_text(Path(path), self.to_json())

    @classmethod
    def from_json(cls, text: str, *, name: str = "sweep") -> Sweep:
        """Read the file's text; what follows from the counts is worked out again.

        Raises:
            DataError: it is not a sweep, or one of a later version, or its numbers contradict each other.
        """
        return read_json(
            text, cls._from_entries, kind="sweep", version=VERSION, verb="sweep", name=name, error=DataError
        )

    @classmethod
    def _from_entries(cls, entries: Entries) -> Sweep:
        scores, twins = entries.object("scores"), entries.object("twins")
        found = cls(
            model=read_model(entries.object("model")),
            scores=Scored(
                scores.text("tap"), scores.whole("feature_axis"), scores.whole("features", 1), scores.text("criterion")
            ),
            data=read_data(entries.object("data")),
            twins=Twins(twins.text("name"), twins.text("sha256"), twins.number("largest_difference")),
            preprocessing=entries.object("preprocessing").all(),
            seed=entries.whole("seed"),
            batch_size=entries.whole("batch_size", 1),
            provider=entries.text("provider"),
            threads=entries.whole_if_there("threads", 1),
            notes=entries.texts_if_there("notes"),
            points=tuple(map(_read_point, entries.objects("points"))),
            attacks=None if entries.any("attacks") is None else _read_attacks(entries.object("attacks")),
            adaptive=tuple(map(_read_adaptive, entries.objects("adaptive"))),
            asked=entries.whole("asked"),
            versions=entries.text_map("versions"),
        )
        found._check(entries.all())
        return found

    def _check(self, stated: Mapping[str, Any]) -> None:
        """Check the counts against each other, and what the file states against the counts; raises ValueError."""
        check_model(self.model, "model")
        check_data(self.data)
        for i, point in enumerate(self.points):
            self._check_removed(point.removed, f"points[{i}]")
            _check_of_mask(point.mask, self.data.count, f"points[{i}]")
            for j, mask in enumerate(point.random_masks):
                _check_of_mask(mask, self.data.count, f"points[{i}].random_masks[{j}]")
        if self.attacks is not None:
            check_norm(self.attacks.norm, "attacks.norm")
        for i, each in enumerate(self.adaptive):
            here = f"adaptive[{i}]"
            self._check_removed(each.removed, here)
            check_results(each.results, each.clean, self.data.count, where=f"{here}.results", paired=f"{here}.clean")
            if self.attacks is None or [at.eps for at in each.results] != list(self.attacks.eps):
                raise ValueError(f"{here}.results are not at the eps of attacks.eps")
        follows = self.as_dict()
        for key in ("confidence", "points", "adaptive"):
            check_stated(stated.get(key), follows[key], key)

    def _check_removed(self, removed: int, where: str) -> None:
        if removed > self.scores.features:
            raise ValueError(f"{where}.removed is {removed}, more than the {self.scores.features} features of scores")


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep's file.

    Raises:
        DataError: missing or damaged.
    """
    return Sweep.from_json(read_text(path, kind="sweep", error=DataError), name=str(path))


def _check_of_mask(mask: OfMask, count: int, where: str) -> None:
    check_counts(mask.clean, count, f"{where}.clean")
    check_counts(mask.static, count, f"{where}.static")


def _point(point: Point) -> dict[str, Any]:
    return {
        "remove": point.remove,
        "removed": point.removed,
        **point.mask.as_dict(),
        "random_masks": [mask.as_dict() for mask in point.random_masks],
    }


def _adaptive(found: Adaptive) -> dict[str, Any]:
    return {
        "remove": found.remove,
        "removed": found.removed,
        "clean": difference_entries(found.clean),
        "results": [result.as_dict() for result in found.results],
    }


def _read_of_mask(entries: Entries) -> OfMask:
    return OfMask(read_accuracy(entries.object("clean")), read_accuracy(entries.object("static")))


def _read_point(entries: Entries) -> Point:
    random = tuple(map(_read_of_mask, entries.objects("random_masks")))
    return Point(entries.text("remove"), entries.whole("removed"), _read_of_mask(entries), random)


def _read_attacks(entries: Entries) -> Attacks:
    of_twins = entries.any("eps_is_of_twins")
    if not isinstance(of_twins, bool):
        raise ValueError("attacks.eps_is_of_twins is neither true nor false")
    return Attacks(
        attack=entries.text("attack"),
        eps=entries.numbers("eps"),
        norm=entries.text("norm"),
        eps_is_of_twins=of_twins,
        control=entries.object("control").all(),
        notes=entries.texts("notes"),
    )


def _read_adaptive(entries: Entries) -> Adaptive:
    return Adaptive(
        remove=entries.text("remove"),
        removed=entries.whole("removed"),
        clean=read_pairs(entries.object("clean")),
        results=tuple(map(read_at_eps, entries.objects("results"))),
    )
