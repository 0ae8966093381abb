"""ONNX Runtime's attention ops: products of queries and keys, a mask, Softmax, and the values that it weighs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import MICROSOFT, Node, Outputs, decomposition
from cloakonnx.graph.index.index import Dim

_FILTER = -10000.0
"""What ONNX Runtime adds to the scores of masked keys by default."""
_NEVER = -1e9
"""What keys behind a query get."""
_FAR = 1 << 40
"""The position of a place in a buffer that holds no key."""


@dataclass(frozen=True)
class _Heads:
    """Queries, keys and values, each (N, heads, length, size)."""

    query: Tensor
    key: Tensor
    value: Tensor


@decomposition("Attention", domain=MICROSOFT, note="no rotary embedding")
def attention(s: Node) -> Outputs:
    """Self-attention of one input, whose projections lie side by side in one matrix."""
    if s.attr("do_rotary", 0):
        raise s.error("its rotary embedding has no formula")
    heads, width = s.attr("num_heads"), s.shape(1)[-1]
    sizes = s.attr("qkv_hidden_sizes")
    if sizes is None and not isinstance(width, int):
        raise s.error("the size of its weights is unknown")
    sizes = list(sizes or [int(width or 0) // 3] * 3)
    projected = s.x.op("MatMul", s.input(1))
    projected = projected + s.input(2) if s.has(2) else projected
    query, key, value = (_by_head(each, heads) for each in projected.split(sizes, -1))
    past = s.optional(4)  # (2, N, heads, length, size)
    if past is not None:
        key, value = (_behind(past.gather(s.build.scalar(i), 0), each) for i, each in enumerate((key, value)))
    return _joined(_attended(s, _Heads(query, key, value), mask=3, bias=5))


@decomposition("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(s: Node) -> Outputs:
    """Attention of queries, keys and values that are given apart, or packed into one tensor."""
    heads = s.attr("num_heads")
    parts = [s.x, s.optional(1), s.optional(2)]
    rank = len(s.shape(0))
    if rank == 5:  # (N, length, heads, 3, size)
        query, key, value = (s.x.gather(s.build.scalar(i), 3).transpose([0, 2, 1, 3]) for i in range(3))
        return _joined(_attended(s, _Heads(query, key, value), mask=4, bias=5))
    if s.has(3):
        sizes = [s.shape(i)[-1] for i in range(3) if s.has(i)]
        if len(sizes) < 3 or not all(isinstance(each, int) for each in sizes):
            raise s.error("a bias of packed keys and values has no formula")
        biases = s.input(3).split([int(each or 0) for each in sizes])
        parts = [each and each + bias for each, bias in zip(parts, biases, strict=True)]
    query = _by_head(s.x if parts[0] is None else parts[0], heads)
    if s.has(1) and len(s.shape(1)) == 5:  # (N, length, heads, 2, size)
        key, value = (s.input(1).gather(s.build.scalar(i), 3).transpose([0, 2, 1, 3]) for i in range(2))
    elif parts[1] is None or parts[2] is None:
        raise s.error("queries alone have no formula")
    else:
        key, value = (
            each if len(s.shape(i)) == 4 else _by_head(each, heads) for i, each in ((1, parts[1]), (2, parts[2]))
        )
    key, value = (_behind(s.optional(6 + i), each) for i, each in enumerate((key, value)))
    return _joined(_attended(s, _Heads(query, key, value), mask=4, bias=5))


@decomposition("GroupQueryAttention", domain=MICROSOFT, note="no sinks, no smooth softmax")
def group_query_attention(s: Node) -> Outputs:
    """Causal attention in which several heads of queries share one of keys and values.

    Keys lie in the order of the buffers; what a query sees of them depends on their positions in the text.
    """
    if s.has(11) or s.attr("smooth_softmax", 0):
        raise s.error("a sink beside the keys (smooth_softmax, head_sink) has no formula")
    heads, groups = s.attr("num_heads"), s.attr("kv_num_heads")
    if s.has(1):
        query, key, value = _by_head(s.x, heads), _by_head(s.input(1), groups), _by_head(s.input(2), groups)
    else:
        packed = _by_head(s.x, heads + 2 * groups)
        query, key, value = packed.split([heads, groups, groups], 1)
    steps = _steps(query, 2)
    before = s.optional(3)
    before = None if before is not None and (before.dims or (None,) * 3)[2] == 0 else before
    places = steps.unsqueeze(0)
    if before is not None:  # how much of the buffer is filled, (N, 1)
        filled = s.input(5).cast(TensorProto.INT64).reshape(-1, 1) + 1 - query.op("Shape", start=2, end=3)
        filled = filled.op("Max", 0)
        places = places + filled
    if s.attr("do_rotary", 0):
        turns = s.input(9).cast(TensorProto.INT64) if s.has(9) else places
        caches = [s.input(i).gather(turns, 0).unsqueeze(1) for i in (7, 8)]
        half, size = s.shape(7)[-1], s.shape(0)[-1]
        if not isinstance(half, int):
            raise s.error("the size of its caches is unknown")
        size = size // (heads if s.has(1) else heads + 2 * groups) if isinstance(size, int) else None
        interleaved = bool(s.attr("rotary_interleaved", 0))
        query, key = (_turned(each, *caches, half=half, size=size, interleaved=interleaved) for each in (query, key))
    seen = places
    if before is not None:
        old = _steps(before, 2).unsqueeze(0)
        seen = (old < filled).where(old, _FAR).op("Concat", places, axis=1)
        key, value = _behind(before, key), _behind(s.input(4), value)
    distance = places.unsqueeze(2) - seen.unsqueeze(1)
    window = s.attr("local_window_size", -1)
    is_seen = (distance >= 0) & (distance < window) if window > 0 else distance >= 0
    hidden = is_seen.where(query.builder.constant(np.zeros((), query.dtype)), _NEVER).unsqueeze(1)
    key, value = (_repeated(each, heads // groups) for each in (key, value))
    return _joined(_attended(s, _Heads(query, key, value), bias=10, hidden=hidden))


@decomposition("RotaryEmbedding", domain=MICROSOFT, note="no packed batches")
def rotary_embedding(s: Node) -> Tensor:
    """Turn pairs of features by an angle that grows with the position."""
    if s.attr("is_packed_batching", 0):
        raise s.error("packed batches have no formula")
    rank, half = len(s.shape(0)), s.shape(2)[-1]
    if not isinstance(half, int):
        raise s.error("the size of its caches is unknown")
    heads = s.attr("num_heads", 0)
    if rank == 3 and not heads:
        size = s.shape(0)[-1]
        if not isinstance(size, int):
            raise s.error("the size of its heads is unknown")
        heads = size // (2 * half)
    x = s.x if rank == 4 else _by_head(s.x, heads)  # (N, heads, length, size)
    places = s.input(1).cast(TensorProto.INT64)
    if s.shape(1) in {(1,), ()}:  # the position of the first token
        places = (_steps(x, 2) + places.reshape(1)).unsqueeze(0)
    cos, sin = (s.input(i).gather(places, 0).unsqueeze(1) for i in (2, 3))
    size = s.shape(0)[-1]
    size = size // heads if rank == 3 and isinstance(size, int) else size
    y = _turned(x, cos, sin, half=half, size=size, interleaved=bool(s.attr("interleaved", 0)))
    return y if rank == 4 else _joined(y)


def _turned(x: Tensor, cos: Tensor, sin: Tensor, *, half: int, size: Dim, interleaved: bool) -> Tensor:
    """Turn pairs of the first features of (N, heads, length, size), as many as there are angles for."""
    rest: Tensor | None = None
    if isinstance(size, int) and size > 2 * half:
        x, rest = x.split([2 * half, size - 2 * half], -1)
    if interleaved:
        shape = x.op("Shape", start=0, end=3)
        pairs = x.reshape(shape.op("Concat", x.builder.ints(half, 2), axis=0))
        left, right = (pairs.gather(x.builder.scalar(i), 4) for i in range(2))
        both = [(left * cos - right * sin).unsqueeze(-1), (left * sin + right * cos).unsqueeze(-1)]
        y = both[0].op("Concat", both[1], axis=-1).reshape(shape.op("Concat", x.builder.ints(2 * half), axis=0))
    else:
        left, right = x.split([half, half], -1)
        y = (left * cos - right * sin).op("Concat", left * sin + right * cos, axis=-1)
    return y if rest is None else y.op("Concat", rest, axis=-1)


def _steps(x: Tensor, axis: int) -> Tensor:
    """Return 0, 1, ... along an axis."""
    count = x.op("Shape", start=axis, end=axis + 1).squeeze(0)
    return x.builder.scalar(0).op("Range", count, x.builder.scalar(1))


def _behind(past: Tensor | None, x: Tensor) -> Tensor:
    """Put keys or values (N, heads, length, size) behind those of earlier tokens."""
    return x if past is None else past.op("Concat", x, axis=2)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(N, length, heads * size) as (N, heads, length, size)."""
    return x.reshape(0, 0, heads, -1).transpose([0, 2, 1, 3])


def _joined(x: Tensor) -> Tensor:
    """(N, heads, length, size) as (N, length, heads * size)."""
    return x.transpose([0, 2, 1, 3]).reshape(0, 0, -1)


def _repeated(x: Tensor, times: int) -> Tensor:
    """Give each head of keys or values to several heads of queries."""
    if times == 1:
        return x
    ints = x.builder.ints
    shape = [x.op("Shape", start=0, end=2), ints(times), x.op("Shape", start=2, end=4)]
    wide = x.unsqueeze(2).op("Expand", shape[0].op("Concat", *shape[1:], axis=0))
    heads = x.op("Shape", start=1, end=2) * ints(times)
    return wide.reshape(shape[2].builder.op("Concat", x.op("Shape", start=0, end=1), heads, shape[2], axis=0))


def _attended(
    s: Node, h: _Heads, *, mask: int | None = None, bias: int | None = None, hidden: Tensor | None = None
) -> Tensor:
    """Return what each query takes of the values, (N, heads, length, size)."""
    size = h.query.op("Shape", start=3, end=4).squeeze(0).cast(h.query).sqrt()
    scores = h.query.op("MatMul", h.key.transpose([0, 1, 3, 2]))
    scale = s.number("scale", 0.0)
    scores = scores * scale if scale else scores / size
    softcap = s.number("softcap", 0.0)
    scores = (scores / softcap).op("Tanh") * softcap if softcap else scores
    if mask is not None and s.has(mask):
        scores = scores + _masked(s, mask, h.key)
    if bias is not None and s.has(bias):
        scores = scores + s.input(bias)
    if hidden is not None:
        scores = scores + hidden
    if s.attr("unidirectional", 0):
        lower = s.build.constant(np.float32(_NEVER)).op("Expand", scores.op("Shape", start=2, end=4))
        earlier = scores.op("Shape", start=3, end=4) - scores.op("Shape", start=2, end=3)
        above = lower.op("Trilu", earlier.squeeze(0) + 1, upper=1)
        scores = scores + above.cast(scores)
    return scores.op("Softmax", axis=-1).op("MatMul", h.value)


def _masked(s: Node, position: int, key: Tensor) -> Tensor:
    """Return what is added to the scores of keys that a mask leaves out."""
    mask, rank = s.input(position), len(s.shape(position))
    filtered = s.number("mask_filter_value", _FILTER)
    if rank == 1:  # how many keys of each sample there are
        if s.shape(position)[0] != s.shape(0)[0]:
            raise s.error("a mask of starts and ends has no formula")
        mask = _steps(key, 2).unsqueeze(0).op("Less", mask.cast(TensorProto.INT64).unsqueeze(1))
        rank = 2
    kept = mask.cast(key)
    axes = {2: [1, 2], 3: [1], 4: []}[rank]
    return (1 - (kept.unsqueeze(axes) if axes else kept)) * filtered
