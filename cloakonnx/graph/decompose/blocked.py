"""Ops on ONNX Runtime's blocked layout (com.microsoft.nchwc): out of the blocks, the standard op, and back into them.

How many channels a block has is known to the runtime alone, so that its own ops unpack weights, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.fused import activated, given
from cloakonnx.graph.decompose.registry import Node, decomposition
from cloakonnx.graph.index.blocked import NCHWC
from cloakonnx.graph.index.custom import CONV, MAX_POOL, POOL


def unpacked(x: Tensor, channels: int) -> Tensor:
    """Return a tensor of blocks as NCHW."""
    return x.op("ReorderOutput", domain=NCHWC, channels=channels)


def packed(x: Tensor) -> Tensor:
    """Return NCHW of whole blocks in blocks."""
    return x.op("ReorderInput", domain=NCHWC)


@decomposition("Conv", domain=NCHWC)
def conv(s: Node) -> Tensor:
    """Conv, a sum and an activation; few input channels are not in blocks."""
    blocked, dims, group = s.node.input[0] in s.index.blocked, s.index.static(s.node.input[1]), s.attr("group", 1)
    if dims is None or len(dims) != 4:
        raise s.error("the shape of its weights is unknown")
    x = unpacked(s.x, dims[1] * group) if blocked else s.x
    y = x.op("Conv", _weights(s, dims, by_input=blocked and dims[1] > 1), s.optional(2), **given(s, CONV))
    if s.has(3):
        y = y + unpacked(s.input(3), dims[0])
    return packed(activated(s, y, s.attr("activation_params") or ()))


def _weights(s: Node, dims: Sequence[int], *, by_input: bool) -> Tensor:
    """Return weights as OIHW; they lie in blocks of outputs, and of inputs where ``by_input`` says so."""
    outputs, *others = dims
    rows = unpacked(s.input(1).reshape(1, outputs, prod(others), 1), outputs)
    weights = rows.reshape(*dims)
    return unpacked(weights, others[0]) if by_input else weights


@decomposition("MaxPool", domain=NCHWC)
def max_pool(s: Node) -> Tensor:
    """MaxPool."""
    return _pool(s, "MaxPool", MAX_POOL)


@decomposition("AveragePool", domain=NCHWC)
def average_pool(s: Node) -> Tensor:
    """AveragePool."""
    if set(s.attr("dilations") or [1]) != {1}:
        raise s.error("its windows are dilated")
    return _pool(s, "AveragePool", POOL)


@decomposition("GlobalAveragePool", domain=NCHWC)
@decomposition("GlobalMaxPool", domain=NCHWC)
def global_pool(s: Node) -> Tensor:
    """The standard op of that name."""
    return _pool(s, s.node.op_type, ())


@decomposition("Upsample", domain=NCHWC)
def upsample(s: Node) -> Tensor:
    """Resize by whole factors."""
    scales = s.build.constant([float(scale) for scale in s.attr("scales")], "f4")
    mode = s.attr("coordinate_transformation_mode", "asymmetric")
    x = unpacked(s.x, _channels(s))
    how = {"mode": s.attr("mode", "nearest"), "coordinate_transformation_mode": mode, "nearest_mode": "floor"}
    return packed(x.op("Resize", None, scales, **how))


def _pool(s: Node, op: str, names: Sequence[str]) -> Tensor:
    return packed(unpacked(s.x, _channels(s)).op(op, **given(s, names)))


def _channels(s: Node) -> int:
    """How many channels there are with those that fill the last block; pools are put behind whole blocks only."""
    found = s.shape(0)[1]
    before = s.index.producer(s.node.input[0])
    if not isinstance(found, int) and before is not None and before.op_type == "ReorderInput":
        found = (s.index.shape(before.input[0]) or (None, None))[1]
    if not isinstance(found, int):
        raise s.error("the number of its channels is unknown; give the model an input of fixed shape")
    return found
