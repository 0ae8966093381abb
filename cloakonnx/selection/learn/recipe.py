"""What masks are learned with: every setting that decides the result, checked."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from cloakonnx.attacks.ball import Norm
from cloakonnx.errors import OptionError

Granularity: TypeAlias = Literal["feature", "element", "weight-channel", "kernel", "weight"]
FORMER = ("channel", "feature")
"""A granularity's former name, and its name."""

LossName: TypeAlias = Literal["soft-ce", "ce", "trades"]

FOLDABLE_FLOOR = 0.05
"""Masks that are to be folded into weights stay this far above 0."""

_CLEAN_WEIGHTS: dict[LossName, float] = {"soft-ce": 0.5, "ce": 0.5, "trades": 1 / 6}
_ONE_STEP_FACTOR, _MANY_STEPS_FACTOR = 1.25, 2.5
"""Step sizes over eps: 1.25 for one step from a random start (Wong et al. 2020, arXiv 2001.03994), else 2.5 / steps."""


@dataclass(frozen=True)
class Recipe:
    """Settings of learning.

    Attributes:
        eps: Radius of the ball that the masks are to hold in, in pixel space.
        budget: Clean accuracy that may be lost on the select part, as a share (0.04: 4 points).
        norm: The ball's norm.
        granularity: What one weight of a mask multiplies. At activations a feature (``feature``) or an element of a
            sample (``element``); on weights the output and input channels and the bias of a layer
            (``weight-channel``), a ``kernel``, or a single ``weight``. None for weights, and for features where
            taps are named.
        inner_steps: Steps of the inner attack from a random start: 1 is FGSM, more are PGD.
        eps_factor: How much wider the ball of the attacks is while masks are learned.
        loss: ``soft-ce``: cross-entropy of the model's own scores without masks, at temperature 2, for the adversarial
            input plus ``clean_weight`` times that for the attack's random start; no label is used. ``ce``: the same
            with labels. ``trades``: KL(clean, adversarial) plus ``clean_weight`` times the clean cross-entropy (Zhang
            et al. 2019, arXiv 1901.08573, equation 5; its lambda is the clean weight).
        clean_weight: None takes 0.5, and 1/6 for ``trades``.
        epochs: How often every training sample is seen; None for 8, and for more where the samples are few: until 640
            steps, at most 40.
        learning_rate: Top of the one-cycle schedule; 0.05 wrecks networks.
        warm_up: Share of the steps over which eps grows to its size.
        batch_size: Samples a step.
        parts: Parts that the samples of a step are cut into, which workers attack and differentiate side by side.
            Sums are made in the order of the parts, so masks depend on their number, not on that of the workers.
        flip: Whether samples are mirrored at random, left to right; None for images of three channels only.
        shift: Pixels by which images are shifted at random, at most; None for an eighth of their side where they have
            three channels, else 0.
        bounds: Smallest and largest weight.
        l1: Pull of every weight towards 1; weights that it holds there are exactly 1.
        zero_below: Weights below it become exactly 0 in the end.
        foldable: Whether weights stay at or above 0.05, so that they can be folded.
        seed: Of all random numbers.

    Raises:
        OptionError: a setting that makes no sense.

    Examples:
        >>> import cloakonnx as ck
        >>> ck.Recipe(eps=2 / 255, budget=0.04).weight
        0.5
    """

    eps: float
    budget: float
    norm: Norm = "linf"
    granularity: Granularity | None = None
    eps_factor: float = 1.5
    inner_steps: int = 1
    loss: LossName = "soft-ce"
    clean_weight: float | None = None
    epochs: int | None = None
    learning_rate: float = 0.02
    warm_up: float = 0.5
    batch_size: int = 50
    parts: int = 1
    flip: bool | None = None
    shift: int | None = None
    bounds: tuple[float, float] = (0.0, 4.0)
    l1: float = 0.0
    zero_below: float = 0.0
    foldable: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings; take the former name of a granularity."""
        if self.granularity == FORMER[0]:
            warnings.warn(f"granularity {FORMER[0]!r} is named {FORMER[1]!r} now", FutureWarning, stacklevel=3)
            object.__setattr__(self, "granularity", FORMER[1])
        low, high = self.bounds
        checks = (
            ("eps", self.eps > 0, f"{self.eps:g} must be above 0"),
            ("budget", 0 <= self.budget < 1, f"{self.budget:g} must be a share from 0 to 1, such as 4%"),
            ("eps_factor", self.eps_factor > 0, f"{self.eps_factor:g} must be above 0"),
            ("inner_steps", self.inner_steps >= 1, f"{self.inner_steps} must be at least 1"),
            ("clean_weight", self.weight >= 0, f"{self.weight:g} is negative"),
            ("epochs", self.epochs is None or self.epochs >= 1, f"{self.epochs} must be at least 1"),
            ("learning_rate", self.learning_rate > 0, f"{self.learning_rate:g} must be above 0"),
            ("warm_up", 0 <= self.warm_up <= 1, f"{self.warm_up:g} must be a share from 0 to 1"),
            ("shift", self.shift is None or self.shift >= 0, f"{self.shift} is negative"),
            ("batch_size", self.batch_size >= 1, f"{self.batch_size} must be at least 1"),
            ("Recipe.bounds", 0 <= low <= 1 < high, f"{low:g},{high:g} must hold 1, start at 0 or above, end above 1"),
            ("parts", self.parts >= 1, f"{self.parts} must be at least 1"),
            ("l1", self.l1 >= 0, f"{self.l1:g} is negative"),
            ("zero_below", 0 <= self.zero_below < 1, f"{self.zero_below:g} must be from 0 to 1"),
        )
        for name, holds, message in checks:
            if not holds:
                raise OptionError(f"{{{name}}} {message}", parameter=name)
        if self.foldable and self.zero_below:
            raise OptionError(
                "{foldable} keeps weights above 0 and {zero_below} makes zeros: leave out one",
                parameter=("foldable", "zero_below"),
            )

    @property
    def weight(self) -> float:
        """The weight of the clean loss."""
        return _CLEAN_WEIGHTS[self.loss] if self.clean_weight is None else self.clean_weight

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest weight of a mask, with the floor of foldable ones."""
        low, high = self.bounds
        return (max(low, FOLDABLE_FLOOR) if self.foldable else low), high

    def step_size(self, eps: float) -> float:
        """Return the step of the inner attack at a radius."""
        return _ONE_STEP_FACTOR * eps if self.inner_steps == 1 else _MANY_STEPS_FACTOR * eps / self.inner_steps

    def eps_at(self, step: int, steps: int) -> float:
        """Return the radius of the attack at a step, counted from 0, of ``steps`` in all."""
        warm, whole = self.warm_up * steps, self.eps * self.eps_factor
        return whole if step + 1 >= warm else whole * (step + 1) / warm

    def as_dict(self) -> dict[str, Any]:
        """Return the settings with the defaults filled in, for records."""
        return {**asdict(self), "clean_weight": self.weight, "bounds": list(self.range)}
