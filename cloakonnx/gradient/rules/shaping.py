"""Ops that only move values: reshapes, transposes, joins and splits."""

from __future__ import annotations

import numpy as np

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import Grads, rule, unary


@unary("Flatten", until=25)
def flatten(e: Emitter, s: Site) -> str:
    """Dy in the shape of x."""
    return e.reshape_like(s.dy, s.x())


@unary("Reshape", since=5, until=25)
def reshape(e: Emitter, s: Site) -> str:
    """Dy in the shape of x."""
    return e.reshape_like(s.dy, s.x())


@unary("Squeeze", until=25)
def squeeze(e: Emitter, s: Site) -> str:
    """Dy in the shape of x."""
    return e.reshape_like(s.dy, s.x())


@unary("Unsqueeze", until=25)
def unsqueeze(e: Emitter, s: Site) -> str:
    """Dy in the shape of x."""
    return e.reshape_like(s.dy, s.x())


@unary("Transpose", until=25)
def transpose(e: Emitter, s: Site) -> str:
    """Dy transposed back."""
    perm = s.attr("perm") or list(range(len(s.shape(s.x(), "data input"))))[::-1]
    return e.op("Transpose", s.dy, perm=np.argsort(perm).tolist())


@rule("Concat", since=4, until=13)
def concat(e: Emitter, s: Site) -> Grads:
    """Each input gets its part of dy."""
    axis = s.attr("axis")
    axis %= len(s.shape(s.y(), "output"))
    sizes = [(s.info.shape(x) or (None,) * (axis + 1))[axis] for x in s.node.input]
    known = [d for d in sizes if isinstance(d, int)]
    if len(known) == len(sizes) and len(s.wanted) > 1:
        parts = e.ops("Split", s.dy, e.ints(*known), outputs=len(known), axis=axis)
        for i in s.wanted:
            yield i, parts[i]
        return
    ends = e.ints(0)
    for i, x in enumerate(s.node.input):
        starts = ends
        all_known = len(known) == len(sizes)
        ends = e.ints(sum(known[: i + 1])) if all_known else e.op("Add", starts, e.dim_of(x, axis))
        if s.wants(i):
            yield i, e.op("Slice", s.dy, starts, ends, e.ints(axis))


@unary("Split", since=1, until=18)
def split(e: Emitter, s: Site) -> str:
    """The gradients of the parts, joined; parts that nobody uses give zeros."""
    grads = [g or e.zeros_like(y) for g, y in zip(s.grads, s.node.output, strict=True)]
    return e.op("Concat", *grads, axis=s.attr("axis", 0))


@unary("Expand", since=8, until=13)
def expand(e: Emitter, s: Site) -> str:
    """Dy summed over what was repeated."""
    return e.unbroadcast(s.dy, s.x(), s.y())


@unary("Tile", since=6, until=13)
def tile(e: Emitter, s: Site) -> str:
    """Dy summed over the repeats: (r1 * d1, ...) seen as (r1, d1, ...)."""
    rank = len(s.shape(s.x(), "data input"))
    pair = [e.op("Unsqueeze", v, e.ints(1)) for v in (s.x(1), e.shape_of(s.x()))]
    shape = e.op("Reshape", e.op("Concat", *pair, axis=1), e.ints(-1))
    return e.sum_over(e.op("Reshape", s.dy, shape), range(0, 2 * rank, 2), keepdims=False)


@unary("DepthToSpace", until=13)
def depth_to_space(e: Emitter, s: Site) -> str:
    """The same blocks, back in the channels."""
    b = s.attr("blocksize")
    if s.attr("mode", "DCR") == "DCR":
        return e.op("SpaceToDepth", s.dy, blocksize=b)
    deep = e.op("SpaceToDepth", s.dy, blocksize=b)  # channels (block, block, c); CRD has (c, block, block)
    channels = s.shape(s.x(), "data input")[1]
    if not isinstance(channels, int):
        raise s.error("the number of its channels is unknown")
    order = np.arange(channels).reshape(b * b, channels // (b * b)).T.ravel()
    return e.op("Gather", deep, e.ints(*order.tolist()), axis=1)


@unary("SpaceToDepth", until=13)
def space_to_depth(e: Emitter, s: Site) -> str:
    """The same blocks, back in space."""
    return e.op("DepthToSpace", s.dy, blocksize=s.attr("blocksize"), mode="DCR")
