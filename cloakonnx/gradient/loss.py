"""The losses by name, for those who only choose one: this module loads no onnx."""

from __future__ import annotations

from enum import StrEnum


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
        COTANGENT: The sum of the logits weighted by a graph input (N, classes).
    """

    CE = "ce"
    CE_SOFTMAX = "ce-softmax"
    LOG_ODDS = "log-odds"
    MARGIN = "margin"
    DLR = "dlr"
    DIFFERENCE = "difference"
    COTANGENT = "cotangent"

    @property
    def climbed(self) -> Loss:
        """What an attack climbs to increase this loss, where it heeds only the gradient's direction and the order.

        The cross-entropy of a label whose logit is 100 above the others, and its gradient, are 0 in float32.
        """
        return Loss.LOG_ODDS if self is Loss.CE else self


ATTACKED = (Loss.CE, Loss.CE_SOFTMAX, Loss.MARGIN, Loss.DLR)
"""Losses that attacks may increase."""
