"""An analysis as a notebook shows it: the highest scores, or the masks."""

from __future__ import annotations

import numpy as np

from cloakonnx.graph import Mask
from cloakonnx.markup import line, table, title
from cloakonnx.scoring.analysis import Analysis, TapScores

_MOST_ROWS = 10


def analysis_html(found: Analysis) -> str:
    """Return an analysis as a piece of HTML."""
    samples = f"{found.samples.clean}, {found.samples.count} samples, {found.provider}"
    return "".join(
        (
            title(f"Analysis of {found.model_name}"),
            line(samples if found.samples.adversarial is None else f"{samples}; twins: {found.samples.adversarial}"),
            _masks(found.masks) if found.scores is None else _scores(found.scores),
        )
    )


def _scores(found: TapScores) -> str:
    order = np.argsort(-found.scores, kind="stable")[:_MOST_ROWS]
    rows = [(str(feature), f"{found.scores[feature]:.6g}") for feature in order]
    said = f"{found.criterion} at {found.tap}: the {len(order)} highest of {len(found.scores)} features"
    said += f"; {len(found.dead)} score 0" if found.dead else ""
    return line(said) + table(("feature", "score"), rows)


def _masks(masks: tuple[Mask, ...]) -> str:
    rows = [
        (mask.tap, str(mask.weights.size), str(len(mask.removed)), *(f"{each:.3f}" for each in _spread(mask)))
        for mask in masks[:_MOST_ROWS]
    ]
    more = line(f"and {len(masks) - _MOST_ROWS} more masks") if len(masks) > _MOST_ROWS else ""
    return table(("tap", "weights", "of them 0", "least", "mean", "most"), rows) + more


def _spread(mask: Mask) -> tuple[float, float, float]:
    return float(mask.weights.min()), float(mask.weights.mean(dtype=np.float64)), float(mask.weights.max())
