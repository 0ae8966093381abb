"""Losses that attacks increase, and their gradients with respect to the logits.

Every loss gives one number a sample, and the gradient that it gives is of that number: no mean over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.loss import Loss

DLR_CLASSES = 4
"""DLR needs four classes; the margin stands in where there are fewer."""

_DLR_EPSILON = 1e-12

_LANES = 8


@dataclass(frozen=True)
class Seed:
    """A loss (N,) and its gradient with respect to the logits (N, classes)."""

    loss: str
    gradient: str


@dataclass(frozen=True)
class Scores:
    """Logits as the losses see them.

    Attributes:
        e: Where to emit.
        logits: Tensor (N, classes), float32 or float64.
        classes: Number of classes.
    """

    e: Emitter
    logits: str
    classes: int

    def number(self, value: float) -> str:
        """A constant of the logits' type."""
        return self.e.number(value, self.logits)

    def one_hot(self, index: str) -> str:
        """(N, classes): 1 at each sample's ``index`` (N, 1), else 0."""
        places = self.e.constant(np.arange(self.classes, dtype=np.int64)[None])
        return self.e.cast(self.e.op("Equal", index, places), self.logits)

    def column(self, labels: str) -> str:
        """Labels (N,) as (N, 1)."""
        return self.e.op("Unsqueeze", labels, self.e.ints(1))

    def at(self, hot: str) -> str:
        """(N, 1): the logit that a one-hot matrix names."""
        return self.total(self.e.op("Mul", hot, self.logits))

    def total(self, name: str) -> str:
        """(N, 1): sum over the classes."""
        return self.e.op("ReduceSum", name, self.e.ints(1), keepdims=1)

    def largest(self, name: str) -> str:
        """(N, 1): maximum over the classes."""
        return self.e.op("ReduceMax", name, self.e.ints(1), keepdims=1)

    def without(self, hot: str) -> str:
        """The logits, with the one that ``hot`` names far below the others."""
        lowest = self.number(float(np.finfo(self.e.info.dtype(self.logits)).min))  # type: ignore[type-var]
        return self.e.op("Where", self.e.op("Greater", hot, self.number(0)), lowest, self.logits)

    def best(self, name: str) -> str:
        """(N, 1): index of the maximum."""
        return self.e.op("ArgMax", name, axis=1, keepdims=1)

    def flat(self, name: str) -> str:
        """(N, 1) as (N,)."""
        return self.e.op("Squeeze", name, self.e.ints(1))


def seed(scores: Scores, loss: Loss, *, labels: str | None, targets: str | None, cotangent: str | None) -> Seed:
    """Emit a loss and its gradient.

    Args:
        scores: The logits.
        loss: Which loss.
        labels: int64 (N,), for untargeted losses, the difference and the targeted DLR.
        targets: int64 (N,); given, the loss is the targeted one.
        cotangent: (N, classes), for :attr:`Loss.COTANGENT`.
    """
    if cotangent is not None:
        return Seed(scores.flat(scores.total(scores.e.op("Mul", scores.logits, cotangent))), cotangent)
    if loss in {Loss.CE, Loss.CE_SOFTMAX}:
        hot = scores.one_hot(scores.column(targets or labels or ""))
        exact = _cross_entropy(scores, hot, targeted=bool(targets))
        return exact if loss is Loss.CE else _rounded(scores, exact, hot, targeted=bool(targets))
    if loss is Loss.LOG_ODDS:
        return _log_odds(scores, scores.one_hot(scores.column(targets or labels or "")), targeted=bool(targets))
    if targets and labels:
        return (_dlr_targeted if loss is Loss.DLR else _difference)(scores, labels, targets)
    if targets:
        return _margin(scores, scores.one_hot(scores.column(targets)), targeted=True)
    hot = scores.one_hot(scores.column(labels or ""))
    return _dlr(scores, hot) if loss is Loss.DLR else _margin(scores, hot, targeted=False)


def _cross_entropy(scores: Scores, hot: str, *, targeted: bool) -> Seed:
    """log(1 + sum over others of exp(z_j - z_y)), exact for saturated samples too."""
    e = scores.e
    relative = e.op("Sub", scores.without(hot), scores.at(hot))
    top = e.op("Max", scores.largest(relative), scores.number(0))
    others = e.op("Exp", e.op("Sub", relative, top))  # 0 at the label
    own = e.op("Exp", e.negate(top))
    total = scores.total(others)
    # log(own + total) where own + total may be 1 + 1e-20: log1p(t) = log(1 + t) * t / ((1 + t) - 1) (Kahan).
    excess = e.op("Add", e.op("Sub", own, scores.number(1)), total)
    whole = e.op("Add", scores.number(1), excess)
    rounded = e.op("Sub", whole, scores.number(1))
    lost = e.op("Equal", rounded, scores.number(0))
    ratio = e.op("Div", excess, e.op("Where", lost, scores.number(1), rounded))
    log1p = e.op("Where", lost, excess, e.op("Mul", e.op("Log", whole), ratio))
    loss = scores.flat(e.op("Add", top, log1p))
    probabilities = e.op("Div", others, e.op("Add", own, total))
    # The label's own gradient is minus the sum of the others': 1 - p would be lost to rounding.
    gradient = e.op("Sub", probabilities, e.op("Mul", hot, scores.total(probabilities)))
    return Seed(e.negate(loss), e.negate(gradient)) if targeted else Seed(loss, gradient)


def _log_odds(scores: Scores, hot: str, *, targeted: bool) -> Seed:
    e = scores.e
    others = scores.without(hot)
    top = scores.largest(others)
    powers = e.op("Exp", e.op("Sub", others, top))  # 0 at the label
    total = scores.total(powers)
    loss = scores.flat(e.op("Add", e.op("Sub", top, scores.at(hot)), e.op("Log", total)))
    gradient = e.op("Sub", e.op("Div", powers, total), hot)
    return Seed(e.negate(loss), e.negate(gradient)) if targeted else Seed(loss, gradient)


def _rounded(scores: Scores, exact: Seed, hot: str, *, targeted: bool) -> Seed:
    """The gradient as softmax minus one-hot, with the rounding that frameworks have.

    Which probabilities round to 1 hangs on the order of the sum below them, so the order is fixed here: eight lanes,
    then halves, as vectorised kernels add.
    """
    e = scores.e
    powers = e.op("Exp", e.op("Sub", scores.logits, scores.largest(scores.logits)))
    width = _LANES
    padded = e.op("Pad", powers, e.ints(0, 0, 0, -scores.classes % width))
    lanes = e.op("ReduceSum", e.op("Reshape", padded, e.ints(0, -1, width)), e.ints(1), keepdims=0)
    while width > 1:
        width //= 2
        lanes = e.op("Add", *e.ops("Split", lanes, e.ints(width, width), outputs=2, axis=1))
    gradient = e.op("Sub", e.op("Div", powers, lanes), hot)
    return Seed(exact.loss, e.negate(gradient) if targeted else gradient)


def _margin(scores: Scores, hot: str, *, targeted: bool) -> Seed:
    e = scores.e
    others = scores.without(hot)
    loss = scores.flat(e.op("Sub", scores.largest(others), scores.at(hot)))
    gradient = e.op("Sub", scores.one_hot(scores.best(others)), hot)
    return Seed(e.negate(loss), e.negate(gradient)) if targeted else Seed(loss, gradient)


def _ratio(scores: Scores, above: str, below: str) -> Seed:
    """Loss and gradient of (above . z) / (below . z + 1e-12), for weights (N, classes)."""
    e = scores.e
    numerator, denominator = scores.at(above), e.op("Add", scores.at(below), scores.number(_DLR_EPSILON))
    ratio = e.op("Div", numerator, denominator)
    gradient = e.op("Div", e.op("Sub", above, e.op("Mul", ratio, below)), denominator)
    return Seed(scores.flat(ratio), gradient)


def _ranks(scores: Scores, count: int) -> list[str]:
    """One-hot matrices of the largest logits, in order."""
    e = scores.e
    _, indices = e.ops("TopK", scores.logits, e.ints(count), outputs=2, axis=1)
    return [scores.one_hot(e.op("Gather", indices, e.ints(i), axis=1)) for i in range(count)]


def _dlr(scores: Scores, hot: str) -> Seed:
    if scores.classes < DLR_CLASSES:
        return _margin(scores, hot, targeted=False)
    first, _, third = _ranks(scores, 3)
    above = scores.e.op("Sub", scores.one_hot(scores.best(scores.without(hot))), hot)
    return _ratio(scores, above, scores.e.op("Sub", first, third))


def _difference(scores: Scores, labels: str, targets: str) -> Seed:
    hot, target = (scores.one_hot(scores.column(name)) for name in (labels, targets))
    above = scores.e.op("Sub", target, hot)
    return Seed(scores.flat(scores.at(above)), above)


def _dlr_targeted(scores: Scores, labels: str, targets: str) -> Seed:
    e = scores.e
    plain = _difference(scores, labels, targets)
    if scores.classes < DLR_CLASSES:
        return plain
    first, _, third, fourth = _ranks(scores, 4)
    tail = e.op("Mul", e.op("Add", third, fourth), scores.number(0.5))
    return _ratio(scores, plain.gradient, e.op("Sub", first, tail))
