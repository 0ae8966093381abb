"""What a sweep found: a curve of clean and static accuracy, and adaptive accuracy at some of its points.

The file is JSON; its schema is published as docs/sweep.schema.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from cloakonnx.entries import OMITTED, At, Distance, Norm, Positive, Radius, Sha256, Whole
from cloakonnx.errors import DataError
from cloakonnx.evaluation.consistency import (
    check_counts,
    check_data,
    check_model,
    check_norm,
    check_paired,
    check_results,
    check_stated,
)
from cloakonnx.evaluation.evaluation import STATEMENT
from cloakonnx.evaluation.results import AtEps, DataRecord, ModelRecord
from cloakonnx.json_files import JsonFile, JsonRecord, installed_versions, read_text
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.statistics import CONFIDENCE, Accuracy, Paired


@dataclass(frozen=True)
class OfMask:
    """One mask.

    Attributes:
        clean: On clean samples.
        static: On the adversarial samples, made without the mask in sight. No evidence of robustness.
    """

    clean: Accuracy
    static: Accuracy


@dataclass(frozen=True)
class Point:
    """The curve at one amount.

    Attributes:
        remove: The amount as people write it: 5%, or 3.
        removed: The number of features that are removed.
        clean: Of the mask of the highest scores, on clean samples.
        static: Of that mask, on the adversarial samples, made without the mask in sight. No evidence of robustness.
        random_masks: Controls: as many features in random places, one mask each seed; none where nothing is removed.
    """

    remove: str
    removed: Whole
    clean: Accuracy
    static: Accuracy
    random_masks: tuple[OfMask, ...]

    @property
    def mask(self) -> OfMask:
        """The mask of the highest scores."""
        return OfMask(self.clean, self.static)


@dataclass(frozen=True)
class Adaptive:
    """The hardened model at one amount under attacks that are made on it, beside the model without a mask.

    Attributes:
        remove: The amount as people write it.
        removed: The number of features that are removed.
        clean: Clean samples that the hardened model (first) and the model without a mask (second) classify correctly.
        results: One for each eps; the baseline is the model without a mask.
    """

    remove: str
    removed: Positive
    clean: Paired
    results: Annotated[tuple[AtEps, ...], Meta(extra_json_schema={"minItems": 1})]


@dataclass(frozen=True)
class Twins:
    """The adversarial samples of the static numbers.

    Attributes:
        name: The source's name.
        sha256: sha256 of their pixels (float32, model's layout), in order.
        largest_difference: Largest |adversarial - clean| in pixel space.
    """

    name: str
    sha256: Sha256
    largest_difference: Distance


@dataclass(frozen=True)
class Attacks:
    """How adaptive accuracy was measured.

    Attributes:
        attack: Name of the preset or of the attack, or several with commas between.
        eps: Radii, in pixel space.
        norm: Norm of the eps balls.
        eps_is_of_twins: Whether the radius is the largest difference of the samples, because none was given.
        control: Settings of the control attack, except eps.
        notes: What the attacks took instead of their own losses or targets or could not do, in words.
    """

    attack: str
    eps: Annotated[tuple[Radius, ...], Meta(extra_json_schema={"minItems": 1})]
    norm: Norm
    eps_is_of_twins: bool
    control: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """What ranks the features.

    Attributes:
        tap: The tensor.
        feature_axis: The axis that counts its features.
        features: The number of features.
        criterion: What the scores are.
    """

    tap: str
    feature_axis: Positive
    features: Positive
    criterion: str


@dataclass(frozen=True, kw_only=True)
class Sweep(JsonRecord):
    """A sweep over masks of one analysis.

    Attributes:
        model: The model without a mask.
        scores: What ranks its features.
        data: The clean samples.
        twins: Their adversarial versions.
        preprocessing: From pixel space to the model's input.
        seed: Random seed.
        batch_size: Batch size.
        provider: The execution provider.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.
        notes: How the model was run, where that is not as usual, in words.
        points: The curve, in the order asked for.
        attacks: How adaptive accuracy was measured; None where it was not.
        adaptive: Adaptive accuracy at some of the points.
        asked: How many of the images the hardened models themselves were asked, because rounding may decide there.
        versions: Versions of the packages that decide the numbers.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=50)
        >>> clf = ck.Classifier("samples/digits_cnn.onnx")
        >>> adversarial = ck.attack(clf, data, "fgsm", eps=1 / 16)
        >>> pairs = ck.Pairs(data, (adversarial.x, adversarial.y))
        >>> found = ck.sweep(clf, ck.analyze(clf, pairs), pairs, amounts=["0%", "5%"], adaptive_at=())
        >>> [point.removed for point in found.points]
        [0, 3]
    """

    JSON_FILE: ClassVar[JsonFile] = JsonFile(
        "sweep", 1, "sweep", DataError, {"statement": STATEMENT, "confidence": CONFIDENCE}
    )

    model: ModelRecord
    scores: Scored
    data: DataRecord
    twins: Twins
    preprocessing: Annotated[Mapping[str, Any], At(described=Preprocessing)]
    seed: Whole
    batch_size: Positive
    provider: str
    threads: Annotated[Positive | None, OMITTED] = None
    notes: Annotated[tuple[str, ...], OMITTED] = ()
    points: Annotated[tuple[Point, ...], Meta(extra_json_schema={"minItems": 1})]
    attacks: Attacks | None
    adaptive: tuple[Adaptive, ...]
    asked: Whole
    versions: Mapping[str, str] = field(default_factory=installed_versions)

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
            check_paired(each.clean, self.data.count, f"{here}.clean")
            right = Accuracy(each.clean.both + each.clean.only_first, each.clean.count)
            check_results(each.results, right, each.clean, self.data.count, where=f"{here}.results")
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
