"""The analysis: scores of a tap's features, or masks that were learned, with all that is needed to trust and use them.

The file is JSON; its schema is published as docs/analysis.schema.json. Large masks lie in an ``.npz`` beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
from cloakonnx.preprocessing import LAYOUTS, Preprocessing
from cloakonnx.records import Entries, installed_versions, read_json, read_text
from cloakonnx.scoring import _masks
from cloakonnx.scoring.criteria import CRITERIA
from cloakonnx.text import line, table, title

FORMAT, VERSION = "cloakonnx.analysis", 1


@dataclass(frozen=True)
class SampleSet:
    """The samples that an analysis has seen.

    Attributes:
        clean: Name of the clean source.
        adversarial: Name of the adversarial source, or None where the attack was made on the fly.
        count: How many pairs.
        largest_difference: Largest |adversarial - clean| in pixel space.
        hashes: 16 hex digits for each clean sample, so that an evaluation can tell whether it was seen here.
    """

    clean: str
    adversarial: str | None
    count: int
    largest_difference: float
    hashes: tuple[str, ...] = field(repr=False)


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
        return self._text(_masks.inside(self.masks))

    def _text(self, masks: Mapping[str, Any]) -> str:
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "kind": "masks" if self.scores is None else "scores",
            "model": {"name": self.model_name, "sha256": self.model_sha256},
        }
        if self.scores is not None:
            content["tap"] = {
                "name": self.scores.tap,
                "feature_axis": self.scores.feature_axis,
                "features": len(self.scores.scores),
                "dtype": self.scores.dtype,
            }
            content["criterion"] = self.scores.criterion
            content["scores"] = [float(s) for s in self.scores.scores]
            content["dead_features"] = self.scores.dead
            content["values_per_feature"] = self.scores.values_per_feature
        else:
            content |= masks
            content["learning"] = dict(self.learning) if self.learning is not None else None
            content["selection"] = dict(self.selection) if self.selection is not None else None
        content["preprocessing"] = asdict(self.preprocessing)
        content["attack"] = dict(self.attack) if self.attack is not None else None
        content["samples"] = asdict(self.samples)
        content["provider"] = self.provider
        if self.threads is not None:
            content["threads"] = self.threads
        if self.notes:
            content["notes"] = list(self.notes)
        content["versions"] = dict(self.versions)
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

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
        found, beside = read_json(
            text, cls._from_entries, kind="analysis", version=VERSION, verb="analyze", name=name, error=AnalysisError
        )
        return found if beside is None else replace(found, masks=beside.read(folder, name))

    @classmethod
    def _from_entries(cls, entries: Entries) -> tuple[Analysis, _masks.MasksBeside | None]:
        kind, model = entries.text("kind"), entries.object("model")
        if kind not in {"scores", "masks"}:
            raise ValueError(f"its kind is {kind!r}, neither 'scores' nor 'masks'")
        masks, beside = _masks.listed(entries) if kind == "masks" else ((), None)
        found = cls(
            model_name=model.text("name"),
            model_sha256=_sha256(model.text("sha256")),
            preprocessing=_preprocessing(entries.object("preprocessing")),
            samples=_samples(entries.object("samples")),
            provider=entries.text("provider"),
            threads=entries.whole_if_there("threads", 1),
            notes=entries.texts_if_there("notes"),
            scores=_scores(entries) if kind == "scores" else None,
            masks=masks,
            attack=entries.optional_object("attack"),
            learning=entries.optional_object("learning") if kind == "masks" else None,
            selection=entries.optional_object("selection") if kind == "masks" else None,
            versions=entries.text_map("versions"),
        )
        return found, beside

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return analysis_html(self)

    def save(self, path: str | Path) -> None:
        """Write the file atomically; masks over 1 MB go into a file beside it, see :func:`masks_path`.

        Raises:
            OutputError: it can't be written.
        """
        path = Path(path)
        if not self.masks_lie_beside:
            write_text(path, self.to_json())
            return
        packed = _masks.packed(self.masks)
        beside = masks_path(path)
        with atomic(path) as stream:  # takes its name last: what it names is there
            stream.write(encoded(self._text(_masks.named(self.masks, beside.name, packed))))
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
    path = Path(path)
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


def _preprocessing(entries: Entries) -> Preprocessing:
    low, high = entries.numbers("bounds", 2)
    layout = entries.optional_text("layout")
    if layout not in {*LAYOUTS, None}:
        raise ValueError(f"preprocessing.layout is {layout!r}")
    return Preprocessing(
        scale=entries.number("scale"),
        mean=entries.numbers("mean"),
        std=entries.numbers("std"),
        layout=layout,
        bounds=(low, high),
    )


def _samples(entries: Entries) -> SampleSet:
    count, hashes = entries.whole("count", 1), entries.texts("hashes")
    if len(hashes) != count:
        raise ValueError(f"it has {len(hashes)} hashes for {count} samples")
    return SampleSet(
        clean=entries.text("clean"),
        adversarial=entries.optional_text("adversarial"),
        count=count,
        largest_difference=entries.number("largest_difference"),
        hashes=hashes,
    )


def _scores(entries: Entries) -> TapScores:
    tap, scores = entries.object("tap"), np.array(entries.numbers("scores"), np.float64)
    if not len(scores) or len(scores) != tap.whole("features"):
        raise ValueError(f"it has {len(scores)} scores for {tap.whole('features')} features")
    criterion = entries.text("criterion")
    if (scores < 0).any() and not (criterion in CRITERIA and CRITERIA[criterion].signed):
        raise ValueError(f"a score is negative, which criterion {criterion!r} never gives")
    return TapScores(
        tap=tap.text("name"),
        feature_axis=tap.whole("feature_axis", 1),
        dtype=tap.text("dtype"),
        criterion=criterion,
        scores=scores,
        values_per_feature=entries.whole("values_per_feature", 1),
    )


def _sha256(text: str) -> str:
    if re.fullmatch("[0-9a-f]{64}", text) is None:
        raise ValueError("model.sha256 is not 64 hex digits")
    return text


_MOST_ROWS = 10


def analysis_html(found: Analysis) -> str:
    """Return an analysis as a piece of HTML."""
    samples = f"{found.samples.clean}, {found.samples.count} samples, {found.provider}"
    return "".join(
        (
            title(f"Analysis of {found.model_name}"),
            line(samples if found.samples.adversarial is None else f"{samples}; twins: {found.samples.adversarial}"),
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
