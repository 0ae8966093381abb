"""Positive scales for every channel of a graph, as a constraint system: what lets masks move into weights.

Let the folded model hold ``t' = c * t`` where the masked model holds ``t``, with a positive scale ``c`` a channel. An
op that commutes with positive scales (Relu, MaxPool, ...) keeps ``c``, an Add asks both inputs for the same one, a
linear layer absorbs ``1/c`` of its input and ``c`` of its output, and where nothing can absorb a scale ``c`` is 1 (the
freedom that cross-layer equalisation uses: Nagel et al. 2019, arXiv 1906.04721, section 4.1). A mask ``m`` on a tensor
asks ``c_before = m * c_after``: the scale of the tensor as its producer makes it and as its readers take it.

So channels fall into classes with one scale each, and masks are edges between classes. A mask folds exactly if no cycle
of the multigraph goes through its edges, for then the ratio is free; whether another mask folds makes no difference to
that. A weight of 0 folds if the whole side after it only goes into linear layers (they take it as 0), or the whole side
before it only comes out of them (they give 0): no division is needed then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cloakonnx.graph.fold._forest import GROUND, Edges, Forest, Ids

MOST_CHANNELS = 1 << 26
"""Of one tensor: a file may claim any shape."""


@dataclass(frozen=True)
class Solution:
    """Scales that hold every constraint.

    Attributes:
        scale: (channels,) float64; 0 where everything before a mask's 0 gives 0.
        inverse: (channels,) float64; 0 where everything after a mask's 0 takes it as 0.
        kept: Mask to the reason why it can't fold.
        users: Mask to the layers whose weights it may go into, in graph order.
    """

    scale: NDArray[np.float64]
    inverse: NDArray[np.float64]
    kept: Mapping[int, str]
    users: Mapping[int, tuple[str, ...]]


@dataclass(frozen=True)
class _Use:
    """A layer that absorbs scales; ``power`` is 1 for what it makes, -1 for what it takes."""

    ids: Ids
    power: int
    layer: str


class System:
    """The constraints of one graph. Channels are numbered as they are made, so in graph order."""

    def __init__(self) -> None:
        """Start with the ground alone."""
        self._count = 1
        self._equal: list[tuple[Ids, Ids]] = []
        self._labels: list[str] = []
        self._fixing: set[int] = set()
        self._fixed: set[int] = {GROUND}
        self._edges: list[Edges] = []
        self._uses: list[_Use] = []

    def fresh(self, *shape: int) -> Ids:
        """Return new channels with free scales; raises ValueError for more than any tensor has."""
        size = math.prod(shape)
        if size > MOST_CHANNELS:
            raise ValueError("too many channels")
        ids = np.arange(self._count, self._count + size, dtype=np.int64).reshape(shape)
        self._count += size
        return ids

    def fixed(self, rank: int, why: str) -> Ids:
        """Return one new channel for a whole tensor whose scale is 1; ``why`` is a clause for a reader."""
        ids = self.fresh(*[1] * rank)
        self.fix(ids, why)
        return ids

    def fix(self, ids: Ids, why: str) -> None:
        """Ask for scales of 1."""
        self._fixing.add(len(self._labels))
        self._fixed.update(ids.reshape(-1).tolist())
        self.equal(np.int64(GROUND), np.unique(ids), why)

    def is_fixed(self, ids: Ids) -> bool:
        """Whether scales of 1 were asked for; others may be 1 because of constraints."""
        return self._fixed.issuperset(ids.reshape(-1).tolist())

    def equal(self, first: Ids | np.int64, second: Ids | np.int64, why: str) -> None:
        """Ask for equal scales, channel by channel after broadcasting."""
        a, b = (each.reshape(-1) for each in np.broadcast_arrays(first, second))
        differ = a != b
        if differ.any():
            pairs = np.unique(np.stack([a[differ], b[differ]]), axis=1)
            self._equal.append((pairs[0], pairs[1]))
            self._labels.append(why)

    def mask(self, number: int, before: Ids, weights: NDArray[np.float64]) -> Ids:
        """Put a mask on a tensor and return the channels that its readers see; both broadcast to the tensor."""
        shape = np.broadcast_shapes(before.shape, weights.shape)
        after = self.fresh(*shape)
        near = np.broadcast_to(before, shape).reshape(-1)
        values = np.broadcast_to(weights, shape).reshape(-1)
        owners = np.full(after.size, number, np.int64)
        self._edges.append(Edges(near, after.reshape(-1), values.astype(np.float64), owners))
        return after

    def use(self, ids: Ids, power: int, layer: str) -> None:
        """Say that a layer's weights absorb these scales to the power 1 or -1."""
        self._uses.append(_Use(np.unique(ids), power, layer))

    def solve(self, limit: float) -> Solution:
        """Return scales under which as many masks as can be are folded.

        Args:
            limit: The most that one scale may be of another it is tied to, or of 1.
        """
        kept: dict[int, str] = {}
        for each in self._edges:
            if (each.weights < 0).any():
                kept[int(each.owners[0])] = "it has negative weights; only positive ones move past a Relu"
        while True:
            forest = self._forest(kept)
            failed = self._cyclic(forest) or self._undividable(forest) or forest.too_wide(limit)
            if not failed:
                break
            kept |= failed
        scale, inverse = forest.scales()
        return Solution(scale[forest.classes], inverse[forest.classes], kept, self._users(forest))

    def _forest(self, kept: Mapping[int, str]) -> Forest:
        rigid = list(self._equal)
        free = []
        for each in self._edges:
            loose = (each.weights != 1) & np.isin(each.owners, list(kept), invert=True)
            rigid.append((each.before[~loose], each.after[~loose]))
            free.append(each.part(loose))
        classes = _components(self._count, _joined([a for a, _ in rigid]), _joined([b for _, b in rigid]))
        edges = Edges(
            _joined([each.before for each in free]),
            _joined([each.after for each in free]),
            np.concatenate([np.empty(0), *(each.weights for each in free)]),
            _joined([each.owners for each in free]),
        )
        made, taken = (self._classes_used(classes, power) for power in (1, -1))
        return Forest(classes, edges, made, taken)

    def _classes_used(self, classes: Ids, power: int) -> frozenset[int]:
        return frozenset(np.unique(classes[_joined([use.ids for use in self._uses if use.power == power])]).tolist())

    def _cyclic(self, forest: Forest) -> dict[int, str]:
        found: dict[int, str] = {}
        for edge in sorted(forest.on_cycles()):
            number = int(forest.owners[edge])
            if number not in found:
                found[number] = self._why(number, int(forest.before[edge]), int(forest.after[edge]))
        return found

    def _undividable(self, forest: Forest) -> dict[int, str]:
        found: dict[int, str] = {}
        for edge in forest.unplaced:
            number = int(forest.owners[edge])
            found.setdefault(
                number,
                "it has a weight of 0 where a positive one is needed: what follows is more than the inputs of linear "
                "layers, and what comes before is more than the output of one",
            )
        return found

    def _users(self, forest: Forest) -> dict[int, tuple[str, ...]]:
        by_class: dict[int, list[int]] = {}
        for position, use in enumerate(self._uses):
            for each in set(forest.classes[use.ids].tolist()):
                by_class.setdefault(each, []).append(position)
        users: dict[int, tuple[str, ...]] = {}
        for number, touched in forest.moved().items():
            positions = sorted({position for each in touched for position in by_class.get(each, ())})
            users[number] = tuple(dict.fromkeys(self._uses[position].layer for position in positions))
        return users

    def _why(self, number: int, near: int, far: int) -> str:
        """Say what ties the two sides of a mask together: the shortest way from one to the other."""
        labels = self._way(number, near, far)
        own = [position for position, label in enumerate(labels) if label == -1 - number]
        if own:
            sides = [
                next((self._labels[label] for label in part if label >= 0), "one number for all")
                for part in (labels[: own[0]], labels[own[0] + 1 :])
            ]
            return f"it tells apart features that share a scale: before it, {sides[0]}; after it, {sides[1]}"
        said = [self._labels[label] for label in labels if label >= 0]
        fixed = next((i for i, label in enumerate(labels) if label in self._fixing), None)
        if fixed is not None:
            before, after = self._labels[labels[fixed]], self._labels[labels[fixed + 1]]
            return f"no scale can leave it on either side: before it, {before}; after it, {after}"
        if said:
            return f"the tensor before it and the tensor after it are tied, by {', '.join(dict.fromkeys(said[:3]))}"
        return "its features and those of another mask are tied together on both sides"

    def _way(self, number: int, near: int, far: int) -> list[int]:
        """Return the labels (masks < 0) along a shortest way between the channels on the two sides of a mask."""
        starts, neighbours, labels = self._links
        came: dict[int, tuple[int, int]] = {near: (near, 0)}
        queue = [near]
        for here in queue:
            if here == far:
                break
            for position in range(int(starts[here]), int(starts[here + 1])):
                other, label = int(neighbours[position]), int(labels[position])
                if other not in came and not (label == -1 - number and {here, other} == {near, far}):
                    came[other] = here, label
                    queue.append(other)
        found: list[int] = []
        here = far
        while here != near:
            here, label = came[here]
            found.append(label)
        return found[::-1]

    @cached_property
    def _links(self) -> tuple[Ids, Ids, Ids]:
        """All constraints as adjacency in compressed rows: where a channel's begin, neighbours, labels (masks < 0)."""
        pairs = [(a, b, np.full(len(a), label)) for label, (a, b) in enumerate(self._equal)]
        pairs += [(each.before, each.after, -1 - each.owners) for each in self._edges]
        source = _joined([side for a, b, _ in pairs for side in (a, b)])
        target = _joined([side for a, b, _ in pairs for side in (b, a)])
        labels = _joined([each for _, _, each in pairs for _ in range(2)])
        order = np.argsort(source, kind="stable")
        starts = np.searchsorted(source[order], np.arange(self._count + 1))
        return starts.astype(np.int64), target[order], labels[order]


def _components(count: int, first: Ids, second: Ids) -> Ids:
    """Return for each of ``count`` nodes the smallest one that edges connect it to."""
    label = np.arange(count, dtype=np.int64)
    while True:
        a, b = label[first], label[second]
        if np.array_equal(a, b):
            return label
        low = np.minimum(a, b)
        np.minimum.at(label, a, low)
        np.minimum.at(label, b, low)
        while not np.array_equal(label, jumped := label[label]):
            label = jumped


def _joined(parts: Sequence[Ids] | Iterable[Ids]) -> Ids:
    """Concatenate, nothing included."""
    return np.concatenate([np.empty(0, np.int64), *parts])
