"""The loss that masks are learned by: the inner attack, and the gradient of the loss by each mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.gradient.losses import TEMPERATURE, Loss
from cloakonnx.runtime.session import Value
from cloakonnx.selection.learn.recipe import Recipe


@dataclass(frozen=True)
class Outcome:
    """Sums over some samples.

    Attributes:
        loss: Sum of the samples' whole losses.
        start: How many samples are classified correctly where the attack starts, for TRADES clean.
        adversarial: And how many after it.
        samples: How many samples there are.
        sums: Gradient of the summed loss by each mask.
    """

    loss: float
    start: int
    adversarial: int
    samples: int
    sums: dict[str, NDArray[np.float64]]

    @property
    def gradients(self) -> dict[str, NDArray[np.float64]]:
        """Gradient of the mean loss by each mask."""
        return {key: total / self.samples for key, total in self.sums.items()}

    @classmethod
    def total(cls, parts: Sequence[Outcome]) -> Outcome:
        """Return the sums over several parts, added in their order."""
        first, *others = parts
        loss, sums = first.loss, {key: gradient.copy() for key, gradient in first.sums.items()}
        for each in others:
            loss += each.loss
            for key, gradient in each.sums.items():
                sums[key] += gradient
        start, adversarial, samples = (
            sum(getattr(each, name) for each in parts) for name in ("start", "adversarial", "samples")
        )
        return cls(loss, start, adversarial, samples, sums)


class Objective:
    """Loss and gradients of batches under the masks that are set in a classifier.

    Args:
        classifier: The classifier with masks.
        source: The same without masks, whose scores are the soft targets.
        recipe: The settings.
        sample: Shape of a sample in the model's layout.
    """

    def __init__(
        self, classifier: MaskedClassifier, source: Classifier, recipe: Recipe, sample: tuple[int, ...]
    ) -> None:
        self._classifier, self._source, self._recipe = classifier, source, recipe
        self._arithmetic = Victim(classifier).arithmetic(len(sample) + 1, recipe.norm)
        if recipe.loss == "trades":
            classifier.prepare_masks(Loss.COTANGENT, sample=sample)  # a tap without gradient shows here
        else:
            classifier.prepare_masks(Loss(recipe.loss), by_input=True, sample=sample)

    def __call__(self, x: NDArray[np.float32], y: NDArray[np.int64], *, eps: float, stream: Stream) -> Outcome:
        """Attack a batch within ``eps``, from random starts out of ``stream``, and differentiate."""
        origin = self._arithmetic.put(x)
        start = self._arithmetic.project(ball(self._recipe.norm, eps).inside(stream, x), origin, eps=eps)
        if self._recipe.loss == "trades":
            return self._trades(origin, start, y, eps)
        return self._cross_entropy(origin, start, y, eps)

    def _cross_entropy(self, origin: Value, start: Value, y: NDArray[np.int64], eps: float) -> Outcome:
        """The pass that gives the attack its gradient gives that by the masks, too, for the term of the start."""
        loss = Loss(self._recipe.loss)
        given = y if loss is Loss.CE else soft_targets(self._source.logits(origin))
        easy = hard = self._classifier.mask_gradients(start, given, loss=loss, by_input=True)
        moved = start
        for _ in range(self._recipe.inner_steps):
            assert hard.gradient is not None  # asked for
            moved = self._step(moved, hard.gradient, origin, len(y), eps)
            hard = self._classifier.mask_gradients(moved, given, loss=loss, by_input=True)
        weight = self._recipe.weight
        sums = {key: hard.gradients[key] + weight * easy.gradients[key] for key in hard.gradients}
        return self._outcome(easy.logits, hard.logits, y, hard.loss + weight * easy.loss, sums)

    def _trades(self, origin: Value, start: Value, y: NDArray[np.int64], eps: float) -> Outcome:
        classifier = self._classifier
        clean = classifier.logits(origin)
        p, moved = softmax(clean), start
        for _ in range(self._recipe.inner_steps):
            gradient = classifier.vjp(moved, (softmax(classifier.logits(moved)) - p).astype(np.float32))
            moved = self._step(moved, gradient, origin, len(y), eps)
        adversarial = classifier.logits(moved)
        loss, by_clean, by_adversarial = trades(clean, adversarial, y, weight=self._recipe.weight)
        hard, easy = (
            classifier.mask_gradients(x, cotangent.astype(np.float32), loss=Loss.COTANGENT).gradients
            for x, cotangent in ((moved, by_adversarial), (origin, by_clean))
        )
        return self._outcome(clean, adversarial, y, loss, {key: hard[key] + easy[key] for key in hard})

    def _step(self, moved: Value, gradient: Value, origin: Value, count: int, eps: float) -> Value:
        size = np.full(count, self._recipe.step_size(eps), np.float32)
        return self._arithmetic.step(moved, gradient, origin, size=size, eps=eps)

    def _outcome(
        self,
        start: NDArray[np.float32],
        adversarial: NDArray[np.float32],
        y: NDArray[np.int64],
        loss: NDArray[np.floating],
        sums: dict[str, NDArray[np.float64]],
    ) -> Outcome:
        right = self._classifier.task.right
        return Outcome(
            loss=float(loss.sum(dtype=np.float64)),
            start=int(right(start, y).sum()),
            adversarial=int(right(adversarial, y).sum()),
            samples=len(y),
            sums=sums,
        )


def trades(
    clean: NDArray[np.float32], adversarial: NDArray[np.float32], y: NDArray[np.int64], *, weight: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return KL(p, q) + weight * CE(clean) (N,), and its gradients by clean and adversarial logits (N, classes).

    p and q are the probabilities of the clean and of the adversarial input (Zhang et al. 2019, equation 5).
    """
    log_p, log_q = log_softmax(clean), log_softmax(adversarial)
    p, q = np.exp(log_p), np.exp(log_q)
    gap = log_p - log_q
    divergence = (p * gap).sum(axis=1)
    rows = np.arange(len(y))
    hot = np.zeros_like(p)
    hot[rows, y] = 1
    loss = divergence - weight * log_p[rows, y]
    return loss, p * (gap - divergence[:, None]) + weight * (p - hot), q - p


def soft_targets(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities (N, classes) of logits at the temperature of :attr:`Loss.SOFT_CE`."""
    return softmax(logits / np.float32(TEMPERATURE)).astype(np.float32)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities, in float64."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities, in float64."""
    return np.asarray(np.exp(log_softmax(logits)))
