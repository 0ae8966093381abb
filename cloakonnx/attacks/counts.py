"""Forward passes and gradients of attacks, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counts:
    """Queries and gradients asked of a classifier, in samples."""

    queries: int = 0
    gradients: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.queries + self.gradients
