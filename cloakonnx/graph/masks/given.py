"""Masks as a user has them: one, several, or what holds some, such as an analysis of learned masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

from cloakonnx.errors import MaskError
from cloakonnx.graph.masks.mask import Mask


class HasMasks(Protocol):
    """Holds masks: an analysis of learned masks, or a classifier."""

    @property
    def masks(self) -> tuple[Mask, ...]:
        """The masks."""


MasksLike: TypeAlias = Mask | Iterable[Mask] | HasMasks
"""What every function takes as masks."""


def masks_of(given: MasksLike) -> tuple[Mask, ...]:
    """Return the masks.

    Raises:
        MaskError: not masks, or an analysis that holds scores.
    """
    if isinstance(given, Mask):
        return (given,)
    if getattr(given, "scores", None) is not None and not getattr(given, "masks", ()):
        raise MaskError("the analysis holds scores, no masks: make a mask of it with select(analysis, '5%')")
    found: Any = getattr(given, "masks", given)
    masks = tuple(found) if isinstance(found, Iterable) else (found,)
    wrong = next((each for each in masks if not isinstance(each, Mask)), None)
    if wrong is not None:
        raise MaskError(f"a Mask is needed, or several, or an analysis of learned masks, not {type(wrong).__name__}")
    return masks
