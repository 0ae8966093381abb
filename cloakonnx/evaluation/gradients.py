"""Whether a model has gradients to attack it with, and whether those must pass ops whose own are zero."""

from __future__ import annotations

from dataclasses import dataclass

from cloakonnx.attacks import Victim
from cloakonnx.errors import DifferentiationError, ZeroGradientError
from cloakonnx.gradient import Loss


@dataclass(frozen=True)
class Gradients:
    """What a model's gradients are good for.

    Attributes:
        zero: Why every gradient is 0; empty where that is not so.
        pass_straight: Whether there are straight-through gradients.
        missing: Why there are none that are not 0; empty where there are.
    """

    zero: str
    pass_straight: bool
    missing: str

    @classmethod
    def of(cls, victim: Victim) -> Gradients:
        """Build the gradient graphs that tell."""
        zero = missing = ""
        try:
            victim.prepare(Loss.CE.climbed)
        except ZeroGradientError:
            zero = f"{victim.blocked[0]} has a zero gradient everywhere"
        except DifferentiationError as error:
            missing = str(error).partition(";")[0]
        pass_straight = not missing
        if zero:
            try:
                victim.straight_through().prepare(Loss.CE.climbed)
            except DifferentiationError:
                pass_straight, missing = False, zero
        return cls(zero, pass_straight, missing)
