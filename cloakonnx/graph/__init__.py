"""Reads and edits ONNX models as protobuf; never runs one.

What the other packages may use is named here.
"""

from cloakonnx.graph.activations import activation_taps
from cloakonnx.graph.constants import Constants
from cloakonnx.graph.derive import Normalisation, tapped, unfed
from cloakonnx.graph.diff import Difference, diff, external_digests, file_sha256
from cloakonnx.graph.edit import canonical_buffer
from cloakonnx.graph.ending import Ending, ending, scores_of
from cloakonnx.graph.fingerprint import changes, fingerprint
from cloakonnx.graph.fold import Folding, MaskFate, fold_file, folded, folding, refolded
from cloakonnx.graph.hardening import harden_file, hardened, strip_file
from cloakonnx.graph.head import Head, head
from cloakonnx.graph.inline import inline
from cloakonnx.graph.insert import check_opset, mask_values
from cloakonnx.graph.load import Model, counterpart, load, load_bytes
from cloakonnx.graph.mask import Mask
from cloakonnx.graph.masking import MaskedHead, mask_input, masked_head
from cloakonnx.graph.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.metadata import STRIPPED as STRIPPED_KEY
from cloakonnx.graph.metadata import VERSION as VERSION_KEY
from cloakonnx.graph.metadata import (
    ExternalFile,
    MaskEntry,
    entries,
    external_recorded,
    folded_masks,
    is_folded,
    masks_of,
)
from cloakonnx.graph.randomness import random_ops
from cloakonnx.graph.save import atomic, check_output, write_text
from cloakonnx.graph.shapes import infer
from cloakonnx.graph.strip import mask_values_of, read_masks, reinserted, stripped, stripped_bytes, stripped_sha256
from cloakonnx.graph.structure import Structure, structure
from cloakonnx.graph.taps import FLOAT_TYPES, Tap, find_tap, list_taps

__all__ = [
    "FLOAT_TYPES",
    "SOURCE_KEY",
    "STRIPPED_KEY",
    "VERSION_KEY",
    "Constants",
    "Difference",
    "Ending",
    "ExternalFile",
    "Folding",
    "Head",
    "Mask",
    "MaskEntry",
    "MaskFate",
    "MaskedHead",
    "Model",
    "Normalisation",
    "Structure",
    "Tap",
    "activation_taps",
    "atomic",
    "canonical_buffer",
    "changes",
    "check_opset",
    "check_output",
    "counterpart",
    "diff",
    "ending",
    "entries",
    "external_digests",
    "external_recorded",
    "file_sha256",
    "find_tap",
    "fingerprint",
    "fold_file",
    "folded",
    "folded_masks",
    "folding",
    "harden_file",
    "hardened",
    "head",
    "infer",
    "inline",
    "is_folded",
    "list_taps",
    "load",
    "load_bytes",
    "mask_input",
    "mask_values",
    "mask_values_of",
    "masked_head",
    "masks_of",
    "random_ops",
    "read_masks",
    "refolded",
    "reinserted",
    "scores_of",
    "strip_file",
    "stripped",
    "stripped_bytes",
    "stripped_sha256",
    "structure",
    "tapped",
    "unfed",
    "write_text",
]
