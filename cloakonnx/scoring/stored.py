"""What an analysis has in its file: one record for scores, one for masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from cloakonnx.entries import OMITTED, At, Distance, Number, Positive, Sha256, Whole, derived
from cloakonnx.graph.masks.mask import ON_WEIGHTS, Mask
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.scoring.criteria import CRITERIA
from cloakonnx.scoring.learned import Learning, Selection

Name = Annotated[str, Meta(extra_json_schema={"minLength": 1})]


@dataclass(frozen=True)
class FileRecord:
    """A file that belongs to the analysis.

    Attributes:
        name: File name, without its folder.
        sha256: sha256 of the file.
    """

    name: str
    sha256: Sha256


@dataclass(frozen=True)
class BesideRecord(FileRecord):
    """A file in the folder of the analysis.

    Attributes:
        name: File name, without a folder, not hidden.
        sha256: sha256 of the file.
    """

    name: Annotated[str, Meta(extra_json_schema={"pattern": r"^[^./\\\\:][^/\\\\:]*$", "maxLength": 255})]


@dataclass(frozen=True)
class SampleSet:
    """The samples that an analysis has seen.

    Attributes:
        clean: Name of the clean source.
        adversarial: Name of the adversarial source, or None where the attack was made on the fly.
        count: The number of pairs.
        largest_difference: Largest |adversarial - clean| in pixel space.
        hashes: One for each clean sample, in order: the first 16 hex digits of the sha256 of its values in the model's
            layout, times 255, rounded, as little-endian int32; an evaluation tells by them what was seen here.
    """

    clean: str
    adversarial: str | None
    count: Positive
    largest_difference: Distance
    hashes: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{16}$"})], ...],
        Meta(extra_json_schema={"minItems": 1}),
    ] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that there is a hash for each sample; raises ValueError."""
        if len(self.hashes) != self.count:
            raise ValueError(f"it has {len(self.hashes)} hashes for {self.count} samples")


@dataclass(frozen=True)
class TapRecord:
    """The tensor whose features were scored.

    Attributes:
        name: The tensor.
        feature_axis: The axis that counts its features.
        features: The number of features.
        dtype: Its element type.
    """

    name: Name
    feature_axis: Positive
    features: Positive
    dtype: Annotated[str, Meta(extra_json_schema={"enum": ["float16", "bfloat16", "float32", "float64"]})]


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """A mask.

    Attributes:
        tap: The tensor: an activation, or a weight of a layer.
        granularity: Of a mask on a weight: what one of its numbers multiplies.
        feature_axis: The axis that the weights of features run along; null: the tap's own.
        shape: At an activation one number, the number of features, or the shape of a sample. On a weight its size or 1
            along each axis.
        data: The weights as little-endian float32 in base64; 1 keeps a feature, 0 removes it.
        array: In place of data: its array in masks_file.
    """

    tap: Name
    granularity: Annotated[
        str | UnsetType,
        At(omitted=True, described=Literal["kernel", "weight", "output-channel", "input-channel"]),
    ] = UNSET
    feature_axis: Annotated[Positive | UnsetType | None, OMITTED] = UNSET
    shape: Annotated[tuple[Positive, ...], Meta(extra_json_schema={"minItems": 1})]
    data: Annotated[
        bytes | UnsetType,
        At(omitted=True, described=Annotated[bytes, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9+/]+={0,2}$"})]),
    ] = UNSET
    array: Annotated[Name | UnsetType, OMITTED] = UNSET

    def __post_init__(self) -> None:
        """Check that the entries fit each other; raises ValueError."""
        if self.granularity is UNSET and self.feature_axis is UNSET:
            raise ValueError("the entry feature_axis is missing")
        if self.granularity is not UNSET and self.granularity not in ON_WEIGHTS:
            raise ValueError(f"{self.granularity!r} is no granularity of masks on weights")
        count = "some" if self.data is UNSET else len(self.data) / 4
        if not self.shape or count not in {"some", math.prod(self.shape)}:
            said = count if count == "some" else f"{count:g}"
            raise ValueError(f"a mask has {said} weights, which do not fit its shape {list(self.shape)}")

    @classmethod
    def of(cls, mask: Mask, **numbers: Any) -> StoredMask:
        """Return the record of a mask; ``numbers``: data, or array."""
        unit = {"granularity": mask.granularity} if mask.on_weight else {"feature_axis": mask.feature_axis}
        return cls(tap=mask.tap, shape=mask.weights.shape, **unit, **numbers)

    def mask(self, weights: NDArray[np.float32]) -> Mask:
        """Return the mask with these weights, in C order."""
        axis, unit = (None if each is UNSET else each for each in (self.feature_axis, self.granularity))
        return Mask(self.tap, weights.reshape(self.shape), cast(int | None, axis), cast(str | None, unit))


@dataclass(frozen=True, kw_only=True)
class _Head:
    kind: str
    model: FileRecord


@dataclass(frozen=True, kw_only=True)
class _Tail:
    preprocessing: Preprocessing
    attack: Annotated[Mapping[str, Any] | None, At(described=dict[str, str | float | bool | None] | None)]
    samples: SampleSet
    provider: Name
    threads: Annotated[Positive | None, OMITTED] = None
    notes: Annotated[tuple[str, ...], OMITTED] = ()
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Scores:
    tap: TapRecord
    criterion: Annotated[str, Meta(extra_json_schema={"enum": list(CRITERIA)})]
    scores: Annotated[tuple[Number, ...], Meta(extra_json_schema={"minItems": 1})]
    values_per_feature: Positive

    def check(self) -> None:
        """Check the scores against the features and the criterion; raises ValueError."""
        if not self.scores or len(self.scores) != self.tap.features:
            raise ValueError(f"it has {len(self.scores)} scores for {self.tap.features} features")
        if min(self.scores) < 0 and not (self.criterion in CRITERIA and CRITERIA[self.criterion].signed):
            raise ValueError(f"a score is negative, which criterion {self.criterion!r} never gives")

    @property
    @derived("dead_features", before="values_per_feature")
    def dead(self) -> Annotated[tuple[Whole, ...], Meta(extra_json_schema={"uniqueItems": True})]:
        """Indices of the features that score 0; they are removed after all that score higher."""
        return tuple(i for i, score in enumerate(self.scores) if score == 0)


@dataclass(frozen=True, kw_only=True)
class StoredScores(_Tail, _Scores, _Head):
    """One score for each feature of one tap.

    Attributes:
        kind: What the analysis holds.
        model: The model that the analysis was made for; no other can be hardened with it.
        tap: The tensor whose features were scored.
        criterion: What the scores are. deepcloak: sum of |adversarial - clean|. relative: that over the sum of |clean|.
            standardised: that over the number of values times the population standard deviation of clean.
            discriminability: mean of |adversarial - clean| over (variance of clean between classes over that within
            them). 0/0 is 0. margin: mean over samples of (adversarial - clean) times the gradient of z_a - z_t by the
            tap, z_t the label's logit and z_a the largest other one. evidence, gradient-x-activation: the same with
            adversarial in place of the difference; evidence where the head is linear.
        scores: In the order of the features; higher means more worth masking. As many as tap.features. Negative only
            for margin, evidence and gradient-x-activation: features that stand against the attack.
        values_per_feature: The number of values that went into each score: samples times the size of every axis other
            than batch and features.
        preprocessing: Model input = (x * scale - mean) / std with x in pixel space; uint8 samples are divided by 255.
        attack: Settings of the attack that made the adversarial samples; null where they were given.
        samples: The samples that the analysis has seen.
        provider: ONNX Runtime's execution provider.
        threads: Intra-op threads of each session; left out where ONNX Runtime chose.
        notes: How the model was run, where that is not as usual.
        versions: Of the packages that decide the numbers.
    """

    kind: Literal["scores"] = "scores"


@dataclass(frozen=True, kw_only=True)
class _Masks:
    masks_file: Annotated[BesideRecord | None, OMITTED] = None
    masks: Annotated[tuple[StoredMask, ...], Meta(extra_json_schema={"minItems": 1})]
    learning: Annotated[Mapping[str, Any] | None, At(described=Learning | None)]
    selection: Annotated[Mapping[str, Any] | None, At(described=Selection | None)]

    def check(self) -> None:
        """Check that there are masks, and their numbers; raises ValueError."""
        if not self.masks:
            raise ValueError("it holds no mask")
        numbers = "data" if self.masks_file is None else "array"
        for i, mask in enumerate(self.masks):
            if getattr(mask, numbers) is UNSET:
                raise ValueError(f"the entry masks[{i}].{numbers} is missing")


@dataclass(frozen=True, kw_only=True)
class StoredMasks(_Tail, _Masks, _Head):
    """Masks that were learned or selected, applied as they are.

    Attributes:
        kind: What the analysis holds.
        model: The model that the analysis was made for; no other can be hardened with it.
        masks_file: A file in the folder of the analysis that has the numbers of all masks: an .npz of little-endian
            float32 arrays. Written where these are over 1 MB; left out where each mask has its own data.
        masks: The masks.
        learning: How the masks were learned; null for masks that come from elsewhere. Its samples are those of the data
            and then those of the select part.
        selection: How 'analyze --select greedy' chose the features that the mask removes; null for masks that come from
            elsewhere. Its samples are those of the fit part and then those of the select part.
        preprocessing: Model input = (x * scale - mean) / std with x in pixel space; uint8 samples are divided by 255.
        attack: Settings of the attack that made the adversarial samples; null where they were given.
        samples: The samples that the analysis has seen.
        provider: ONNX Runtime's execution provider.
        threads: Intra-op threads of each session; left out where ONNX Runtime chose.
        notes: How the model was run, where that is not as usual.
        versions: Of the packages that decide the numbers.
    """

    kind: Literal["masks"] = "masks"
