"""ONNX Runtime's attention ops: products of queries and keys, a mask, Softmax, and the values that it weighs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import MICROSOFT, Node, Outputs, decomposition

_FILTER = -10000.0
"""What ONNX Runtime adds to the scores of masked keys unless told otherwise."""
_NEVER = -1e9
"""What keys behind a query get."""


@dataclass(frozen=True)
class _Heads:
    """Queries, keys and values, each (N, heads, length, size)."""

    query: Tensor
    key: Tensor
    value: Tensor


@decomposition("Attention", domain=MICROSOFT, note="no past, no rotary embedding")
def attention(s: Node) -> Outputs:
    """Self-attention of one input, whose projections lie side by side in one matrix."""
    if s.has(4) or s.attr("do_rotary", 0):
        raise s.error("a past and rotary embeddings have no formula")
    heads, width = s.attr("num_heads"), s.shape(1)[-1]
    sizes = s.attr("qkv_hidden_sizes")
    if sizes is None and not isinstance(width, int):
        raise s.error("the size of its weights is unknown")
    sizes = list(sizes or [int(width or 0) // 3] * 3)
    projected = s.x.op("MatMul", s.input(1))
    projected = projected + s.input(2) if s.has(2) else projected
    query, key, value = (_by_head(each, heads) for each in projected.split(sizes, -1))
    return _joined(_attended(s, _Heads(query, key, value), mask=3, bias=5))


@decomposition("MultiHeadAttention", domain=MICROSOFT, note="no past")
def multi_head_attention(s: Node) -> Outputs:
    """Attention of queries, keys and values that are given apart, or packed into one tensor."""
    if s.has(6) or s.has(7):
        raise s.error("a past has no formula")
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
    return _joined(_attended(s, _Heads(query, key, value), mask=4, bias=5))


@decomposition("GroupQueryAttention", domain=MICROSOFT, note="no past, no rotary embedding, no window")
def group_query_attention(s: Node) -> Outputs:
    """Causal attention in which several heads of queries share one of keys and values."""
    window = s.attr("local_window_size", -1)
    past = s.optional(3)
    if s.attr("do_rotary", 0) or window != -1 or (past is not None and (past.dims or (None,) * 3)[2] != 0):
        raise s.error("a past, rotary embeddings and windows have no formula")
    heads, groups = s.attr("num_heads"), s.attr("kv_num_heads")
    if s.has(1):
        query, key, value = _by_head(s.x, heads), _by_head(s.input(1), groups), _by_head(s.input(2), groups)
    else:
        packed = _by_head(s.x, heads + 2 * groups)
        query, key, value = packed.split([heads, groups, groups], 1)
    key, value = (_repeated(each, heads // groups) for each in (key, value))
    return _joined(_attended(s, _Heads(query, key, value), causal=True))


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
    length = x.op("Shape", start=2, end=3)
    places = s.input(1).cast(TensorProto.INT64)
    if s.shape(1) in {(1,), ()}:  # the position of the first token
        steps = s.build.scalar(0).op("Range", length.squeeze(0), s.build.scalar(1))
        places = (steps + places.reshape(1)).unsqueeze(0)
    cos, sin = (s.input(i).gather(places, 0).unsqueeze(1) for i in (2, 3))
    size = (x.dims or (None,) * 4)[3]
    rest: Tensor | None = None
    turned = 2 * half
    if s.attr("rotary_embedding_dim", 0) and isinstance(size, int) and size > turned:
        x, rest = x.split([turned, size - turned], -1)
    if s.attr("interleaved", 0):
        shape = x.op("Shape", start=0, end=3)
        pairs = x.reshape(shape.op("Concat", s.build.ints(half, 2), axis=0))
        left, right = (pairs.gather(s.build.scalar(i), 4) for i in range(2))
        both = [(left * cos - right * sin).unsqueeze(-1), (left * sin + right * cos).unsqueeze(-1)]
        y = both[0].op("Concat", both[1], axis=-1).reshape(shape.op("Concat", s.build.ints(turned), axis=0))
    else:
        left, right = x.split([half, half], -1)
        y = (left * cos - right * sin).op("Concat", left * sin + right * cos, axis=-1)
    y = y if rest is None else y.op("Concat", rest, axis=-1)
    return y if rank == 4 else _joined(y)


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


def _attended(s: Node, h: _Heads, *, mask: int | None = None, bias: int | None = None, causal: bool = False) -> Tensor:
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
    if causal or s.attr("unidirectional", 0):
        lower = s.build.constant(np.float32(_NEVER)).op("Expand", scores.op("Shape", start=2, end=4))
        above = lower.op("Trilu", s.build.scalar(1), upper=1)
        scores = scores + above.cast(scores)
    return scores.op("Softmax", axis=-1).op("MatMul", h.value)


def _masked(s: Node, position: int, key: Tensor) -> Tensor:
    """Return what is added to the scores of keys that a mask leaves out."""
    mask, rank = s.input(position), len(s.shape(position))
    filtered = s.number("mask_filter_value", _FILTER)
    if rank == 1:  # how many keys of each sample there are
        count = key.op("Shape", start=2, end=3).squeeze(0)
        if s.shape(position)[0] != s.shape(0)[0]:
            raise s.error("a mask of starts and ends has no formula")
        steps = s.build.scalar(0).op("Range", count, s.build.scalar(1))
        mask = steps.unsqueeze(0).op("Less", mask.cast(TensorProto.INT64).unsqueeze(1))
        rank = 2
    kept = mask.cast(key)
    axes = {2: [1, 2], 3: [1], 4: []}[rank]
    return (1 - (kept.unsqueeze(axes) if axes else kept)) * filtered
