"""The loss that masks are learned by: the inner attack, and the gradient of the batch's mean loss by each mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloakonnx.attacks.ball import ball
from cloakonnx.attacks.random import Stream
from cloakonnx.attacks.victim import Victim
from cloakonnx.classifier.masked import MaskedClassifier
from cloakonnx.gradient.losses import Loss
from cloakonnx.runtime.session import Value
from cloakonnx.selection.learn.recipe import Recipe


@dataclass(frozen=True)
class Outcome:
    """What one batch gives.

    Attributes:
        loss: Sum of the samples' whole losses.
        clean: How many clean samples are classified correctly.
        adversarial: And of their adversarial twins.
        gradients: Of the batch's mean loss, by each mask.
    """

    loss: float
    clean: int
    adversarial: int
    gradients: dict[str, NDArray[np.float64]]


class Objective:
    """Loss and gradients of batches under the masks that are set in a classifier.

    Args:
        classifier: The classifier.
        recipe: The settings.
        rank: Of a batch, the batch axis included.
    """

    def __init__(self, classifier: MaskedClassifier, recipe: Recipe, *, rank: int) -> None:
        self._classifier, self._recipe = classifier, recipe
        self._arithmetic = Victim(classifier).arithmetic(rank, recipe.norm)
        classifier.prepare_masks(
            Loss.COTANGENT if recipe.loss == "trades" else Loss.CE
        )  # a tap without gradient shows here

    def __call__(self, x: NDArray[np.float32], y: NDArray[np.int64], *, eps: float, stream: Stream) -> Outcome:
        """Attack a batch within ``eps``, from random starts out of ``stream``, and differentiate."""
        origin = self._arithmetic.put(x)
        if self._recipe.loss == "trades":
            return self._trades(x, origin, y, eps, stream)
        return self._cross_entropy(x, origin, y, eps, stream)

    def _cross_entropy(
        self, x: NDArray[np.float32], origin: Value, y: NDArray[np.int64], eps: float, stream: Stream
    ) -> Outcome:
        twins = self._attacked(x, origin, y, eps=eps, stream=stream)
        weight = self._recipe.weight
        hard = self._classifier.mask_gradients(twins, y)
        if weight == 0:
            clean, loss, sums = self._classifier.logits(origin), hard.loss, hard.gradients
        else:
            easy = self._classifier.mask_gradients(origin, y)
            clean, loss = easy.logits, hard.loss + weight * easy.loss
            sums = {tap: hard.gradients[tap] + weight * easy.gradients[tap] for tap in hard.gradients}
        return self._outcome(clean, hard.logits, y, loss, sums)

    def _trades(
        self, x: NDArray[np.float32], origin: Value, y: NDArray[np.int64], eps: float, stream: Stream
    ) -> Outcome:
        clean = self._classifier.logits(origin)
        twins = self._attacked(x, origin, y, eps=eps, stream=stream, clean=softmax(clean))
        adversarial = self._classifier.logits(twins)
        loss, by_clean, by_adversarial = trades(clean, adversarial, y, weight=self._recipe.weight)
        hard = self._classifier.pull_to_masks(twins, by_adversarial.astype(np.float32)).gradients
        easy = self._classifier.pull_to_masks(origin, by_clean.astype(np.float32)).gradients
        return self._outcome(clean, adversarial, y, loss, {tap: hard[tap] + easy[tap] for tap in hard})

    def _attacked(
        self,
        x: NDArray[np.float32],
        origin: Value,
        y: NDArray[np.int64],
        *,
        eps: float,
        stream: Stream,
        clean: NDArray[np.float64] | None = None,
    ) -> Value:
        """Return twins that increase the cross-entropy, or the divergence from the clean probabilities."""
        classifier, arithmetic = self._classifier, self._arithmetic
        moved = arithmetic.project(ball(self._recipe.norm, eps).inside(stream, x), origin, eps=eps)
        size = np.full(len(x), self._recipe.step_size(eps), np.float32)
        for _ in range(self._recipe.inner_steps):
            if clean is None:
                gradient = classifier.answer(moved, y, loss=Loss.CE.climbed).gradient
            else:
                gradient = classifier.vjp(moved, (softmax(classifier.logits(moved)) - clean).astype(np.float32))
            moved = arithmetic.step(moved, gradient, origin, size=size, eps=eps)
        return moved

    def _outcome(
        self,
        clean: NDArray[np.float32],
        adversarial: NDArray[np.float32],
        y: NDArray[np.int64],
        loss: NDArray[np.floating],
        sums: dict[str, NDArray[np.float64]],
    ) -> Outcome:
        right = self._classifier.task.right
        return Outcome(
            loss=float(loss.sum(dtype=np.float64)),
            clean=int(right(clean, y).sum()),
            adversarial=int(right(adversarial, y).sum()),
            gradients={tap: total / len(y) for tap, total in sums.items()},
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


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities, in float64."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities, in float64."""
    return np.asarray(np.exp(log_softmax(logits)))
