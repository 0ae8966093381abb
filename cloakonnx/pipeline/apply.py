"""Masks into a model and out again: in memory, and in a file where one is named."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

from cloakonnx.classifier.given import ModelLike, model_of
from cloakonnx.graph.file.edit import edited
from cloakonnx.graph.file.model import Model, load
from cloakonnx.graph.fold.fold import MaskFate, fold_file, folding
from cloakonnx.graph.masks.given import MasksLike, masks_of
from cloakonnx.graph.masks.harden import check_source, harden_file, hardened, strip_file
from cloakonnx.graph.masks.strip import stripped
from cloakonnx.remote import local
from cloakonnx.scoring.analysis import Analysis


def apply(
    model: ModelLike,
    masks: MasksLike,
    output: str | PathLike[str] | None = None,
    *,
    fold: bool = False,
    force: bool = False,
    hash_external: bool = True,
    on_fate: Callable[[MaskFate], None] = lambda fate: None,
) -> Model:
    """Put masks into a model: one Mul node a mask, or folded into weights; nothing else of the file changes.

    Args:
        model: The source: a path, a model, or a classifier, of which the model is taken.
        masks: A :class:`cloakonnx.Mask`, several, or an analysis of learned masks.
        output: The hardened file, written atomically; None makes the model in memory only.
        fold: Whether masks go into weights where that is exact; those that can't fold stay Mul nodes.
        force: Whether the output, and copies of external data, may be overwritten.
        hash_external: Whether to record digests of external data in the metadata, which takes reading all of it.
        on_fate: Called for each mask with whether it was folded, and why not; with ``fold`` only.

    Returns:
        The hardened model: loaded from the output, or in memory.

    Raises:
        ModelError: the model was hardened before, can't be read, or the file would be over 2 GB.
        TapError, MaskError: a mask that does not fit.
        AnalysisError: the analysis was made for another model.
        OutputError: the output exists, is the input, or can't be written.

    Examples:
        >>> import numpy as np
        >>> import cloakonnx as ck
        >>> mask = ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)])
        >>> hardened = ck.apply("samples/digits_cnn.onnx", mask)
        >>> [each.tap for each in ck.masks(hardened)]
        ['/6/Relu_output_0']
    """
    source, chosen = model_of(model), masks_of(masks)
    if isinstance(masks, Analysis):
        masks.check_model(source)
    if output is None:
        if not fold:
            return hardened(source, chosen)
        found = folding(source, chosen)
        for fate in found.fates:
            on_fate(fate)
        return edited(source, found.edit)
    options: dict[str, Any] = {"force": force, "hash_external": hash_external}
    if fold:
        for fate in fold_file(source, chosen, local(output, writes=True), **options):
            on_fate(fate)
    else:
        harden_file(source, chosen, local(output, writes=True), **options)
    return load(local(output, writes=True))


def strip(model: ModelLike, output: str | PathLike[str] | None = None, *, force: bool = False) -> Model:
    """Take the masks out of a hardened model: gives the file that it was hardened from, to the byte.

    Args:
        model: The hardened model: a path, a model, or a classifier.
        output: The file without masks, written atomically; None makes the model in memory only.
        force: Whether the output may be overwritten.

    Returns:
        The model without masks: loaded from the output, or in memory.

    Raises:
        ModelError: the model carries no masks, or they are folded into its weights.
        CheckError: the model was changed after it was hardened.
        OutputError: the output exists, is the input, or can't be written.

    Examples:
        >>> import numpy as np
        >>> import cloakonnx as ck
        >>> source = ck.load("samples/digits_cnn.onnx")
        >>> hardened = ck.apply(source, ck.Mask("/6/Relu_output_0", np.r_[0.0, np.ones(63)]))
        >>> ck.strip(hardened).sha256 == source.sha256
        True
    """
    given = model_of(model)
    if output is None:
        check_source(given)
        return stripped(given)
    strip_file(given, local(output, writes=True), force=force)
    return load(local(output, writes=True))
