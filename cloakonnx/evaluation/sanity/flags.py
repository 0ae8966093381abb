"""What the sanity checks of an evaluation say: one flag a check, each with its number and its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from cloakonnx.entries import Number, Radius, Whole, derived

MEANINGS = {
    "single-step": "one step beats many, so the gradient misleads the attack: masked or shattered gradients",
    "black-box": "an attack without gradients finds what those with gradients miss: masked gradients",
    "iterations": "twice the iterations find more, so the attacks had not converged: raise --max-iter",
    "eps-curve": "a larger ball holds every input of a smaller one: the attacks fail, not the model withstands",
    "large-eps": "nothing withstands a ball that holds a grey image: the attacks fail, not the model withstands",
    "zero-gradients": "an input gradient of exactly 0 gives an attack no direction: masked gradients",
    "saturation": "the scores are so far apart that the cross-entropy's gradient dies in float32: figures of tools "
    "that climb it flatter the model (the attacks here climb the log odds instead)",
    "run-to-run": "outputs that differ between two runs make every figure a draw: attack their mean (EOT)",
    "random-ops": "a defence by chance: attack the mean of many runs (EOT); these figures are of single ones",
    "non-differentiable": "gradients are 0 through these ops: what withstands attacks by gradient may fall to one that "
    "goes around them (BPDA)",
    "static-gain": "what the masks gain against replayed inputs is gone once the attack is made again with the masks "
    "in sight: no robustness",
}
"""Name of each flag, in the order in which they are shown, to what it means where it fires."""


@dataclass(frozen=True)
class Flag:
    """One check.

    Attributes:
        name: One of :data:`MEANINGS`.
        fired: Whether the number is beyond its threshold; None where it could not be measured.
        value: The number; None where it could not be measured.
        unit: Of number and threshold: ``points``, ``share``, ``ops`` or ``relative``.
        threshold: What the number has to pass; ``static-gain`` fires where it does not.
        eps: The ball in which the number was found, the worst of those tried; None where there is none.
        measured: What was measured, or why it could not be, with all counts.
    """

    name: Annotated[str, Meta(extra_json_schema={"enum": list(MEANINGS)})]
    fired: bool | None
    value: Number | None
    unit: Annotated[str, Meta(extra_json_schema={"enum": ["points", "share", "ops", "relative"]})]
    threshold: Number
    eps: Number | None
    measured: str

    @property
    @derived("meaning")
    def meaning(self) -> str:
        """Meaning of the flag when it is raised."""
        return MEANINGS[self.name]


@dataclass(frozen=True)
class Sanity:
    """The sanity checks of an evaluation, apart from its cascade.

    Attributes:
        samples: The number of samples they were made on: the first that the model classifies correctly.
        eps: The balls that were tried, the smallest first; beyond those asked for, twice the largest and half of pixel
            space.
        attacks: Settings of the attacks, except what depends on eps.
        queries: Forward passes they took, in samples.
        gradients: Gradients they took, in samples.
        flags: One a check.
    """

    samples: Whole
    eps: tuple[Radius, ...]
    attacks: tuple[Mapping[str, Any], ...]
    queries: Whole
    gradients: Whole
    flags: tuple[Flag, ...]

    @property
    def fired(self) -> tuple[Flag, ...]:
        """The flags that fired."""
        return tuple(flag for flag in self.flags if flag.fired)

    def check(self) -> None:
        """Check that flags of a file fired where their numbers say so; raises ValueError."""
        for flag in self.flags:
            if flag.name not in MEANINGS:
                raise ValueError(f"there is no flag {flag.name!r}")
            _check_fired(flag.name, flag.fired, flag.value, flag.threshold)


_DECIDED = {"black-box", "large-eps", "run-to-run", "random-ops", "non-differentiable"}
"""Flags that fire exactly where the number is above the threshold."""
_NEEDED = {"single-step", "iterations", "saturation"}
"""Flags that fire only where it is, and where chance does not explain the number."""


def _check_fired(name: str, fired: bool | None, value: float | None, threshold: float) -> None:
    """Check that a flag fired where its number says so; raises ValueError."""
    if fired is None or value is None:
        if fired is not value:
            raise ValueError(f"the flag {name} has fired {fired} and the value {value}; both are null or neither is")
        return
    above = value > threshold
    wrong = (
        (name in _DECIDED and fired != above)
        or (name in _NEEDED and fired and not above)
        or (name == "zero-gradients" and fired != (value >= threshold))
        or (name == "static-gain" and fired and above)
    )
    if wrong:
        has = "has" if fired else "has not"
        raise ValueError(
            f"the flag {name} {has} fired, which contradicts its value {value:g} and threshold {threshold:g}"
        )
