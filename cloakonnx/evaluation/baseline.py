"""What a model is compared with: itself without its masks, its source, another model, or nothing."""

from __future__ import annotations

from cloakonnx.classifier.classifier import Classifier
from cloakonnx.errors import CheckError, ModelError
from cloakonnx.evaluation.results import ModelRecord
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.fold.recorded import read_masks
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.metadata import SOURCE as SOURCE_KEY
from cloakonnx.graph.masks.metadata import entries, is_folded
from cloakonnx.graph.masks.strip import found_masks, stripped, stripped_sha256


def carried(model: Model, baseline: Model | None) -> tuple[list[Mask], Model | None, tuple[str, ...]]:
    """Return a model's masks, the model without them where that can be made, and a note where it can't."""
    masks, lost = found_masks(model)
    if lost is not None:
        beside = "" if baseline is None else ", without random masks beside it"
        return [], None, (f"{lost}: it was changed after it was hardened, and is taken as it is{beside}",)
    if not is_folded(model.proto):
        bare = stripped(model) if masks else None
        return masks if bare is None else read_masks(model, bare), bare, ()
    if baseline is None:
        note = f"{model.name} is folded: its masks are in its weights and can't be taken out, so it is evaluated alone"
        return [], None, (f"{note}; --baseline names the model that it was made from",)
    bare = baseline if baseline.sha256 == entries(model.proto).get(SOURCE_KEY) else None
    if bare is None:
        return masks, None, ()
    try:
        return read_masks(model, bare), bare, ()
    except CheckError:  # quantised after it was folded, say
        gone = f"the masks that the metadata of {model.name} records are not in its weights any more"
        return [], None, (f"{gone}: it is taken as it is, without random masks beside it",)


def has_baseline(model: Model, baseline: Model | None) -> bool:
    """Return whether an evaluation of the model would compare it with something."""
    masks, lost = found_masks(model)
    return baseline is not None or (bool(masks) and lost is None and not is_folded(model.proto))


def is_source(baseline: Model, model: Model, bare: Model | None) -> bool:
    """Return whether a baseline is the model without its masks."""
    return bare is not None and (baseline is bare or baseline.sha256 in (bare.sha256, stripped_sha256(model)))


def recorded(baseline: Model, model: Model, *, is_stripped: bool) -> ModelRecord:
    """Return the record of a baseline: of one that was taken out of the model, the digest of its file."""
    return ModelRecord.of(baseline, sha256=stripped_sha256(model) if is_stripped else None)


def check_alike(model: Classifier, baseline: Classifier) -> None:
    """Check that both take the same inputs; raises ModelError."""
    shapes = model.input_shape, baseline.input_shape
    if None in shapes or shapes[0] == shapes[1]:
        return
    pairs = zip(shapes[0] or (), shapes[1] or (), strict=False)
    if len(shapes[0] or ()) != len(shapes[1] or ()) or any(a != b and None not in (a, b) for a, b in pairs):
        raise ModelError(
            f"{model.name} takes inputs of shape {shapes[0]}, the baseline {baseline.name} of {shapes[1]}; they can't "
            "be compared on the same samples"
        )
