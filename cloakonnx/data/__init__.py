"""Reads samples batch by batch and brings them into pixel space and the model's layout.

What the other packages may use is named here.
"""

from cloakonnx.data.arrays import LABELS_KEY, PREDICTED, SETTINGS_KEY, load_array, load_arrays
from cloakonnx.data.checkpoints import Checkpoints
from cloakonnx.data.dataset import Dataset, PairBatch, Pairs, sample_hashes
from cloakonnx.data.preprocessing import Layout, Preprocessing
from cloakonnx.data.sources import ArraySource, ScriptSource, Source, open_script, open_source
from cloakonnx.data.subset import Subset, Survey, interleaved, survey
from cloakonnx.data.types import Batch
from cloakonnx.data.writing import Parts, as_levels, rounded_inward, write_npz

__all__ = [
    "LABELS_KEY",
    "PREDICTED",
    "SETTINGS_KEY",
    "ArraySource",
    "Batch",
    "Checkpoints",
    "Dataset",
    "Layout",
    "PairBatch",
    "Pairs",
    "Parts",
    "Preprocessing",
    "ScriptSource",
    "Source",
    "Subset",
    "Survey",
    "as_levels",
    "interleaved",
    "load_array",
    "load_arrays",
    "open_script",
    "open_source",
    "rounded_inward",
    "sample_hashes",
    "survey",
    "write_npz",
]
