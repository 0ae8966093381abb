"""Why the figures of an attack may be too good: ties, random ops inside the model, gradients of 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cloakonnx.runtime.session import Value, to_numpy

_NAMED = 3


@dataclass(frozen=True)
class Seen:
    """Ties and gradients of 0, counted during an attack.

    Attributes:
        tied: Samples with several classes of the largest score.
        climbed: Samples of batches for which gradients were asked.
        still: Those of them where every gradient was 0.
    """

    tied: int = 0
    climbed: int = 0
    still: int = 0

    def __add__(self, other: Seen) -> Seen:
        """Add up."""
        return Seen(self.tied + other.tied, self.climbed + other.climbed, self.still + other.still)


class Directions:
    """Whether gradients gave a direction; none is checked after the first that did."""

    def __init__(self) -> None:
        self.asked = self.found = False

    def note(self, gradient: Value) -> None:
        """Look at a gradient."""
        self.asked = True
        if not self.found:
            values = to_numpy(gradient)
            self.found = bool((np.isfinite(values) & (values != 0)).any())

    def taken(self, samples: int) -> tuple[int, int]:
        """Return for a batch that is done how many samples were climbed, and how many of them without a direction."""
        climbed = samples if self.asked else 0
        still = climbed if not self.found else 0
        self.asked = self.found = False
        return climbed, still


PASSES = (
    "the gradients of this model are 0 because it rounds or is quantised: gradients pass that straight through (BPDA)"
)
"""The note where straight-through gradients were taken by default."""


def of_randomness(ops: Sequence[str]) -> Iterator[str]:
    """Say that scores depend on random ops, where they do."""
    if ops:
        more = f" and {len(ops) - _NAMED} more" if len(ops) > _NAMED else ""
        named = ", ".join(ops[:_NAMED]) + more
        yield f"the scores depend on random ops: {named}; each call gives other numbers, and these figures are of one"


def of_ties(count: int) -> Iterator[str]:
    """Say how many samples have a tie, where any has."""
    if count:
        have = "sample has" if count == 1 else "samples have"
        yield f"{count} {have} a tie for the largest score; the first of the classes that share it counts"


def of_gradients(seen: Seen) -> Iterator[str]:
    """Say that no gradient gave a direction, where none did."""
    if seen.climbed and seen.still == seen.climbed:
        yield (
            f"the gradient is 0 for all of {seen.climbed} samples, so the attack's steps move nothing and its figures "
            "say nothing; black-box attacks need no gradient: --attack square"
        )


def of_first_gradients(count: int) -> str:
    """Say that the gradient is 0 for all of the first samples, where that was seen."""
    return (
        f"the gradient is 0 for all of the first {count} samples, so attacks by gradient move nothing: their figures, "
        "and what is learned against them, say nothing; black-box attacks (square) need no gradient"
    )
