"""What is in a model: taps, masks, and how it differs from another one."""

from __future__ import annotations

from cloakonnx.classifier.given import ModelLike, model_of
from cloakonnx.graph.file.diff import Difference
from cloakonnx.graph.file.diff import diff as difference
from cloakonnx.graph.fold.recorded import read_masks
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import Tap, list_taps


def taps(model: ModelLike) -> list[Tap]:
    """Return the tensors of a model that can carry a mask, in the order of its nodes; the default one is marked.

    Args:
        model: A path, a model, or a classifier.

    Raises:
        ModelError: the model can't be read.

    Examples:
        >>> import cloakonnx as ck
        >>> [(each.name, each.features) for each in ck.taps("samples/digits_cnn.onnx") if each.is_default]
        [('/6/Relu_output_0', 64)]
    """
    return list_taps(model_of(model))


def masks(model: ModelLike, source: ModelLike | None = None) -> list[Mask]:
    """Return the masks that a hardened model carries, in the order they were put in; none for another model.

    Args:
        model: A path, a model, or a classifier.
        source: The model that it was made from. A folded model needs it where masks have a number for each number of
            their weights: these come out with the same products, but not always as the same numbers.

    Raises:
        CheckError: a mask is gone or was moved, or a weight is not what the metadata records.
        ModelError: the model can't be read, its metadata is damaged, or there is no source.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.masks("samples/digits_cnn.onnx")
        []
    """
    return read_masks(model_of(model), None if source is None else model_of(source))


def diff(first: ModelLike, second: ModelLike) -> list[Difference]:
    """Return what differs from the first model to the second, in a fixed order; nothing for equal models.

    Models that differ in nothing serialise to the same bytes. The content of external files is compared too.

    Args:
        first: A path, a model, or a classifier.
        second: Likewise.

    Raises:
        ModelError: a model can't be read.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.diff("samples/digits_cnn.onnx", "samples/digits_cnn.onnx")
        []
    """
    return difference(model_of(first), model_of(second))
