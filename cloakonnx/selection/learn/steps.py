"""One step of learning in parts: each is attacked and differentiated on its own, wherever the engine has it done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.random import Stream
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier, Weights
from cloakonnx.data.batch import digest
from cloakonnx.engine.batches import Pool, Tell
from cloakonnx.selection.learn.objective import Objective, Outcome
from cloakonnx.selection.learn.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a step, and the masks of that step.

    Attributes:
        x: (N, ...) float32 pixels in the model's layout.
        y: (N,) int64 labels.
        rows: (N,) indices of the samples, for their random numbers.
        epoch: Counted from 0.
        eps: Radius of the attack.
        weights: The masks.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    rows: NDArray[np.int64]
    epoch: int
    eps: float
    weights: Weights

    @property
    def size(self) -> int:
        """How many samples there are."""
        return len(self.y)

    def digest(self) -> str:
        """Return the sha256 of samples, labels and masks, in hex digits."""
        return digest(self.x, self.y, self.rows, *self.weights.values())

    def cut(self, parts: int, unit: int) -> Iterator[Part]:
        """Yield at most that many parts of about the same size, each of whole batches of ``unit`` samples."""
        units = self.size // unit
        edges = np.linspace(0, units, min(parts, units) + 1).astype(np.int64) * unit
        for start, end in pairwise(edges):
            taken = slice(int(start), int(end))
            yield Part(self.x[taken], self.y[taken], self.rows[taken], self.epoch, self.eps, self.weights)


@dataclass(frozen=True, eq=False)
class StepWork:
    """Attacks the samples of a part under its masks, and differentiates their loss by the masks.

    Attributes:
        classifier: The classifier; its masks are set and left set.
        source: The same without masks, whose scores are the soft targets.
        recipe: The settings.
        sample: Shape of a sample in the model's layout.
    """

    classifier: MaskedClassifier
    source: Classifier
    recipe: Recipe
    sample: tuple[int, ...]

    @property
    def record(self) -> dict[str, Any]:
        """The settings, and where it runs."""
        return {"recipe": self.recipe.as_dict(), **self.classifier.record}

    @property
    def result(self) -> type[Outcome]:
        """The type of a part's result."""
        return Outcome

    def start(self, worker: int = 0) -> Callable[[Part, Tell], Outcome]:
        """Return what attacks and differentiates a part."""
        classifier = self.classifier.for_worker(worker)
        objective = Objective(classifier, self.source.for_worker(worker), self.recipe, self.sample)

        def differentiated(part: Part, tell: Tell) -> Outcome:
            classifier.weights = part.weights
            stream = Stream.of(self.recipe.seed, "learn", part.epoch, part.rows)
            return objective(part.x, part.y, eps=part.eps, stream=stream)

        return differentiated


def outcome(pool: Pool[Part, Outcome], parts: Sequence[Part]) -> Outcome:
    """Return the sums over some parts, which are added in their order, whatever the order in which they are done."""
    found = dict(pool.run(enumerate(parts), lambda number, share: None))
    return Outcome.total([each for _, each in sorted(found.items()) if each is not None])
