"""Matrix products."""

from __future__ import annotations

from cloakonnx.gradient._broadcast import summed_like, summed_to
from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule
from cloakonnx.graph.build import Tensor


@rule("Gemm", since=7, until=13)
def gemm(s: GradientSite) -> Grads:
    """dA = alpha dY B', dB = alpha A' dY, dC = beta dY."""
    alpha, left, right = s.number("alpha", 1.0), s.attr("transA", 0), s.attr("transB", 0)
    if s.wants(0) and left:
        yield 0, s.input(1).op("Gemm", s.dy, transA=right, transB=1, alpha=alpha)
    elif s.wants(0):
        yield 0, s.dy.op("Gemm", s.input(1), transB=1 - right, alpha=alpha)
    if s.wants(1) and right:
        yield 1, s.dy.op("Gemm", s.x, transA=1, transB=left, alpha=alpha)
    elif s.wants(1):
        yield 1, s.x.op("Gemm", s.dy, transA=1 - left, alpha=alpha)
    if s.wants(2):
        yield 2, summed_to(s.dy * s.number("beta", 1.0), s.input(2), s.y)


@rule("MatMul", since=1, until=13)
def matmul(s: GradientSite) -> Grads:
    """dA = dY B', dB = A' dY, over the last two axes; a vector is a matrix of one row or column."""
    a, b = (len(s.shape(s.input(i), f"input {i}")) for i in (0, 1))
    dy = s.dy
    if b == 1:
        dy = dy.unsqueeze(-1)
    if a == 1:
        dy = dy.unsqueeze(-2)
    if s.wants(0):
        right = s.input(1).unsqueeze(0) if b == 1 else _transposed(s.input(1), b)
        yield 0, _fit(s, dy.op("MatMul", right), 0)
    if s.wants(1):
        left = s.x.unsqueeze(1) if a == 1 else _transposed(s.x, a)
        yield 1, _fit(s, left.op("MatMul", dy), 1)


def _transposed(matrix: Tensor, rank: int) -> Tensor:
    return matrix.transpose([*range(rank - 2), rank - 1, rank - 2])


def _fit(s: GradientSite, grad: Tensor, position: int) -> Tensor:
    """Sum over the leading axes that were broadcast."""
    x = s.input(position)
    own, other = x.dims or (), s.input(1 - position).dims or ()
    if len(own) == 1:
        return grad.sum(range(max(len(other) - 2, 0)), keepdims=False).shaped_as(x)
    lead, other_lead = own[:-2], other[:-2]
    missing = len(other_lead) - len(lead)
    if missing <= 0 and all(_keeps(d, o) for d, o in zip(lead[-len(other_lead) :], other_lead, strict=False)):
        return grad
    if missing > 0 and not lead:
        return grad.sum(range(missing), keepdims=False)
    return summed_like(grad, x)


def _keeps(dim: object, other: object) -> bool:
    """Whether an axis of size ``dim`` is surely not stretched by one of size ``other``."""
    return other == 1 or (dim is not None and dim == other) or (isinstance(dim, int) and dim != 1)
