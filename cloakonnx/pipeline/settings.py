"""What a hardening is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from cloakonnx.attacks.presets import Names, plan
from cloakonnx.errors import OptionError, nearest
from cloakonnx.evaluation.gates import Gate, check_measured
from cloakonnx.evaluation.judging import asks_for_latency
from cloakonnx.selection.learn.recipe import Granularity

Method: TypeAlias = Literal["learn", "greedy", "score"]
METHODS: tuple[str, ...] = get_args(Method)
"""``learn``: masks at every activation; ``greedy``: features of one tap, chosen one by one; ``score``: DeepCloak's."""


@dataclass(frozen=True)
class Preset:
    """How much work goes into it.

    Attributes:
        epochs: Of learning; None for what suits the number of samples.
        learn_most: Samples to learn or score on at most; None takes all.
        report_most: Samples to evaluate on at most.
        eps_most: Radii at most.
    """

    epochs: int | None
    learn_most: int | None = None
    report_most: int | None = None
    eps_most: int | None = None


PRESETS: Mapping[str, Preset] = {
    "full": Preset(epochs=None),
    "quick": Preset(epochs=4, learn_most=2000, report_most=200, eps_most=1),
}


class HardenOptions(TypedDict, total=False):
    """Settings of a hardening beside eps, as :class:`HardenSettings` explains them; ``require`` has gates as text."""

    budget: float
    method: Method
    preset: str
    norm: Literal["linf", "l2"]
    attack: Names
    taps: tuple[str, ...]
    granularity: Granularity | None
    layers: tuple[str, ...]
    parts: int
    fold: bool
    seed: int
    batch_size: int
    report: bool
    latency: bool
    require: Sequence[str]
    max_iter: int | str | None


@dataclass(frozen=True)
class HardenSettings:
    """Everything that decides a hardening beside the model, the samples and where it runs.

    Attributes:
        eps: Radii of the balls in pixel space: the first is what masks are made against, all are reported.
        budget: Clean accuracy that may be lost on the select part, as a share (0.04: 4 points).
        method: A name of METHODS.
        preset: A name of PRESETS.
        norm: The balls' norm.
        attack: Of the evaluation: a preset (``quick``, ``standard``) or an attack's name, or several with commas.
        max_iter: Steps of that attack, or of a preset's or list's attacks by gradients; their own where None.
        taps: Where to mask activations; the method's own choice where empty.
        granularity: What one number of a learned mask multiplies; None for weights, and for features where taps are
            named.
        layers: For masks on weights, globs over the names of weights and layers; all where there is none.
        parts: Parts of each step of learning that workers handle at a time; results depend on it.
        fold: Whether masks go into weights where that is exact.
        seed: Of all random numbers.
        batch_size: Samples at a time, in attacks.
        gates: What the evaluation must show.
        report: Whether to write the page, which needs Jinja2.
        latency: Whether to time the hardened model beside its source, for page, summary and gates.

    Raises:
        OptionError: a setting that makes no sense, or a gate on what will not be measured.
    """

    eps: tuple[float, ...]
    budget: float = 0.04
    method: Method = "learn"
    preset: str = "full"
    norm: Literal["linf", "l2"] = "linf"
    attack: str = "quick"
    taps: tuple[str, ...] = ()
    granularity: Granularity | None = None
    layers: tuple[str, ...] = ()
    fold: bool = False
    seed: int = 0
    batch_size: int = 64
    gates: tuple[Gate, ...] = ()
    report: bool = True
    latency: bool = True
    max_iter: int | str | None = None
    parts: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("taps", "layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_name("method", self.method, METHODS)
        _check_name("preset", self.preset, PRESETS)
        if not self.eps:
            raise OptionError("{eps} needs a number, such as 2/255", parameter="eps")
        if not 0 <= self.budget < 1:
            raise OptionError(f"{{budget}} {self.budget:g} must be a share from 0 to 1, such as 4%", parameter="budget")
        if self.method != "learn" and len(self.taps) > 1:
            raise OptionError(
                f"{{method}} {self.method} masks one tap; {{taps}} names {len(self.taps)}", parameter=("method", "taps")
            )
        if self.method != "learn" and (self.granularity or self.layers):
            raise OptionError(
                f"{{granularity}} and {{layers}} are for {{method}} learn; {self.method} masks one tap",
                parameter=("granularity", "layers", "method"),
            )
        if self.method != "learn" and self.parts != 1:
            raise OptionError(
                f"{{parts}} cuts steps of {{method}} learn; {self.method} takes none: leave it out",
                parameter=("parts", "method"),
            )
        if self.parts < 1:
            raise OptionError(f"{{parts}} {self.parts} must be at least 1", parameter="parts")
        for eps in self.radii:
            plan(self.attack, eps=eps, norm=self.norm, max_iter=self.max_iter)
        if len(set(self.eps)) < len(self.eps):
            raise OptionError("{eps} names the same radius twice", parameter="eps")
        if self.is_latency_judged and not self.latency:
            raise OptionError("a gate asks for what isn't measured: the latency was left out")
        try:
            check_measured(self.gates, eps=self.radii, sanity=True, latency=True)
        except OptionError as error:
            if len(self.radii) == len(self.eps):
                raise
            raise OptionError(
                f"{error.args[0]} (of {{eps}} the preset {self.preset} takes the first only)",
                parameter=("eps", *error.parameters),
            ) from None

    @property
    def amount(self) -> Preset:
        """The preset's numbers."""
        return PRESETS[self.preset]

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii that are reported."""
        return self.eps[: self.amount.eps_most]

    @property
    def tap(self) -> str | None:
        """The one tap of methods that mask one; None takes the default one."""
        return self.taps[0] if self.taps else None

    @property
    def places(self) -> dict[str, Any]:
        """What says where masks go, for records."""
        return {"taps": self.taps, "granularity": self.granularity, "layers": self.layers}

    @property
    def is_latency_judged(self) -> bool:
        """Whether a gate asks for the latency, however long it takes to measure."""
        return asks_for_latency(self.gates)


def _check_name(what: str, name: str, known: Mapping[str, object] | tuple[str, ...]) -> None:
    if name not in known:
        raise OptionError(f"there is no {what} {name!r}; there are {', '.join(known)}{nearest(name, known)}")
