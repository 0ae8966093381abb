"""What an attack is: settings as fields, what it needs and costs, how its restarts follow each other, and its name.

An attack is one frozen dataclass, registered under its name::

    @attack("pgd")
    @dataclass(frozen=True, kw_only=True)
    class PGD(GradientAttack):
        max_iter: int = setting(40, "Steps per restart.", least=1)

        def cost(self, classes: int) -> Counts: ...
        def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None: ...

Records, the command line's options and help, estimates, presets and docs/attacks.md are made from the fields. This
module and those of the attacks load nothing heavier than numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import BALLS, ball, radii_of
from cloakonnx.attacks.counts import Counts
from cloakonnx.attacks.rounding import kept_in_levels, rounding
from cloakonnx.attacks.run import Adversarial, Run
from cloakonnx.errors import OptionError, nearest

if TYPE_CHECKING:
    from cloakonnx.attacks.victim import Victim

GROUP = "cloakonnx.attacks"
"""Entry points of other packages' attacks: name to class, loaded when a name is unknown here."""

CONVERGED = "converged"
"""What --max-iter takes instead of a number, for attacks that find out when more steps change nothing."""

TARGETS = 9
"""Classes that a targeted attack tries, the most likely first (Croce & Hein 2020, arXiv 2003.01690)."""

_RECORDED = (
    ("eps_step", None), ("max_iter", None), ("restarts", None), ("loss", None), ("targeted", False),
    ("early_stop", True), ("straight_through", False), ("seed", 0),
)  # fmt: skip
"""Entries of every record after the name, eps and norm, with the value where an attack has no such setting."""


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    least: int | None = None,
    shown: str = "",
    choices: Sequence[str] = (),
    fixed: bool = False,
) -> Any:
    """Return the field of a setting.

    Args:
        default: Its default; left out, the setting is required.
        help: A sentence for the command line and the docs.
        least: Its smallest value.
        shown: The default as help shows it, where it is None.
        choices: What the command line offers, where that is a list.
        fixed: Whether only Python can set it: no option of the command line.
    """
    return field(
        default=default,
        metadata={"help": help, "least": least, "shown": shown, "choices": tuple(choices), "fixed": fixed},
    )


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack and its settings.

    A subclass defines :meth:`cost` and :meth:`restart`; :meth:`run` owns what all attacks share: checks, indices of
    samples, restarts, early stopping, and the confirmation by the model as it is in use.

    Attributes:
        eps: Radius of the ball, in pixel space.
        norm: Norm of the ball.
        early_stop: Whether samples leave once they are fooled, and those misclassified as they are stay unchanged.
        seed: Random seed.

    Raises:
        OptionError: a setting below its smallest value.
    """

    name: ClassVar[str] = ""
    by_gradient: ClassVar[bool] = False
    """Whether the attack asks for gradients, not for scores alone."""
    norms: ClassVar[tuple[str, ...]] = tuple(BALLS)
    """Norms that it has a way for."""
    leaves_early: ClassVar[bool] = True
    """Whether early stopping is possible; a single step moves every sample."""
    ratio: ClassVar[bool] = False
    """Whether it climbs DLR, for which models of few classes take the margin."""

    eps: float = setting(help="Radius of the eps ball in pixel space.")
    norm: str = setting("linf", "Norm of the eps ball.", choices=tuple(BALLS))
    early_stop: bool = setting(True, "Whether samples leave once they are fooled.", fixed=True)
    seed: int = setting(0, "Random seed.", least=0)

    def __post_init__(self) -> None:
        """Check the norm, and the settings against their smallest values."""
        if self.norm in BALLS and self.norm not in self.norms:
            raise OptionError(f"{self.name} has no way in the norm {self.norm}; it has {' and '.join(self.norms)}")
        for each in fields(self):
            least, value = each.metadata.get("least"), getattr(self, each.name)
            if least is not None and value is not None and value < least:
                raise OptionError(f"{{{each.name}}} must be at least {least}", parameter=each.name)

    @classmethod
    def settings(cls) -> dict[str, Field[Any]]:
        """Return the fields of the settings by name."""
        return {each.name: each for each in fields(cls)}

    @property
    def is_targeted(self) -> bool:
        """Whether the labels are the classes to reach."""
        return bool(getattr(self, "targeted", False))

    @property
    def passes_straight(self) -> bool:
        """Whether gradients go straight through rounding and quantisation."""
        return bool(getattr(self, "straight_through", False))

    @property
    def own_restarts(self) -> int:
        """How many restarts there are."""
        return int(getattr(self, "restarts", 1))

    def cost(self, classes: int) -> Counts:
        """Return the forward passes and gradients that one sample takes if it withstands everything."""
        raise NotImplementedError

    def restart(self, run: Run, number: int, targets: NDArray[np.int64] | None = None) -> None:
        """Attack the active samples of a run once more.

        Args:
            run: The samples, which of them are still active, and what became of them.
            number: Of the restart, from 0: part of the random stream's name.
            targets: (N,) classes to reach, for attacks that take targets in turn.
        """
        raise NotImplementedError

    def restarts_of(self, run: Run) -> Iterator[tuple[int, NDArray[np.int64] | None]]:
        """Yield the restarts: their numbers, and the classes to reach where the attack takes targets in turn."""
        yield from ((number, None) for number in range(self.own_restarts))

    def finish(self, run: Run) -> None:
        """Do what comes after the last restart."""

    def run(
        self,
        victim: Victim,
        x: NDArray[np.float32],
        y: NDArray[np.int64],
        *,
        samples: NDArray[np.int64] | None = None,
        in_levels: bool = False,
    ) -> Adversarial:
        """Attack a batch.

        Args:
            victim: The classifier.
            x: (N, ...) float32 pixels in the model's layout.
            y: (N,) labels; targeted: the classes to reach.
            samples: (N,) indices of the samples in the whole data, for their random numbers; 0 to N - 1 where None.
            in_levels: Whether inputs are rounded to levels of 1/255, inward, before the model judges them.

        Raises:
            OptionError: settings that make no sense for the model.
            DataError: a label that is no class of the model.
            DifferentiationError: an op without a gradient, under an attack that needs one.
        """
        victim.check_ball(self.norm, self.eps, math.prod(x.shape[1:]))
        victim.check_labels(y)
        asked = victim.straight_through() if self.passes_straight else victim
        indices = np.arange(len(x)) if samples is None else samples
        run = Run(asked, x, y, indices, targeted=self.is_targeted)
        run = rounding(run) if in_levels else run
        if self.early_stop and self.leaves_early:
            run.drop_fooled()
        for number, targets in self.restarts_of(run):
            if not len(run.active):
                break
            self.restart(run, number, targets)
            run.restarts += 1
        self.finish(run)
        found = run.result()
        if in_levels:
            return kept_in_levels(victim, found, x, y, within=ball(self.norm, self.eps), targeted=self.is_targeted)
        success = victim.confirmed(found.x, found.success, y, targeted=self.is_targeted)
        return replace(found, success=success, converged=found.converged & ~success)

    def record(self) -> dict[str, Any]:
        """Return the settings for records: the same keys for every attack, and then its own."""
        found: dict[str, Any] = {"attack": self.name, "eps": self.eps, "norm": self.norm}
        for key, missing in _RECORDED:
            found[key] = self.recorded(key) if key in self.settings() else missing
        more = (each for each in fields(self) if each.name not in found)
        return {**found, **{each.name: getattr(self, each.name) for each in more}}

    def recorded(self, key: str) -> Any:
        """Return a setting as records hold it: what None stands for filled in."""
        return getattr(self, key)

    def with_settings(self, **changes: Any) -> Self:
        """Return the attack with other settings, those that it does not have left out."""
        return replace(self, **{key: value for key, value in changes.items() if key in self.settings()})


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """An attack by gradients.

    Attributes:
        straight_through: Whether gradients pass rounding and quantisation as identity (BPDA, arXiv 1802.00420).
    """

    by_gradient: ClassVar[bool] = True

    straight_through: bool = setting(False, "Treat rounding and quantisation as identity in gradients (BPDA).")


@dataclass(frozen=True, kw_only=True)
class TargetedInTurn(GradientAttack):
    """An attack by gradients towards each of the most likely other classes in turn.

    Attributes:
        max_iter: Steps per target and restart.
        restarts: Random starts per target.
        targets: How many classes, the most likely first; at most all but the label.
    """

    max_iter: int = setting(100, "Steps per restart.", least=1)
    restarts: int = setting(1, "Random starts.", least=1)
    targets: int = setting(TARGETS, "Classes to aim at.", least=1, fixed=True)

    def restarts_of(self, run: Run) -> Iterator[tuple[int, NDArray[np.int64] | None]]:
        """Yield each target's restarts."""
        order = run.victim.task.others(run.victim.logits(run.clean), run.y)
        for rank in range(self.aimed_at(run.victim.classes)):
            yield from ((rank * self.restarts + each, order[:, rank]) for each in range(self.restarts))

    def aimed_at(self, classes: int) -> int:
        """Return how many classes are aimed at in a model of ``classes``."""
        return min(self.targets, classes - 1)


T = TypeVar("T", bound=type[Attack])
_REGISTRY: dict[str, type[Attack]] = {}


def attack(name: str) -> Callable[[T], T]:
    """Register an attack's class under a name."""

    def register(cls: T) -> T:
        if name in _REGISTRY and _REGISTRY[name].__module__ != cls.__module__:
            raise ValueError(f"{name} is registered twice")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return register


def registered() -> Mapping[str, type[Attack]]:
    """Return the attacks that are loaded, by name, in the order of their registration."""
    return dict(_REGISTRY)


def plugins() -> tuple[str, ...]:
    """Return the names of other packages' attacks, from their metadata; nothing is loaded."""
    return tuple(sorted({each.name for each in entry_points(group=GROUP)} - set(_REGISTRY)))


def find(name: str, *, presets: tuple[str, ...] = ()) -> type[Attack]:
    """Return an attack's class by its name; one of another package is loaded now.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in _REGISTRY:
        for each in entry_points(group=GROUP, name=name):
            _load(name, each)
    if "," in name:
        raise OptionError(
            f"{name!r} names several attacks, and this takes one: run it once for each; an evaluation and a sweep take "
            "several"
        )
    if name not in _REGISTRY:
        known = (*presets, *_REGISTRY, *plugins())
        what = "attack or preset" if presets else "attack"
        raise OptionError(f"there is no {what} {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    return _REGISTRY[name]


def _load(name: str, entry: EntryPoint) -> None:
    """Register another package's attack.

    Raises:
        OptionError: it can't be imported, is no attack, or has another name.
    """
    try:
        loaded = entry.load()
    except Exception as error:  # whatever another package's module raises
        raise OptionError(f"the attack {name!r} ({entry.value}) can't be loaded: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Attack)):
        raise OptionError(f"the attack {name!r} ({entry.value}) is no subclass of cloakonnx.attacks.base.Attack")
    if loaded.name not in {"", name}:
        raise OptionError(f"the attack {name!r} ({entry.value}) calls itself {loaded.name!r}")
    if name not in _REGISTRY:
        attack(name)(loaded)


def make(name: str, *, presets: tuple[str, ...] = (), **given: Any) -> Attack:
    """Return an attack by its name, with the settings that are given; None and False leave a default.

    Raises:
        OptionError: there is no such attack, or it has no such setting.
    """
    cls = find(name, presets=presets)
    known = cls.settings()
    if given.get("max_iter") == CONVERGED:
        if not hasattr(cls, "until_converged"):
            raise OptionError(
                f"{{max_iter}} {CONVERGED} goes with pgd, not {name}: only steps of a fixed length end in a cycle",
                parameter="max_iter",
            )
        given = cls.until_converged(given)
    for key, value in given.items():
        if key not in known and value is not None and value is not False:
            raise OptionError(f"{name} takes no {{{key}}}", parameter=key)
    return cls(**{key: value for key, value in given.items() if key in known and value is not None})


def attacks_of(
    attack: str | Attack | Sequence[Attack], eps: float | Sequence[float], settings: Mapping[str, Any]
) -> list[Attack]:
    """Return the attacks: those given, or one of the name for each eps.

    Raises:
        OptionError: a name without eps, an attack with eps or settings beside its own, or a setting that it lacks.
    """
    if not isinstance(attack, str):
        if settings or eps != ():
            raise OptionError("an attack that is given as an object has its own eps and settings: give them there")
        return [attack] if isinstance(attack, Attack) else list(attack)
    radii = radii_of(eps)
    if not radii:
        raise OptionError(
            f"{attack} needs {{eps}}, the radius of the ball in pixel space, such as 2/255", parameter="eps"
        )
    return [make(attack, eps=radius, **settings) for radius in radii]
