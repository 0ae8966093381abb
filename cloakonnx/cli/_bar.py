"""What stands beside a bar: how fast it moves, and how many workers move it. Loads rich."""

from __future__ import annotations

from collections.abc import Callable

from rich.progress import ProgressColumn, Task
from rich.text import Text

from cloakonnx.text import counted_workers, per_second


class Speed(ProgressColumn):
    """How much is done a second.

    Args:
        unit: What is counted, in the plural.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the speed of the last minutes; nothing before there is one."""
        speed = task.finished_speed or task.speed
        return Text(per_second(speed, self._unit) if speed else "")


class Workers(ProgressColumn):
    """How many workers there are.

    Args:
        alive: Counts them.
    """

    def __init__(self, alive: Callable[[], int]) -> None:
        super().__init__()
        self._alive = alive

    def render(self, task: Task) -> Text:
        """Return the number."""
        return Text(counted_workers(self._alive()))
