"""ONNX Runtime's blocked layout: in which tensors channels lie in blocks behind the pixels (com.microsoft.nchwc).

``ReorderInput`` makes such a tensor of NCHW or NHWC, ``ReorderOutput`` turns it back; its shape is that of NCHW with
the channels rounded up to whole blocks. How large a block is depends on the processor, and no file says it.
"""

from __future__ import annotations

from cloakonnx.graph.index.index import Index

NCHWC = "com.microsoft.nchwc"
LARGEST = 16
"""Channels of the largest block; the other one has half of that."""


def is_blocked(index: Index, tensor: str) -> bool:
    """Whether a tensor is in the blocked layout, which elementwise ops and Concat leave as it is."""
    for _ in range(len(index.graph.node) + 1):  # a damaged file may have a circle
        node = index.producer(tensor)
        if node is None or not node.input:
            return False
        if node.domain == NCHWC:
            return node.op_type != "ReorderOutput"
        tensor = node.input[0]
    return False
