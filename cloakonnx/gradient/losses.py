"""Losses that attacks increase, and their gradients with respect to the logits.

Every loss gives one number a sample, and the gradient that it gives is of that number: no mean over the batch. A new
loss is a name in :class:`Loss` and a function with :func:`loss`. This module loads no onnx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from cloakonnx.graph.build import Tensor

_DLR_EPSILON = 1e-12

TEMPERATURE = 2.0
"""Softens the probabilities of :attr:`Loss.SOFT_CE`."""

_LANES = 8

_INT64 = 7
"""Element type of indices in ONNX."""


class Loss(StrEnum):
    """What an attack increases.

    Attributes:
        CE: Cross-entropy of the label; targeted: minus that of the target.
        CE_SOFTMAX: The same loss with the gradient that frameworks compute, softmax minus one-hot: where the label's
            probability rounds to 1 its own entry is lost, and attacks are weaker. For comparisons.
        LOG_ODDS: log((1 - p) / p) of the label's probability p, that is logsumexp(other logits) - logit; targeted:
            minus that of the target. CE = softplus(LOG_ODDS), so both put inputs in the same order and their gradients
            point the same way, but this one never vanishes.
        MARGIN: Largest other logit less the label's (Carlini & Wagner 2017); targeted: the target's less the largest
            other.
        DLR: Difference of logits ratio (Croce & Hein 2020, arXiv:2003.01690, equations 5 and 6). Fewer than four
            classes: the numerator alone.
        DIFFERENCE: The target's logit less the label's; always targeted.
        SOFT_CE: Cross-entropy of soft targets q, a graph input (N, classes), at temperature T = 2: minus the sum of
            T q log softmax(logits / T) (Hinton et al. 2015, arXiv 1503.02531, section 2).
        COTANGENT: The sum of the logits weighted by a graph input (N, classes).
    """

    CE = "ce"
    CE_SOFTMAX = "ce-softmax"
    LOG_ODDS = "log-odds"
    MARGIN = "margin"
    DLR = "dlr"
    DIFFERENCE = "difference"
    SOFT_CE = "soft-ce"
    COTANGENT = "cotangent"

    @property
    def climbed(self) -> Loss:
        """What an attack climbs to increase this loss, where it depends only on the gradient's direction and the order.

        The cross-entropy of a label whose logit is 100 above the others, and its gradient, are 0 in float32.
        """
        return Loss.LOG_ODDS if self is Loss.CE else self


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


OfLabel: TypeAlias = "Callable[[Scores, Tensor], Seed]"
"""A loss of the label, a one-hot matrix (N, classes); targeted it is minus that of the target."""
OfPair: TypeAlias = "Callable[[Scores, Tensor, Tensor], Seed]"
"""A loss of label and target, int64 (N,) both."""


@dataclass
class _Registered:
    """How a loss is computed.

    Attributes:
        of_label: Untargeted, and targeted where there is no ``of_pair``; None where it needs targets.
        of_pair: Targeted.
        needs: Classes that either needs; with fewer the margin or the difference, its numerator, stands in.
        is_attacked: Whether attacks may be asked to increase it.
    """

    of_label: OfLabel | None = None
    of_pair: OfPair | None = None
    needs: int = 2
    is_attacked: bool = False


_REGISTRY: dict[Loss, _Registered] = {name: _Registered() for name in Loss}


def loss(name: Loss, *, needs: int = 2, attacked: bool = False) -> Callable[[OfLabel], OfLabel]:
    """Register the function of a loss of the label.

    Args:
        name: The loss.
        needs: Classes that it needs; with fewer the margin stands in.
        attacked: Whether attacks may be asked to increase it: ``--loss``.
    """

    def register(function: OfLabel) -> OfLabel:
        registered = _REGISTRY[name]
        registered.of_label, registered.is_attacked = function, attacked
        registered.needs = max(needs, registered.needs)
        return function

    return register


def targeted_loss(name: Loss, *, needs: int = 2) -> Callable[[OfPair], OfPair]:
    """Register the function of a loss of label and target; with too few classes the difference stands in."""

    def register(function: OfPair) -> OfPair:
        registered = _REGISTRY[name]
        registered.of_pair, registered.needs = function, max(needs, registered.needs)
        return function

    return register


def classes_needed(name: Loss) -> int:
    """Return how many classes a loss needs; with fewer its numerator stands in."""
    return _REGISTRY[name].needs


def inputs_of(name: Loss, *, targeted: bool) -> tuple[str, ...]:
    """Return which of labels, targets, soft targets and cotangent a loss takes."""
    if name in {Loss.SOFT_CE, Loss.COTANGENT}:
        return ("soft_targets" if name is Loss.SOFT_CE else "cotangent",)
    registered = _REGISTRY[name]
    if registered.of_label is None or (targeted and registered.of_pair is not None):
        return ("labels", "targets")
    return ("targets",) if targeted else ("labels",)


def seed(
    scores: Scores,
    name: Loss,
    *,
    labels: Tensor | None,
    targets: Tensor | None,
    soft_targets: Tensor | None,
    cotangent: Tensor | None,
) -> Seed:
    """Emit a loss and its gradient.

    Args:
        scores: The logits.
        name: Which loss.
        labels: int64 (N,), where :func:`inputs_of` has them.
        targets: int64 (N,), likewise; given, the loss is the targeted one.
        soft_targets: (N, classes), probabilities at the temperature, for :attr:`Loss.SOFT_CE`.
        cotangent: (N, classes), for :attr:`Loss.COTANGENT`.
    """
    if soft_targets is not None:
        return _soft_cross_entropy(scores, soft_targets)
    if cotangent is not None:
        return Seed((scores.logits * cotangent).sum(1).squeeze(1), cotangent)
    registered = _REGISTRY[name]
    is_short = scores.classes < registered.needs
    if labels is not None and targets is not None:
        of_pair = _difference if is_short or registered.of_pair is None else registered.of_pair
        return of_pair(scores, labels, targets)
    named = labels if targets is None else targets
    of_label = _margin if is_short else registered.of_label
    if named is None or of_label is None:
        raise ValueError(f"loss {name} needs labels or targets")
    made = of_label(scores, scores.labelled(named))
    return made if targets is None else -made


@loss(Loss.CE, attacked=True)
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


def _soft_cross_entropy(scores: Scores, soft_targets: Tensor) -> Seed:
    relative = (scores.logits - scores.logits.max(1)) * (1 / TEMPERATURE)
    powers = relative.exp()
    total = powers.sum(1)
    own = (soft_targets * relative).sum(1)
    return Seed(((total.log() - own) * TEMPERATURE).squeeze(1), powers / total - soft_targets)


@loss(Loss.LOG_ODDS)
def _log_odds(scores: Scores, hot: Tensor) -> Seed:
    others = scores.without(hot)
    top = others.max(1)
    powers = (others - top).exp()  # 0 at the label
    total = powers.sum(1)
    return Seed((top - scores.at(hot) + total.log()).squeeze(1), powers / total - hot)


@loss(Loss.CE_SOFTMAX, attacked=True)
def _rounded(scores: Scores, hot: Tensor) -> Seed:
    """The gradient as softmax minus one-hot, with the rounding that frameworks have.

    Which probabilities round to 1 depends on the order of the sum below them, so the order is fixed here: eight lanes,
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


@loss(Loss.MARGIN, attacked=True)
def _margin(scores: Scores, hot: Tensor) -> Seed:
    others = scores.without(hot)
    return Seed((others.max(1) - scores.at(hot)).squeeze(1), scores.best(others) - hot)


def _ratio(scores: Scores, above: Tensor, below: Tensor) -> Seed:
    """Loss and gradient of (above . z) / (below . z + 1e-12), for weights (N, classes)."""
    denominator = scores.at(below) + _DLR_EPSILON
    ratio = scores.at(above) / denominator
    return Seed(ratio.squeeze(1), (above - ratio * below) / denominator)


def _ranks(scores: Scores, count: int) -> list[Tensor]:
    """One-hot matrices of the largest logits, in order."""
    build, logits = scores.logits.builder, scores.logits
    _, indices = build.ops("TopK", logits, build.ints(count), elem_types=[None, _INT64], axis=1)
    return [scores.one_hot(indices.gather(build.ints(i), 1)) for i in range(count)]


@loss(Loss.DLR, needs=4, attacked=True)
def _dlr(scores: Scores, hot: Tensor) -> Seed:
    first, _, third = _ranks(scores, 3)
    return _ratio(scores, scores.best(scores.without(hot)) - hot, first - third)


@targeted_loss(Loss.DIFFERENCE)
def _difference(scores: Scores, labels: Tensor, targets: Tensor) -> Seed:
    above = scores.labelled(targets) - scores.labelled(labels)
    return Seed(scores.at(above).squeeze(1), above)


@targeted_loss(Loss.DLR, needs=4)
def _dlr_targeted(scores: Scores, labels: Tensor, targets: Tensor) -> Seed:
    first, _, third, fourth = _ranks(scores, 4)
    return _ratio(scores, _difference(scores, labels, targets).gradient, first - (third + fourth) * 0.5)


ATTACKED = tuple(name for name, registered in _REGISTRY.items() if registered.is_attacked)
"""Losses that attacks may increase."""
