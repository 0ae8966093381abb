"""Ops that only move values: reshapes, transposes, joins and splits."""

from __future__ import annotations

import numpy as np

from cloakonnx.gradient._broadcast import summed_to
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule, unary
from cloakonnx.graph.build import Tensor


@unary("Flatten", until=25)
def flatten(s: GradientSite) -> Tensor:
    """Dy in the shape of x."""
    return s.dy.shaped_as(s.x)


@unary("Reshape", since=5, until=25)
def reshape(s: GradientSite) -> Tensor:
    """Dy in the shape of x."""
    return s.dy.shaped_as(s.x)


@unary("Squeeze", until=25)
def squeeze(s: GradientSite) -> Tensor:
    """Dy in the shape of x."""
    return s.dy.shaped_as(s.x)


@unary("Unsqueeze", until=25)
def unsqueeze(s: GradientSite) -> Tensor:
    """Dy in the shape of x."""
    return s.dy.shaped_as(s.x)


@unary("Transpose", until=25)
def transpose(s: GradientSite) -> Tensor:
    """Dy transposed back."""
    perm = s.attr("perm") or list(range(s.rank))[::-1]
    return s.dy.transpose(np.argsort(perm).tolist())


@rule("Concat", since=4, until=13)
def concat(s: GradientSite) -> Grads:
    """Each input gets its part of dy."""
    axis = s.attr("axis") % len(s.shape(s.y, "output"))
    inputs, ints = [s.build.tensor(name) for name in s.node.input], s.build.ints
    sizes = [(x.dims or (None,) * (axis + 1))[axis] for x in inputs]
    known = [d for d in sizes if isinstance(d, int)]
    if len(known) == len(sizes) and len(s.wanted) > 1:
        parts = s.build.ops("Split", s.dy, ints(*known), elem_types=[s.dy.elem_type] * len(known), axis=axis)
        for i in s.wanted:
            yield i, parts[i]
        return
    ends = ints(0)
    for i, x in enumerate(inputs):
        starts = ends
        ends = ints(sum(known[: i + 1])) if len(known) == len(sizes) else starts + x.dim(axis)
        if s.wants(i):
            yield i, s.dy.op("Slice", starts, ends, ints(axis))


@unary("Split", since=1, until=18)
def split(s: GradientSite) -> Tensor:
    """The gradients of the parts, joined; parts that nobody uses give zeros."""
    like = next(grad for grad in s.grads if grad is not None)
    parts = [s.build.zeros(s.output(i).shape, like) if grad is None else grad for i, grad in enumerate(s.grads)]
    return s.build.op("Concat", *parts, axis=s.attr("axis", 0))


@unary("Expand", since=8, until=13)
def expand(s: GradientSite) -> Tensor:
    """Dy summed over what was repeated."""
    return summed_to(s.dy, s.x, s.y)


@unary("Tile", since=6, until=13)
def tile(s: GradientSite) -> Tensor:
    """Dy summed over the repeats: (r1 * d1, ...) seen as (r1, d1, ...)."""
    shape = s.input(1).unsqueeze(1).op("Concat", s.x.shape.unsqueeze(1), axis=1).reshape(-1)
    return s.dy.reshape(shape).sum(range(0, 2 * s.rank, 2), keepdims=False)


@unary("DepthToSpace", until=13)
def depth_to_space(s: GradientSite) -> Tensor:
    """The same blocks, back in the channels."""
    b = s.attr("blocksize")
    deep = s.dy.op("SpaceToDepth", blocksize=b)
    if s.attr("mode", "DCR") == "DCR":
        return deep
    # Its channels are (block, block, c); CRD has (c, block, block).
    order = np.arange(s.channels).reshape(b * b, s.channels // (b * b)).T.ravel()
    return deep.gather(s.build.ints(*order.tolist()), 1)


@unary("SpaceToDepth", until=13)
def space_to_depth(s: GradientSite) -> Tensor:
    """The same blocks, back in space."""
    return s.dy.op("DepthToSpace", blocksize=s.attr("blocksize"), mode="DCR")


@unary("ReverseSequence", since=10, until=10)
def reverse_sequence(s: GradientSite) -> Tensor:
    """Dy turned back."""
    axes = {key: s.attr(key) for key in ("batch_axis", "time_axis") if s.attr(key) is not None}
    return s.dy.op("ReverseSequence", s.input(1), **axes)
