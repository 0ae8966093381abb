"""Selection by rank: the features with the highest scores go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cloakonnx.errors import AnalysisError, OptionError
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.scoring.analysis import Analysis, TapScores
from cloakonnx.text import parse_number


@dataclass(frozen=True)
class Share:
    """A share of all features, between 0 and 1; rounded down, at least one feature.

    Examples:
        >>> Share(0.05)
        Share(value=0.05)
    """

    value: float


@dataclass(frozen=True)
class Count:
    """A number of features.

    Examples:
        >>> Count(3)
        Count(value=3)
    """

    value: int


@dataclass(frozen=True)
class Threshold:
    """Every feature that scores this much or more.

    Examples:
        >>> Threshold(0.1)
        Threshold(value=0.1)
    """

    value: float


Amount: TypeAlias = Share | Count | Threshold
DEFAULT_AMOUNT = Share(0.05)


def ranking(scores: TapScores) -> list[int]:
    """Return the features from the first to go to the last: by falling score, ties by index.

    Dead features (score 0) come after every feature of a higher score; under a signed criterion those that stand
    against the attack come after them.
    """
    return [int(i) for i in np.argsort(-scores.scores, kind="stable")]


def amount_of(given: Amount | str | int) -> Amount:
    """Return an amount: ``"5%"`` is a share, ``"3"`` and 3 are a number of features.

    Raises:
        OptionError: not an amount.
    """
    if isinstance(given, (Share, Count, Threshold)):
        return given
    text = str(given).strip()
    try:
        return Share(parse_number(text)) if text.endswith("%") else Count(int(text))
    except ValueError:
        raise OptionError(
            f"an amount of features is a share such as '5%', a number such as 3, Share(0.05), Count(3) or "
            f"Threshold(0.1), not {given!r}"
        ) from None


def select(analysis: Analysis | TapScores, amount: Amount | str | int = DEFAULT_AMOUNT) -> Mask:
    """Return the mask that removes the top features; ties are broken by index, so the result is always the same.

    Dead features (score 0) are picked only after every one that scores higher.

    Args:
        analysis: An analysis that holds scores, or the scores.
        amount: How many features: ``"5%"``, 3, or a :class:`Share`, :class:`Count` or :class:`Threshold`.

    Returns:
        A mask with 0 for the removed features and 1 for the others, float32 (features,).

    Raises:
        OptionError: the amount is none or all of the features, or not possible.
        AnalysisError: the analysis holds masks, not scores.

    Examples:
        >>> import cloakonnx as ck
        >>> data = ck.Samples("samples/digits_test_fgsm.npz", limit=20)
        >>> analysis = ck.analyze("samples/digits_cnn.onnx", data, attack="fgsm", eps=1 / 16)
        >>> len(ck.select(analysis, "5%").removed)
        3
    """
    scores = analysis if isinstance(analysis, TapScores) else analysis.scores
    if scores is None:
        raise AnalysisError("the analysis holds masks, which are applied as they are: there are no scores to select by")
    amount = amount_of(amount)
    total = len(scores.scores)
    count = _count(scores, amount, total)
    check_several(scores)
    if count >= total:
        raise OptionError(f"this would remove all {total} features of {scores.tap!r}; choose fewer")
    weights = np.ones(total, np.float32)
    weights[ranking(scores)[:count]] = 0
    return Mask(scores.tap, weights, scores.feature_axis)


def check_several(scores: TapScores) -> None:
    """Check that something is left where a feature goes; raises OptionError."""
    if len(scores.scores) == 1:
        raise OptionError(
            f"{scores.tap!r} has one feature, and without it nothing is left; score a tap with several: {{tap}} "
            "('cloakonnx inspect' lists them)",
            parameter="tap",
        )


def _count(scores: TapScores, amount: Amount, total: int) -> int:
    if isinstance(amount, Threshold):
        if not amount.value > 0:
            raise OptionError(
                f"{{threshold}} {amount.value:g} must be above 0; features that never moved score 0",
                parameter="threshold",
            )
        count = int((scores.scores >= amount.value).sum())
        if count == 0:
            raise OptionError(
                f"no feature of {scores.tap!r} scores {amount.value:g} or more; "
                f"the highest score is {scores.scores.max():g}"
            )
        return count
    if isinstance(amount, Share):
        if not 0 < amount.value < 1:
            raise OptionError(f"{{amount}} {amount.value * 100:g}% must be above 0% and below 100%", parameter="amount")
        # A share like 0.29 of 100 is 28.999... in binary; what the user wrote is 29.
        return max(1, int(total * amount.value + 1e-9))
    if amount.value < 1:
        raise OptionError(f"{{amount}} {amount.value} must be at least 1 feature", parameter="amount")
    return amount.value
