"""What is applied to a model: the masks that an analysis leads to, and the record of where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloakonnx.errors import OptionError
from cloakonnx.graph.file.diff import file_sha256
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.scoring.analysis import Analysis
from cloakonnx.selection.topk import DEFAULT_AMOUNT, Amount, Threshold, select


def masks_of(analysis: Analysis, amount: Amount | None = None) -> list[Mask]:
    """Return the masks of an analysis: those that were learned, or one that removes the features of highest scores.

    Args:
        analysis: Scores, or learned masks.
        amount: How many features are removed; 5% where None. Learned masks take none.

    Raises:
        OptionError: an amount for learned masks, or one that is none or all of the features.
    """
    if analysis.scores is not None:
        return [select(analysis.scores, DEFAULT_AMOUNT if amount is None else amount)]
    if amount is not None:
        raise OptionError(
            "the analysis holds learned masks, which are applied as they are: no {amount}, no {threshold}",
            parameter=("amount", "threshold"),
        )
    return list(analysis.masks)


def applied_settings(
    *,
    analysis: Path | None = None,
    masks: Sequence[Path] = (),
    amount: Amount | None = None,
    fold: bool = False,
    hash_external: bool = True,
    float16_masks: bool = False,
) -> dict[str, Any]:
    """Return what a model was hardened with, for :func:`cloakonnx.attest`: names and digests of files, no paths.

    Args:
        analysis: The analysis that the masks come from, unless they have files of their own.
        masks: Files of masks.
        amount: How many features were removed; None for the default.
        fold: Whether masks were folded into weights.
        hash_external: Whether external data was read for its digest.
        float16_masks: Whether masks on weights are stored as float16.

    Raises:
        OptionError: neither an analysis nor masks.
    """
    if analysis is None and not masks:
        raise OptionError("masks come from an analysis or from files of their own: name either")
    named = [{"name": path.name, "sha256": file_sha256(path)} for path in (masks or (analysis,)) if path is not None]
    settings: dict[str, Any] = {"verb": "apply", "masks" if masks else "analysis": named if masks else named[0]}
    if amount is not None:
        settings["threshold" if isinstance(amount, Threshold) else "remove"] = amount.value
    settings |= {"fold": fold, "hash_external": hash_external}
    return settings | ({"float16_masks": True} if float16_masks else {})
