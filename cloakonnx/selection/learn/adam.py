"""Adam and the one-cycle schedule, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SECOND_BETA, _EPSILON = 0.999, 1e-8
_RISING_SHARE, _FIRST_DIVISOR, _LAST_DIVISOR = 0.3, 25.0, 1e4
_LOW_BETA, _HIGH_BETA = 0.85, 0.95


@dataclass(frozen=True)
class OneCycle:
    """The one-cycle schedule (Smith and Topin 2018, arXiv 1708.07120), with cosines, as PyTorch's OneCycleLR has it.

    The rate rises from 1/25 of its top over the first 30% of the steps and falls to 1/250,000 of it over the rest; the
    first beta goes the other way, from 0.95 to 0.85 and back.

    Attributes:
        top: Highest learning rate.
        steps: How many steps there are in all.
    """

    top: float
    steps: int

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        first = self.top / _FIRST_DIVISOR
        return self._at(step, first, self.top, first / _LAST_DIVISOR)

    def beta(self, step: int) -> float:
        """Return Adam's first beta for a step."""
        return self._at(step, _HIGH_BETA, _LOW_BETA, _HIGH_BETA)

    def _at(self, step: int, first: float, middle: float, last: float) -> float:
        turn, end = _RISING_SHARE * self.steps - 1, self.steps - 1
        if step <= turn:
            return _between(first, middle, step / turn if turn > 0 else 1.0)
        return _between(middle, last, min(1.0, (step - turn) / (end - turn)) if end > turn else 1.0)


def _between(first: float, last: float, part: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * part))


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).

    Args:
        values: What to optimise, by name.
    """

    def __init__(self, values: Mapping[str, NDArray[np.generic]]) -> None:
        self.values = {name: np.array(value, np.float64) for name, value in values.items()}
        self.first = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.steps = 0

    def step(self, gradients: Mapping[str, NDArray[np.float64]], *, rate: float, beta: float = 0.9) -> None:
        """Take one step down the gradients; ``beta`` is the decay of the first moment."""
        self.steps += 1
        first_part, second_part = 1 - beta**self.steps, 1 - _SECOND_BETA**self.steps
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first += (1 - beta) * (gradient - first)
            second += (1 - _SECOND_BETA) * (gradient**2 - second)
            self.values[name] -= rate / first_part * first / (np.sqrt(second / second_part) + _EPSILON)
