"""Fourier transforms as products with a matrix of waves, whose real and imaginary parts are the last axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloakonnx.graph.build import Tensor
from cloakonnx.graph.decompose.registry import Node, decomposition

_AXIS_IS_INPUT = 20
"""From this opset on, the axis of a DFT is its third input, and by default the last one of the signal."""


@decomposition("DFT", until=20, note="the transformed axis of fixed size; no inverse of half a spectrum")
def dft(s: Node) -> Tensor:
    """The transformed axis and the parts, as one axis, times the waves."""
    dims = s.shape(0)
    rank = len(dims)
    given = s.value(2)
    default = -2 if s.build.opset >= _AXIS_IS_INPUT else 1
    axis = (s.attr("axis", default) if given is None else int(given)) % rank
    inverse, half = bool(s.attr("inverse", 0)), bool(s.attr("onesided", 0))
    if inverse and half:
        raise s.error("it is the inverse of half a spectrum")
    size, parts = _sizes(s, dims[axis], dims[-1])
    length = _number(s, 1, size)
    bins = length // 2 + 1 if half else length
    waves = _waves(size, length, bins, parts=parts, inverse=inverse)
    order = [a for a in range(rank - 1) if a != axis] + [axis, rank - 1]
    kept = [d if isinstance(d, int) else -1 for d in (dims[a] for a in order[:-2])]
    if kept.count(-1) > 1:
        raise s.error("several dimensions of its input are unknown; give the model an input of fixed shape")
    product = s.x.transpose(order).reshape(*kept, size * parts).op("MatMul", s.build.constant(waves.astype(s.x.dtype)))
    return product.reshape(*kept, bins, 2).transpose([order.index(a) for a in range(rank)])


@decomposition("STFT", until=17, note="a signal of fixed length")
def stft(s: Node) -> Tensor:
    """The frames, as gathered and windowed, times the waves."""
    dims = s.shape(0)
    size, parts = _sizes(s, dims[1], dims[2] if len(dims) > 2 else 1)
    window = s.optional(2)
    sizes = () if window is None else window.static or ()
    step, length = _number(s, 1, None), _number(s, 3, sizes[0] if sizes else None)
    half = bool(s.attr("onesided", 1))
    bins = length // 2 + 1 if half else length
    starts = np.arange(0, size - length + 1, step)
    places = (starts[:, None] + np.arange(length)).astype(np.int64)
    frames = s.x.reshape(-1, size, parts).gather(s.build.constant(places), 1)
    if window is not None:
        frames = frames * window.reshape(length, 1)
    waves = _waves(length, length, bins, parts=parts)
    flat = frames.reshape(-1, len(starts), length * parts)
    product = flat.op("MatMul", s.build.constant(waves.astype(s.x.dtype)))
    return product.reshape(-1, len(starts), bins, 2)


def _sizes(s: Node, *dims: int | str | None) -> list[int]:
    """Return sizes that have to be known."""
    known = [d for d in dims if isinstance(d, int)]
    if len(known) < len(dims):
        raise s.error("the length of its signal is unknown; give the model an input of fixed shape")
    return known


def _number(s: Node, position: int, default: int | None) -> int:
    """Return an input that is one constant number."""
    value = s.value(position)
    found = default if value is None and not s.has(position) else value
    if found is None:
        raise s.error(f"its input {position} is not constant")
    return int(found)


def _waves(size: int, length: int, bins: int, *, parts: int, inverse: bool = False) -> NDArray[np.float64]:
    """Return (size * parts, bins * 2): what each part of each value adds to each part of each bin."""
    n = np.arange(size)
    turns = np.outer(n, np.arange(bins)) % length / length
    waves = np.exp((2j if inverse else -2j) * np.pi * turns) * (n < length)[:, None]
    if inverse:
        waves /= length
    rows = [waves, 1j * waves][:parts]
    found = np.stack([np.stack([each.real, each.imag], axis=-1) for each in rows], axis=1)
    return np.asarray(found.reshape(size * parts, bins * 2), np.float64)
