"""The classes that a targeted attack is to reach."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.data.arrays import load_array
from cloakonnx.errors import DataError, OptionError, nearest
from cloakonnx.remote import local

Choice: TypeAlias = Literal["labels", "random", "least-likely"]
TargetsLike: TypeAlias = int | str | PathLike[str] | NDArray[np.int64]
"""A class, one of :data:`Choice`, an array (N,) of classes or the path of an ``.npy`` file with one."""

_CHOICES = get_args(Choice)


@dataclass(frozen=True)
class Targets:
    """Which class each sample is to reach.

    Attributes:
        choice: ``labels`` (those of the data), ``random`` (another class than the label's, by seed), ``least-likely``
            (the lowest score of the classes that are not the label), ``class`` or ``given``.
        label: The class, of ``class``.
        given: The class of each sample, of ``given``.
    """

    choice: Choice | Literal["class", "given"]
    label: int = 0
    given: tuple[int, ...] = ()

    @classmethod
    def of(cls, targets: TargetsLike) -> Targets:
        """Return the targets that a value stands for.

        Raises:
            OptionError: no class, no choice and no file.
            DataError: a file that can't be read, or has no whole numbers.
        """
        if isinstance(targets, np.ndarray):
            return cls("given", given=_classes(targets, "the targets"))
        if isinstance(targets, str) and targets.isdecimal():
            targets = int(targets)
        if isinstance(targets, int):
            if targets < 0:
                raise OptionError(f"{{targets}} {targets}: classes are counted from 0", parameter="targets")
            return cls("class", label=targets)
        if targets in _CHOICES:
            return cls(targets)  # type: ignore[arg-type]
        path = local(targets)
        if path.suffix != ".npy":
            known = ", ".join(_CHOICES)
            raise OptionError(
                f"{{targets}} {targets}: not a class, nor {known}, nor an .npy file{nearest(str(targets), _CHOICES)}",
                parameter="targets",
            )
        return cls("given", given=_classes(load_array(path), str(path)))

    @property
    def record(self) -> int | str:
        """What results record of it."""
        if self.choice == "class":
            return self.label
        if self.choice == "given":
            return hashlib.sha256(np.array(self.given, np.int64).tobytes()).hexdigest()
        return self.choice

    def check(self, classes: int, count: int | None) -> None:
        """Check the targets against the model and the samples.

        Raises:
            OptionError: a class that the model does not have.
            DataError: not a class for each sample.
        """
        highest = self.label if self.choice == "class" else max(self.given, default=0)
        if highest >= classes:
            raise OptionError(
                f"{{targets}} has class {highest}, but the model has {classes}, counted from 0", parameter="targets"
            )
        if self.choice == "given" and count is not None and len(self.given) != count:
            raise DataError(f"there are {len(self.given)} targets for {count} samples; give a class for each")

    def choose(
        self, victim: Victim, x: NDArray[np.float32], y: NDArray[np.int64], indices: NDArray[np.int64], *, seed: int
    ) -> NDArray[np.int64]:
        """Return (N,) the class that each sample of a batch is to reach.

        Args:
            victim: The model.
            x: (N, ...) float32 pixels.
            y: (N,) labels, or the model's own predictions.
            indices: (N,) indices of the samples in the whole data.
            seed: Random seed.
        """
        if self.choice == "class":
            return np.full(len(y), self.label, np.int64)
        if self.choice == "given":
            return np.array(self.given, np.int64)[indices]
        if self.choice == "random":
            drawn = Stream.of(seed, "targets", 0, indices).integers(victim.classes - 1)
            return drawn + (drawn >= y)
        if self.choice == "least-likely":
            logits = victim.logits(x).copy()
            logits[np.arange(len(y)), y] = np.inf
            return np.asarray(logits.argmin(axis=1))
        return y


def _classes(values: NDArray[Any], name: str) -> tuple[int, ...]:
    if values.ndim != 1 or values.dtype.kind not in "iu" or (len(values) and values.min() < 0):
        raise DataError(f"{name}: {values.dtype} of shape {values.shape}, not a class from 0 on for each sample")
    return tuple(map(int, values))
