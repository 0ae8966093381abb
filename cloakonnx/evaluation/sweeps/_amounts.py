"""What every part of a sweep works with, and the masks that the amounts stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloakonnx.data.batch import LabelledBatch, Origins, digest, renamed
from cloakonnx.data.samples import FittedPairs, Wanted
from cloakonnx.errors import AnalysisError, DataError, OptionError
from cloakonnx.graph.file.model import Model
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.scoring.analysis import Analysis, TapScores
from cloakonnx.selection.topk import Amount, Share, Threshold, select


class LabelledPairs(NamedTuple):
    """A batch of pairs with labels.

    Attributes:
        clean: The clean samples.
        adversarial: Their adversarial versions, float32 of the same shape.
        origins: Where the versions come from.
    """

    clean: LabelledBatch
    adversarial: NDArray[np.float32]
    origins: Origins = ()

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return self.clean.size

    @property
    def indices(self) -> NDArray[np.int64]:
        """(B,) indices of the samples in the whole data."""
        return self.clean.indices

    def digest(self) -> str:
        """Return the sha256 of both kinds of samples and the labels, in hex digits."""
        return digest(self.clean.x, self.adversarial, self.clean.y)


def labelled(pairs: FittedPairs, batch_size: int, *, wanted: Wanted | None = None) -> Iterator[LabelledPairs]:
    """Yield the pairs, as :meth:`FittedPairs.batches` does; raises DataError where there are no labels."""
    for batch in pairs.batches(batch_size, wanted=wanted):
        if batch.y is None:
            raise DataError(
                f"{pairs.clean.source.name} has no labels; a sweep needs them ({{labels}}, or y in an .npz)",
                parameter="labels",
            )
        indices = np.arange(batch.start, batch.start + batch.size)
        clean = LabelledBatch(batch.clean, batch.y, indices, renamed(batch.origins, "clean", "x"))
        yield LabelledPairs(clean, batch.adversarial, renamed(batch.origins, "adversarial", "adversarial"))


def scores_of(analysis: Analysis, model: Model) -> TapScores:
    """Return the scores of an analysis.

    Raises:
        AnalysisError: it was made for another model, or holds masks.
    """
    analysis.check_model(model)
    if analysis.scores is None:
        raise AnalysisError(
            "the analysis holds learned masks, which are applied as they are; a sweep needs scores: make them with "
            "cloakonnx analyze"
        )
    return analysis.scores


def masks_of(scores: TapScores, amounts: Sequence[Amount]) -> dict[Amount, Mask]:
    """Return the mask of each amount; a share or count of 0 removes nothing.

    Raises:
        OptionError: no amount, one twice, or one that is not possible.
    """
    if not amounts:
        raise OptionError("{amounts} names nothing; 0%..30%, say", parameter="amounts")
    if len(set(amounts)) < len(amounts):
        raise OptionError("{amounts} names the same amount twice", parameter="amounts")
    return {amount: _mask(scores, amount) for amount in amounts}


def attacked_of(masks: Mapping[Amount, Mask], wanted: Sequence[Amount] | None) -> list[Amount]:
    """Return the amounts whose masks are to be attacked: those wanted, or the last.

    The model without a mask is attacked beside each of them, so it needs no place in the list.

    Raises:
        OptionError: one that the sweep does not have, or nothing but the model without a mask.
    """
    if wanted is None:
        last = list(masks)[-1]
        return [last] if masks[last].removed else []
    for amount in wanted:
        if amount not in masks:
            raise OptionError(
                f"{{adaptive_at}} {amount_text(amount)} is not among the amounts of {{amounts}}; add it there",
                parameter=("adaptive_at", "amounts"),
            )
    found = [amount for amount in dict.fromkeys(wanted) if masks[amount].removed]
    if wanted and not found:
        raise OptionError(
            "{adaptive_at} names only the model without a mask, which is attacked beside other masks",
            parameter="adaptive_at",
        )
    return found


def amount_text(amount: Amount) -> str:
    """Return an amount as people write it."""
    if isinstance(amount, Share):
        return f"{amount.value * 100:g}%"
    return str(amount.value)


def _mask(scores: TapScores, amount: Amount) -> Mask:
    if not isinstance(amount, Threshold) and amount.value == 0:
        return Mask(scores.tap, np.ones(len(scores.scores), np.float32), scores.feature_axis)
    return select(scores, amount)
