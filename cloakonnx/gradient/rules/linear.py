"""Matrix products."""

from __future__ import annotations

from cloakonnx.gradient._site import Site
from cloakonnx.gradient.emit import Emitter
from cloakonnx.gradient.registry import Grads, rule


@rule("Gemm", since=7, until=13)
def gemm(e: Emitter, s: Site) -> Grads:
    """dA = alpha dY B', dB = alpha A' dY, dC = beta dY."""
    alpha, left, right = s.attr("alpha", 1.0), s.attr("transA", 0), s.attr("transB", 0)
    if s.wants(0) and left:
        yield 0, e.op("Gemm", s.x(1), s.dy, transA=right, transB=1, alpha=alpha)
    elif s.wants(0):
        yield 0, e.op("Gemm", s.dy, s.x(1), transB=1 - right, alpha=alpha)
    if s.wants(1) and right:
        yield 1, e.op("Gemm", s.dy, s.x(0), transA=1, transB=left, alpha=alpha)
    elif s.wants(1):
        yield 1, e.op("Gemm", s.x(0), s.dy, transA=1 - left, alpha=alpha)
    if s.wants(2):
        yield 2, e.unbroadcast(e.scaled(s.dy, s.attr("beta", 1.0), s.y()), s.x(2), s.y())


@rule("MatMul", since=1, until=13)
def matmul(e: Emitter, s: Site) -> Grads:
    """dA = dY B', dB = A' dY, over the last two axes; a vector is a matrix of one row or column."""
    a, b = (len(s.shape(s.x(i), f"input {i}")) for i in (0, 1))
    dy = s.dy
    if b == 1:
        dy = e.op("Unsqueeze", dy, e.ints(-1))
    if a == 1:
        dy = e.op("Unsqueeze", dy, e.ints(-2))
    if s.wants(0):
        right = e.op("Unsqueeze", s.x(1), e.ints(0)) if b == 1 else _transposed(e, s.x(1), b)
        yield 0, _fit(e, s, e.op("MatMul", dy, right), 0)
    if s.wants(1):
        left = e.op("Unsqueeze", s.x(0), e.ints(1)) if a == 1 else _transposed(e, s.x(0), a)
        yield 1, _fit(e, s, e.op("MatMul", left, dy), 1)


def _transposed(e: Emitter, name: str, rank: int) -> str:
    return e.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _fit(e: Emitter, s: Site, grad: str, index: int) -> str:
    """Sum over the leading axes that were broadcast."""
    own, other = s.info.shape(s.x(index)) or (), s.info.shape(s.x(1 - index)) or ()
    if len(own) == 1:
        wide = max(len(other) - 2, 0)
        summed = e.sum_over(grad, range(wide), keepdims=False)
        return e.reshape_like(summed, s.x(index))
    lead, other_lead = own[:-2], other[:-2]
    missing = len(other_lead) - len(lead)
    if missing <= 0 and all(_keeps(d, o) for d, o in zip(lead[-len(other_lead) :], other_lead, strict=False)):
        return grad
    if missing > 0 and not lead:
        return e.sum_over(grad, range(missing), keepdims=False)
    return e.unbroadcast_to(grad, s.x(index))


def _keeps(dim: object, other: object) -> bool:
    """Whether an axis of size ``dim`` is surely not stretched by one of size ``other``."""
    return other == 1 or (dim is not None and dim == other) or (isinstance(dim, int) and dim != 1)
