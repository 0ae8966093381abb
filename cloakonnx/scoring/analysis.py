"""The analysis: scores of a tap's features, or masks that were learned, with all that is needed to trust and use them.

The file is JSON; its schema is published as docs/analysis.schema.json. Large masks lie in an ``.npz`` beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.errors import AnalysisError, nearest
from cloakonnx.files import atomic, encoded, write_text
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import entries
from cloakonnx.json_files import JsonFile, converted, installed_versions, read_text
from cloakonnx.preprocessing import Preprocessing
from cloakonnx.remote import fetched, local
from cloakonnx.scoring import _masks
from cloakonnx.scoring.stored import BesideRecord, FileRecord, StoredMask, StoredMasks, StoredScores, TapRecord
from cloakonnx.scoring.stored import SampleSet as SampleSet  # noqa: PLC0414 - its public path is here
from cloakonnx.text import line, table, title

FILE = JsonFile("analysis", 1, "analyze", AnalysisError)
"""The file of an analysis."""


_COMMON = ("preprocessing", "attack", "samples", "provider", "threads", "notes", "versions")
"""What the file has under the names of the attributes."""


@dataclass(frozen=True, eq=False)
class TapScores:
    """One score for each feature of a tap.

    Attributes:
        tap: The tensor.
        feature_axis: The axis that counts its features.
        dtype: Its element type.
        criterion: What the scores are.
        scores: (F,) float64; higher means more worth masking. Negative only under a signed criterion.
        values_per_feature: How many values went into each score: samples times the size of every other axis.
    """

    tap: str
    feature_axis: int
    dtype: str
    criterion: str
    scores: NDArray[np.float64]
    values_per_feature: int

    @property
    def dead(self) -> list[int]:
        """Indices of the features that score 0: those that never moved, under most criteria."""
        return [int(i) for i in np.flatnonzero(self.scores == 0)]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What ``analyze`` or ``learn`` found for one model.

    Attributes:
        model_name: The model's file name.
        model_sha256: Digest of its bytes; only that model can be hardened with this analysis.
        preprocessing: How samples became the model's input; later verbs take it from here.
        samples: What was seen.
        provider: The execution provider.
        scores: Scores of one tap, or None.
        masks: Masks that were learned or selected; empty where there are scores.
        attack: Settings of the attack that made the adversarial samples, or None where they were given.
        learning: How masks were learned: settings, select part, choice and curve; None where there are scores.
        selection: How features were selected: method, budget, parts, rounds; None where masks come from elsewhere.
        versions: Versions of the packages that were used.
        threads: Intra-op threads of each session; None for ONNX Runtime's own choice.
        notes: How the model was run, where that is not as usual, in words.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=20)
        >>> analysis = ck.analyze("samples/digits_cnn.onnx", data, attack="fgsm", eps=1 / 16)
        >>> analysis.model_name, analysis.samples.count, analysis.scores.scores.dtype
        ('digits_cnn.onnx', 20, dtype('float64'))
    """

    model_name: str
    model_sha256: str
    preprocessing: Preprocessing
    samples: SampleSet
    provider: str
    scores: TapScores | None = None
    masks: tuple[Mask, ...] = ()
    attack: Mapping[str, Any] | None = None
    learning: Mapping[str, Any] | None = None
    selection: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    threads: int | None = None
    notes: tuple[str, ...] = ()

    def check_model(self, model: Model) -> None:
        """Check that the analysis was made for this model.

        Raises:
            AnalysisError: it was made for another.
        """
        if model.sha256 == self.model_sha256:
            return
        if entries(model.proto).get(SOURCE_KEY) == self.model_sha256:
            raise AnalysisError(
                f"{model.name} was hardened from {self.model_name}, which the analysis was made for; name that "
                f"instead, or make an analysis with: cloakonnx analyze {model.name} --data ... --adversarial ..."
            )
        raise AnalysisError(
            f"the analysis was made for another model ({self.model_name}, sha256 {self.model_sha256[:16]}...), not "
            f"for {model.name} ({model.sha256[:16]}...); make one with: cloakonnx analyze {model.name} --data ... "
            "--adversarial ..."
        )

    def to_json(self) -> str:
        """Return the analysis as one text, masks of any size in it: the same analysis always gives the same text."""
        return FILE.text(self._stored(_masks.inside(self.masks)))

    def _stored(self, masks: tuple[StoredMask, ...], beside: BesideRecord | None = None) -> StoredScores | StoredMasks:
        """Return what the file holds; ``masks``: the masks as they lie in it, and in the file beside it."""
        common: dict[str, Any] = {name: getattr(self, name) for name in _COMMON}
        common["model"] = FileRecord(self.model_name, self.model_sha256)
        if self.scores is None:
            common |= {"learning": self.learning, "selection": self.selection}
            return StoredMasks(masks_file=beside, masks=masks, **common)
        found = self.scores
        return StoredScores(
            tap=TapRecord(found.tap, found.feature_axis, len(found.scores), found.dtype),
            criterion=found.criterion,
            scores=tuple(float(score) for score in found.scores),
            values_per_feature=found.values_per_feature,
            **common,
        )

    @classmethod
    def from_json(cls, text: str, *, name: str = "analysis", folder: Path | None = None) -> Analysis:
        """Read the file's text.

        Args:
            text: Of the file.
            name: Of the file, for messages.
            folder: Where the file is, and large masks beside it.

        Raises:
            AnalysisError: it is not an analysis, or one of a later version, or its masks are in a file beside it that
                is missing or another.
        """
        found, beside = FILE.read(text, cls._of, name=name)
        return found if beside is None else replace(found, masks=beside.read(folder, name))

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> tuple[Analysis, _masks.MasksBeside | None]:
        kind = content.get("kind")
        if kind not in ("scores", "masks"):
            raise ValueError(f"its kind is {kind!r}, neither 'scores' nor 'masks'")
        stored: StoredScores | StoredMasks
        stored = converted(content, StoredScores) if kind == "scores" else converted(content, StoredMasks)
        stored.check()
        made: dict[str, Any] = {name: getattr(stored, name) for name in _COMMON}
        made |= {"model_name": stored.model.name, "model_sha256": stored.model.sha256}
        if isinstance(stored, StoredScores):
            tap, values = stored.tap, np.array(stored.scores, np.float64)
            scores = TapScores(
                tap.name, tap.feature_axis, tap.dtype, stored.criterion, values, stored.values_per_feature
            )
            return cls(scores=scores, **made), None
        made |= {"learning": stored.learning, "selection": stored.selection}
        if stored.masks_file is None:
            return cls(masks=_masks.held(stored.masks), **made), None
        return cls(**made), _masks.MasksBeside(stored.masks_file, stored.masks)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return analysis_html(self)

    def save(self, path: str | Path) -> None:
        """Write the file atomically; masks over 1 MB go into a file beside it, see :func:`masks_path`.

        Raises:
            OutputError: it can't be written.
        """
        path = local(path, writes=True)
        if not self.masks_lie_beside:
            write_text(path, self.to_json())
            return
        packed = _masks.packed(self.masks)
        beside = masks_path(path)
        with atomic(path) as stream:  # takes its name last: what it names is there
            file = BesideRecord(beside.name, hashlib.sha256(packed).hexdigest())
            stream.write(encoded(FILE.text(self._stored(_masks.named(self.masks), file))))
            with atomic(beside) as masks:
                masks.write(packed)

    @property
    def masks_lie_beside(self) -> bool:
        """Whether :meth:`save` puts the masks into a file of their own, for their size."""
        return _masks.are_large(self.masks)


def load_analysis(path: str | Path, *, model: str = "MODEL") -> Analysis:
    """Read an analysis file.

    Args:
        path: The file.
        model: Name of the model that it is for, for the message where it is missing.

    Raises:
        AnalysisError: missing or damaged.
    """
    path = fetched(path)
    if not path.exists():
        beside = [p.name for p in path.parent.glob("*.cloak.json")] if path.parent.is_dir() else []
        raise AnalysisError(
            f"no analysis {path}{nearest(path.name, beside)}; make it with: cloakonnx analyze {model} --data ... "
            "--adversarial ..."
        )
    text = read_text(path, kind="analysis", error=AnalysisError)
    return Analysis.from_json(text, name=str(path), folder=path.absolute().parent)


def default_path(model: Path) -> Path:
    """Return where the analysis of a model goes: its suffix replaced by ``.cloak.json``."""
    return model.with_suffix(".cloak.json")


def masks_path(analysis: Path) -> Path:
    """Return where masks go that are too large for the analysis: its suffix replaced by ``.masks.npz``."""
    return analysis.with_suffix(".masks.npz")


_MOST_ROWS = 10


def analysis_html(found: Analysis) -> str:
    """Return an analysis as a piece of HTML."""
    samples = f"{found.samples.clean}, {found.samples.count} samples, {found.provider}"
    return "".join(
        (
            title(f"Analysis of {found.model_name}"),
            line(
                samples if found.samples.adversarial is None else f"{samples}; adversarial: {found.samples.adversarial}"
            ),
            _masks_html(found.masks) if found.scores is None else _highest(found.scores),
        )
    )


def _highest(found: TapScores) -> str:
    order = np.argsort(-found.scores, kind="stable")[:_MOST_ROWS]
    rows = [(str(feature), f"{found.scores[feature]:.6g}") for feature in order]
    said = f"{found.criterion} at {found.tap}: the {len(order)} highest of {len(found.scores)} features"
    said += f"; {len(found.dead)} score 0" if found.dead else ""
    return line(said) + table(("feature", "score"), rows)


def _masks_html(masks: tuple[Mask, ...]) -> str:
    rows = [
        (mask.tap, str(mask.weights.size), str(len(mask.removed)), *(f"{each:.3f}" for each in _spread(mask)))
        for mask in masks[:_MOST_ROWS]
    ]
    more = line(f"and {len(masks) - _MOST_ROWS} more masks") if len(masks) > _MOST_ROWS else ""
    return table(("tap", "weights", "of them 0", "least", "mean", "most"), rows) + more


def _spread(mask: Mask) -> tuple[float, float, float]:
    return float(mask.weights.min()), float(mask.weights.mean(dtype=np.float64)), float(mask.weights.max())
