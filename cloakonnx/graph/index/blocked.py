"""ONNX Runtime's blocked layout: in which tensors channels lie in blocks behind the pixels (com.microsoft.nchwc).

``ReorderInput`` makes such a tensor of NCHW or NHWC, ``ReorderOutput`` turns it back; its shape is that of NCHW with
the channels rounded up to whole blocks. How large a block is depends on the processor, and no file says it.
"""

from __future__ import annotations

NCHWC = "com.microsoft.nchwc"
LARGEST = 16
"""Channels of the largest block; the other one has half of that."""
