"""Into ONNX Runtime's blocked layout and out of it (com.microsoft.nchwc): each is the gradient of the other."""

from __future__ import annotations

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import unary
from cloakonnx.graph.build import Tensor
from cloakonnx.graph.index.blocked import NCHWC

_MULTIPLE = 4
"""ReorderInput takes channels by the four."""


@unary("ReorderInput", since=1, until=1, domain=NCHWC)
def reorder_input(s: GradientSite) -> Tensor:
    """Dy out of the blocks, without what fills the last one."""
    is_last = s.attr("channels_last", 0)
    channels = s.shape(s.x, "data input")[-1 if is_last else 1]
    if not isinstance(channels, int):
        raise s.error("the number of its channels is unknown")
    return s.dy.op("ReorderOutput", domain=NCHWC, channels=channels, channels_last=is_last)


@unary("ReorderOutput", since=1, until=1, domain=NCHWC)
def reorder_output(s: GradientSite) -> Tensor:
    """Dy in blocks, the last one filled with zeros."""
    is_last = s.attr("channels_last", 0)
    more = [0, 0, 0, 0]
    more[3 if is_last else 1] = -s.attr("channels") % _MULTIPLE
    return s.dy.padded([0] * 4, more).op("ReorderInput", domain=NCHWC, channels_last=is_last)
