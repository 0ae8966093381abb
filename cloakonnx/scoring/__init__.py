"""Scores features by how far they move between clean inputs and their adversarial twins.

What the other packages may use is named here.
"""

from cloakonnx.scoring.accumulator import Moments, Sums
from cloakonnx.scoring.analysis import (
    Analysis,
    SampleSet,
    TapScores,
    default_path,
    installed_versions,
    load_analysis,
)
from cloakonnx.scoring.criteria import CRITERIA, Criterion, criterion
from cloakonnx.scoring.reading import Entries, read_json, read_text
from cloakonnx.scoring.score import DEFAULT_BATCH_SIZE, PairSource, analyze
from cloakonnx.scoring.tail import Tail, linear_weights

__all__ = [
    "CRITERIA",
    "DEFAULT_BATCH_SIZE",
    "Analysis",
    "Criterion",
    "Entries",
    "Moments",
    "PairSource",
    "SampleSet",
    "Sums",
    "Tail",
    "TapScores",
    "analyze",
    "criterion",
    "default_path",
    "installed_versions",
    "linear_weights",
    "load_analysis",
    "read_json",
    "read_text",
]
