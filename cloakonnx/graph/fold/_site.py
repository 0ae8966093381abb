"""One node as the rules of folding see it, with the arithmetic of channels that they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloakonnx.graph.fold._absorb import Weight, Weights
from cloakonnx.graph.fold._forest import Ids
from cloakonnx.graph.fold._scales import MOST_CHANNELS, System
from cloakonnx.graph.index.constants import Constants
from cloakonnx.graph.index.node import NodeView


class StuckError(Exception):
    """No scale moves through the node; the message is a clause that says why."""


@dataclass(frozen=True)
class Absorption:
    """A weight and the channels whose scales it takes, each broadcast to its shape, to the power 1 or -1."""

    weight: Weight
    factors: tuple[tuple[Ids, int], ...]
    layer: str


@dataclass(frozen=True)
class ScaleSite(NodeView):
    """One node, the channels of its inputs, and what its rule has asked for.

    Attributes:
        position: Of the node in the graph.
        system: The scales.
        weights: The graph's weights.
        constants: Its small constants.
        channels: Of each tensor made so far.
        absorbed: What weights take.
    """

    position: int
    system: System
    weights: Weights
    constants: Constants
    channels: dict[str, Ids]
    absorbed: list[Absorption] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The node in words."""
        named = self.node.name or next((name for name in self.node.output if name), "")
        return f"{self.node.op_type} node {named!r}"

    def is_constant(self, position: int) -> bool:
        """Whether that input is a constant."""
        return self.node.input[position] in self.index.constants

    def value(self, position: int) -> NDArray[Any] | None:
        """Return that input where it is a small constant."""
        return self.constants.value(self.node.input[position]) if self.has(position) else None

    def shape(self, position: int) -> tuple[int | str | None, ...]:
        """Return that input's shape; raises StuckError where its rank is unknown."""
        return self._shape(self.node.input[position])

    def output_shape(self, position: int = 0) -> tuple[int | str | None, ...]:
        """Return an output's shape; raises StuckError where its rank is unknown."""
        return self._shape(self.node.output[position])

    def _shape(self, name: str) -> tuple[int | str | None, ...]:
        shape = self.index.shape(name)
        if shape is None:
            raise StuckError(f"shape inference can't tell the rank of {name!r}")
        return shape

    def ids(self, position: int) -> Ids:
        """Return the channels of a computed input, one dimension for each of the tensor's.

        Raises:
            StuckError: its rank is unknown.
        """
        rank = len(self.shape(position))
        found = self.channels[self.node.input[position]]
        if found.ndim != rank:
            raise StuckError(f"shape inference can't tell the rank of {self.node.input[position]!r}")
        return found

    def data(self) -> Ids:
        """Return the channels of the first input, which must be computed."""
        if not self.has(0) or self.is_constant(0):
            raise StuckError("its data is constant")
        return self.ids(0)

    def only(self, ids: Ids, axes: Sequence[int]) -> Ids:
        """Ask for one scale along all axes but some, and return channels of size 1 along them."""
        index = tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(ids.ndim))
        self.system.equal(ids, ids[index], f"{self.label} (it mixes what the mask tells apart)")
        return ids[index]

    def vector(self, ids: Ids, axis: int, count: int) -> Ids:
        """Ask for one scale along all axes but one, and return that one's ``count`` channels."""
        found = self.only(ids, [axis]).reshape(-1)
        if found.size not in {1, count}:
            raise StuckError(f"it takes {count} features, not {found.size}")
        return np.broadcast_to(found, (count,))

    def weight(self, position: int, rank: int | None = None) -> Weight:
        """Return a weight that may change; raises StuckError where it may not, or has another rank."""
        found = self.weights.find([self.position], self.node.input[position])
        if isinstance(found, str):
            raise StuckError(found)
        if rank is not None and len(found.shape) != rank:
            raise StuckError(f"its weight {found.name!r} has rank {len(found.shape)}")
        return found

    def changeable(self, position: int) -> Weight | None:
        """Return a weight that has to change with its scale, None for zeros; raises as :meth:`weight`."""
        found = self.weights.find([self.position], self.node.input[position])
        if isinstance(found, str) and self.weights.is_zero(self.node.input[position]):
            return None
        return self.weight(position)

    def absorb(self, weight: Weight | None, *factors: tuple[Ids, int]) -> None:
        """Note what a weight takes."""
        if weight is not None:
            self.absorbed.append(Absorption(weight, factors, self.label))

    def narrowed(self, ids: Ids, shape: Sequence[int]) -> Ids:
        """Ask for one scale along the axes along which a constant of a shape repeats; return what broadcasts to it.

        Both align at their last axis, as in numpy.
        """
        rank = len(shape)
        wide = ids.reshape((1,) * max(0, rank - ids.ndim) + ids.shape)
        aligned = (1,) * (wide.ndim - rank) + tuple(shape)
        kept = self.only(wide, [axis for axis, size in enumerate(aligned) if size != 1])
        return kept.reshape(kept.shape[wide.ndim - rank :])

    def joined(self, positions: Sequence[int]) -> Ids:
        """Ask the inputs for the same scales, broadcast against each other, and return them."""
        parts = [self.ids(position) for position in positions]
        try:
            first, *others = np.broadcast_arrays(*parts)
        except ValueError:
            raise StuckError("the shapes of its inputs do not broadcast") from None
        for other in others:
            self.system.equal(first, other, self.label)
        return first


def reshaped(
    ids: Ids, before: Sequence[int | str | None], after: Sequence[int | str | None], *, same_batch: bool
) -> Ids | None:
    """Return the channels of a tensor that a Reshape turns from one shape into another, None where they are unknown.

    Axes that stay at the front need not have a known size, nor the batch (axis 0) where the others give its size or
    ``same_batch`` says that the op leaves it alone.
    """
    old, new = list(before), list(after)
    if same_batch or (_product(old[1:]) is not None and _product(old[1:]) == _product(new[1:])):
        old[:1], new[:1] = [1], [1]
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start] and old[start] is not None:
        start += 1
    head, tail = ids.shape[:start], ids.shape[start:]
    if all(size == 1 for size in tail):
        return ids.reshape(head + (1,) * (len(new) - start))
    rest = new[start:]
    sizes: Sequence[int | str | None] = old[start:]
    if len(rest) == 1 and isinstance(rest[0], int):
        sizes = _filled(sizes, tail, rest[0])
    total = _product(sizes)
    if total is None or total != _product(rest) or math.prod(head) * total > MOST_CHANNELS:
        return None
    spread = np.broadcast_to(ids, [*head, *(int(size) for size in sizes if size is not None)])
    return _compressed(spread.reshape([*head, *(int(size) for size in rest if size is not None)]), start)


def _filled(sizes: Sequence[int | str | None], channels: Sequence[int], total: int) -> Sequence[int | str | None]:
    """Fill in unknown sizes of neighbouring axes whose channels repeat, where only their product matters."""
    unknown = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    known = math.prod(size for size in sizes if isinstance(size, int))
    together = unknown == list(range(unknown[0], unknown[-1] + 1)) if unknown else False
    if not together or known == 0 or total % known or any(channels[axis] != 1 for axis in unknown):
        return sizes
    return [
        size if isinstance(size, int) else total // known if axis == unknown[0] else 1
        for axis, size in enumerate(sizes)
    ]


def _product(sizes: Sequence[int | str | None]) -> int | None:
    found = 1
    for size in sizes:
        if not isinstance(size, int):
            return None
        found *= size
    return found


def _compressed(ids: Ids, start: int) -> Ids:
    """Return channels with size 1 along the axes along which they repeat."""
    for axis in range(start, ids.ndim):
        first = ids.take([0], axis) if ids.shape[axis] else ids
        if ids.shape[axis] > 1 and (ids == first).all():
            ids = first
    return ids
