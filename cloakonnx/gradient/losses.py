"""Losses that attacks increase, and their gradients with respect to the logits.

Every loss gives one number a sample, and the gradient that it gives is of that number: no mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from cloakonnx.gradient.loss import Loss
from cloakonnx.graph.build import Tensor

DLR_CLASSES = 4
"""DLR needs four classes; the margin stands in where there are fewer."""

_DLR_EPSILON = 1e-12

_LANES = 8


@dataclass(frozen=True)
class Seed:
    """A loss (N,) and its gradient with respect to the logits (N, classes)."""

    loss: Tensor
    gradient: Tensor

    def __neg__(self) -> Seed:
        """Return what a targeted attack increases."""
        return Seed(-self.loss, -self.gradient)


@dataclass(frozen=True)
class Scores:
    """Logits as the losses see them.

    Attributes:
        logits: Tensor (N, classes), float32 or float64.
        classes: Number of classes.
    """

    logits: Tensor
    classes: int

    def one_hot(self, places: Tensor) -> Tensor:
        """(N, classes): 1 at each sample's place (N, 1), else 0."""
        numbers = self.logits.builder.constant(np.arange(self.classes, dtype=np.int64)[None])
        return places.equals(numbers).cast(self.logits)

    def labelled(self, labels: Tensor) -> Tensor:
        """(N, classes): 1 at each sample's label (N,), else 0."""
        return self.one_hot(labels.unsqueeze(1))

    def at(self, weights: Tensor) -> Tensor:
        """(N, 1): the logit that a one-hot matrix names, or a weighted sum of them."""
        return (weights * self.logits).sum(1)

    def without(self, hot: Tensor) -> Tensor:
        """The logits, with the one that ``hot`` names far below the others."""
        lowest = float(np.finfo(self.logits.dtype).min)  # type: ignore[type-var]
        return (hot > 0).where(lowest, self.logits)

    def best(self, scores: Tensor) -> Tensor:
        """(N, classes): 1 at the maximum, else 0."""
        return self.one_hot(scores.op("ArgMax", axis=1, keepdims=1))


def seed(
    scores: Scores, loss: Loss, *, labels: Tensor | None, targets: Tensor | None, cotangent: Tensor | None
) -> Seed:
    """Emit a loss and its gradient.

    Args:
        scores: The logits.
        loss: Which loss.
        labels: int64 (N,), for untargeted losses, the difference and the targeted DLR.
        targets: int64 (N,); given, the loss is the targeted one.
        cotangent: (N, classes), for :attr:`Loss.COTANGENT`.
    """
    if cotangent is not None:
        return Seed((scores.logits * cotangent).sum(1).squeeze(1), cotangent)
    if labels is not None and targets is not None:
        return (_dlr_targeted if loss is Loss.DLR else _difference)(scores, labels, targets)
    named = labels if targets is None else targets
    if named is None:
        raise ValueError(f"loss {loss} needs labels or targets")
    hot = scores.labelled(named)
    if loss is Loss.DLR and targets is None:
        return _dlr(scores, hot)
    made = _LOSSES.get(loss, _margin)(scores, hot)
    return made if targets is None else -made


def _cross_entropy(scores: Scores, hot: Tensor) -> Seed:
    """log(1 + sum over others of exp(z_j - z_y)), exact for saturated samples too."""
    relative = scores.without(hot) - scores.at(hot)
    top = relative.max(1).op("Max", 0)
    others = (relative - top).exp()  # 0 at the label
    own = (-top).exp()
    total = others.sum(1)
    # log(own + total) where own + total may be 1 + 1e-20: log1p(t) = log(1 + t) * t / ((1 + t) - 1) (Kahan).
    excess = own - 1 + total
    whole = 1 + excess
    rounded = whole - 1
    lost = rounded.equals(0)
    log1p = lost.where(excess, whole.log() * (excess / lost.where(1, rounded)))
    probabilities = others / (own + total)
    # The label's own gradient is minus the sum of the others': 1 - p would be lost to rounding.
    return Seed((top + log1p).squeeze(1), probabilities - hot * probabilities.sum(1))


def _log_odds(scores: Scores, hot: Tensor) -> Seed:
    others = scores.without(hot)
    top = others.max(1)
    powers = (others - top).exp()  # 0 at the label
    total = powers.sum(1)
    return Seed((top - scores.at(hot) + total.log()).squeeze(1), powers / total - hot)


def _rounded(scores: Scores, hot: Tensor) -> Seed:
    """The gradient as softmax minus one-hot, with the rounding that frameworks have.

    Which probabilities round to 1 hangs on the order of the sum below them, so the order is fixed here: eight lanes,
    then halves, as vectorised kernels add.
    """
    build = scores.logits.builder
    powers = (scores.logits - scores.logits.max(1)).exp()
    width = _LANES
    padded = powers.op("Pad", build.ints(0, 0, 0, -scores.classes % width))
    lanes = padded.reshape(0, -1, width).sum(1, keepdims=False)
    while width > 1:
        width //= 2
        low, high = build.ops("Split", lanes, build.ints(width, width), elem_types=[lanes.elem_type] * 2, axis=1)
        lanes = low + high
    return Seed(_cross_entropy(scores, hot).loss, powers / lanes - hot)


def _margin(scores: Scores, hot: Tensor) -> Seed:
    others = scores.without(hot)
    return Seed((others.max(1) - scores.at(hot)).squeeze(1), scores.best(others) - hot)


_LOSSES: dict[Loss, Callable[[Scores, Tensor], Seed]] = {
    Loss.CE: _cross_entropy,
    Loss.CE_SOFTMAX: _rounded,
    Loss.LOG_ODDS: _log_odds,
}
"""Losses of one label a sample; the margin is what the others come down to."""


def _ratio(scores: Scores, above: Tensor, below: Tensor) -> Seed:
    """Loss and gradient of (above . z) / (below . z + 1e-12), for weights (N, classes)."""
    denominator = scores.at(below) + _DLR_EPSILON
    ratio = scores.at(above) / denominator
    return Seed(ratio.squeeze(1), (above - ratio * below) / denominator)


def _ranks(scores: Scores, count: int) -> list[Tensor]:
    """One-hot matrices of the largest logits, in order."""
    build, logits = scores.logits.builder, scores.logits
    _, indices = build.ops("TopK", logits, build.ints(count), elem_types=[None, TensorProto.INT64], axis=1)
    return [scores.one_hot(indices.gather(build.ints(i), 1)) for i in range(count)]


def _dlr(scores: Scores, hot: Tensor) -> Seed:
    if scores.classes < DLR_CLASSES:
        return _margin(scores, hot)
    first, _, third = _ranks(scores, 3)
    return _ratio(scores, scores.best(scores.without(hot)) - hot, first - third)


def _difference(scores: Scores, labels: Tensor, targets: Tensor) -> Seed:
    above = scores.labelled(targets) - scores.labelled(labels)
    return Seed(scores.at(above).squeeze(1), above)


def _dlr_targeted(scores: Scores, labels: Tensor, targets: Tensor) -> Seed:
    plain = _difference(scores, labels, targets)
    if scores.classes < DLR_CLASSES:
        return plain
    first, _, third, fourth = _ranks(scores, 4)
    return _ratio(scores, plain.gradient, first - (third + fourth) * 0.5)
