"""How far learning is, in words and on a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from cloakonnx.text import spoken


@dataclass(frozen=True)
class Progress:
    """How far learning is.

    Attributes:
        step: Steps taken.
        steps: Steps in all.
        epochs: Epochs in all.
        select: How many select samples there are.
        attacked: How many of them are attacked.
        seconds_left: Until the last step, by the speed so far: trials on the way are in it, the choice at the end is
            not.
        epoch: The record of the epoch that has just ended, where its masks were tried; or None.
        choosing: How many epochs' masks were tried on the select part after the last step.
    """

    step: int
    steps: int
    epochs: int
    select: int
    attacked: int
    seconds_left: float = 0.0
    epoch: Mapping[str, Any] | None = None
    choosing: int = 0

    @property
    def line(self) -> str | None:
        """What is said of the epoch that has just ended; None where there is nothing to say."""
        if self.epoch is None:
            return None
        e = self.epoch
        left = f"about {spoken(self.seconds_left)} left" if self.step < self.steps else "choosing"
        return (
            f"epoch {e['epoch']} of {self.epochs}: loss {e['loss']:.4f}, right where attacks start "
            f"{e['start_accuracy']:.1%}, where they end {e['adversarial_accuracy']:.1%}; select clean "
            f"{e['select_clean']} of {self.select}, robust {e['select_robust']} of {self.attacked}; {left}"
        )


@contextmanager
def watched(
    bar: Callable[[int], AbstractContextManager[Callable[[float], None]]], say: Callable[[str], None]
) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows progress: a bar, once it is known how many steps there are, and a line for an epoch.

    Args:
        bar: Opens the bar for a number of steps; gives what moves it.
        say: Prints a line.
    """
    with ExitStack() as opened:
        advance: Callable[[float], None] | None = None

        def on_progress(now: Progress) -> None:
            nonlocal advance
            if advance is None:
                advance = opened.enter_context(bar(now.steps))
            advance(now.step)
            if now.line is not None:
                say(now.line)

        yield on_progress
