"""A classifier under attack: counts its forward passes and gradients; gradients may go straight through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.arithmetic import Arithmetic
from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.counts import Counts
from cloakonnx.classifier.answer import Answer
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.doubts import Directions
from cloakonnx.classifier.sessions import Asked, Sample
from cloakonnx.errors import DifferentiationError, ZeroGradientError
from cloakonnx.gradient.losses import Loss
from cloakonnx.graph.index.randomness import random_ops
from cloakonnx.runtime.session import Value, to_numpy


class Victim:
    """A classifier under attack; its graphs and sessions are the classifier's.

    ``on_answer`` is called after each batch of logits or gradients, to watch ``counts`` grow. ``judged`` maps an input
    to the one that the model is run on: the rounded one, where an attack is kept in levels.

    Args:
        classifier: The classifier.
        sample: Shape of a sample, which fixes what the model leaves open of its input.

    Raises:
        ModelError: other inputs are needed.
        DifferentiationError: no floating-point input, or an output that is no class scores.
        InferenceError: ONNX Runtime refuses the graph.
    """

    def __init__(self, classifier: Classifier, sample: Sample = None) -> None:
        classifier.prepare(sample)
        self.classifier = classifier
        self.task = classifier.task
        self.classes = classifier.classes
        self.bounds = classifier.bounds
        self.counts = Counts()
        self.directions = Directions()
        self.on_answer: Callable[[], None] = lambda: None
        self.judged: Callable[[Value], Value] | None = None
        self._arithmetic: dict[tuple[int, str], Arithmetic] = {}
        self._passes = False

    @cached_property
    def is_random(self) -> bool:
        """Whether the scores depend on random ops."""
        return bool(random_ops(self.classifier.model.proto, self.classifier.output_name))

    def of(self, classifier: Classifier) -> Victim:
        """Return another classifier under attack: it has counts of its own, and shares the arithmetic."""
        other = copy.copy(self)
        other.classifier, other.counts, other.on_answer = classifier, Counts(), lambda: None
        other.directions = Directions()
        return other

    def straight_through(self) -> Victim:
        """Return the classifier with gradients that pass rounding and quantisation; it shares the counts."""
        other = copy.copy(self)
        other._passes = True
        return other

    def arithmetic(self, rank: int, norm: str) -> Arithmetic:
        """Return the steps on batches of a rank, made once: their sessions cost more than a step."""
        key = (rank, norm)
        if key not in self._arithmetic:
            self._arithmetic[key] = Arithmetic(rank, norm=norm, bounds=self.bounds, provider=self.classifier.provider)
        return self._arithmetic[key]

    @property
    def blocked(self) -> tuple[str, ...]:
        """The ops of zero gradient that hide part of the input's, described."""
        return self.classifier.blocked

    def logits(self, x: Value) -> NDArray[np.float32]:
        """Return (N, classes) float32 for a batch in pixel space and in the model's layout."""
        found = self.classifier.logits(self._seen(x))
        self._count(queries=len(found))
        return found

    def predict(self, x: Value) -> NDArray[np.int64]:
        """Return (N,) the predicted classes."""
        return self.decided(x)[0]

    def decided(self, x: Value) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return (N,) the predicted classes, and which of them are the first of several with the largest score.

        A float16 model is asked as its user runs it: derived graphs round at other places, and where two classes are
        equal in float16 that decides. So is one whose probabilities were rewritten in the log domain.
        """
        if not self.classifier.decides_by_itself:
            logits = self.logits(x)
            return self.task.decide(logits), self.task.tied(logits)
        images = to_numpy(self._seen(x))
        self.counts.queries += len(images)
        scores = self.classifier.scores(images)
        return self.task.decide(scores), self.task.tied(scores)

    def right(self, x: Value, y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (N,) whether samples are classified as labelled."""
        return self.task.agrees(self.predict(x), y)

    def confirmed(
        self, x: NDArray[np.float32], success: NDArray[np.bool_], y: NDArray[np.int64], *, targeted: bool
    ) -> NDArray[np.bool_]:
        """Return (N,) which samples fool the model, asking it again where its logits and its own scores may differ."""
        if not self.classifier.decides_by_itself:
            return success
        return np.asarray(self.right(x, y) == targeted)

    def gradient(
        self, x: Value, y: NDArray[np.int64], *, loss: Loss, targets: NDArray[np.int64] | None = None
    ) -> Answer:
        """Return logits, loss and the loss's gradient by a batch; with targets, of the targeted loss."""
        found = self.classifier.answer(self._seen(x), y, loss=loss, targets=targets, straight_through=self._passes)
        self._count(gradients=len(y))
        self.directions.note(found.gradient)
        if self.blocked:  # the logits were asked for apart
            self._count(queries=len(y))
        return found

    def climb(self, x: Value, y: NDArray[np.int64], *, loss: str, targets: NDArray[np.int64] | None = None) -> Answer:
        """Return what :meth:`gradient` gives of the loss, or of one with the same direction that never vanishes."""
        return self.gradient(x, y, loss=Loss(loss).climbed, targets=targets)

    def on_host(self, value: Value) -> NDArray[Any]:
        """Return a tensor in host memory."""
        return to_numpy(value)

    def check_ball(self, norm: str, eps: float, values: int) -> None:
        """Check that a ball makes sense in pixel space for samples of a number of values; raises OptionError."""
        ball(norm, eps).check(self.bounds, values)

    def prepare(self, loss: Loss) -> None:
        """Build the graph of a loss's gradient; raises DifferentiationError where an op has no rule."""
        self.classifier.graph(Asked(loss, straight_through=self._passes))

    @property
    def must_pass(self) -> bool:
        """Whether gradients are 0 because the model rounds or is quantised, and straight-through ones are not."""
        if not self.blocked:  # no gradient of another loss is built to tell
            return False
        found = Gradients.of(self)
        return bool(found.zero) and found.pass_straight

    def check_labels(self, y: NDArray[np.int64]) -> None:
        """Raise DataError for a label that is no class of the model."""
        self.task.check(y, self.classes)

    def _seen(self, x: Value) -> Value:
        return x if self.judged is None else self.judged(x)

    def _count(self, *, queries: int = 0, gradients: int = 0) -> None:
        self.counts.queries += queries
        self.counts.gradients += gradients
        self.on_answer()


@dataclass(frozen=True)
class Gradients:
    """Whether attacks can use a model's gradients.

    Attributes:
        zero: Why every gradient is 0; empty where that is not so.
        pass_straight: Whether there are straight-through gradients.
        missing: Why there are none that are not 0; empty where there are.
    """

    zero: str
    pass_straight: bool
    missing: str

    @property
    def reason(self) -> str:
        """Why attacks can't use the model's own gradients; empty where they can."""
        return self.zero or self.missing

    @classmethod
    def of(cls, victim: Victim) -> Gradients:
        """Build the gradient graphs and find out."""
        zero = missing = ""
        try:
            victim.prepare(Loss.CE.climbed)
        except ZeroGradientError:
            zero = f"{victim.blocked[0]} has a zero gradient everywhere"
        except DifferentiationError as error:
            missing = str(error).partition(";")[0]
        pass_straight = not missing
        if zero:
            try:
                victim.straight_through().prepare(Loss.CE.climbed)
            except DifferentiationError:
                pass_straight, missing = False, zero
        return cls(zero, pass_straight, missing)
