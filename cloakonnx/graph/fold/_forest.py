"""Masks as a forest: classes of channels that share a scale, and the masks' weights as edges between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]
"""Channels of a tensor by number: an array that broadcasts to the tensor's shape."""

GROUND = 0
"""The channel whose scale is 1."""

_TINY = 5e-324
"""The smallest positive float64, for a product that came out as 0."""

_NEAR_ONE = 16.0
"""Free scales up to so much (or its inverse) are left as they are: fewer weights change than if all were centred."""


@dataclass(frozen=True)
class Edges:
    """Weights of masks, each between the channel before it and the one after it, and the mask it is of."""

    before: Ids
    after: Ids
    weights: NDArray[np.float64]
    owners: Ids

    def part(self, chosen: NDArray[np.bool_]) -> Edges:
        """Return some of them."""
        return Edges(self.before[chosen], self.after[chosen], self.weights[chosen], self.owners[chosen])


class Forest:
    """The classes of channels that share a scale, and the masks' weights as edges between them."""

    def __init__(self, classes: Ids, edges: Edges, made: frozenset[int], taken: frozenset[int]) -> None:
        """Index the edges.

        Args:
            classes: For each channel the smallest one that it shares a scale with.
            edges: The weights that may fold.
            made: Classes that come out of weights, or are added by them.
            taken: Classes that go into weights.
        """
        self.classes, self.weights, self.owners = classes, edges.weights, edges.owners
        self.before, self.after = edges.before, edges.after
        self.near, self.far = classes[edges.before], classes[edges.after]
        self._made, self._taken = made, taken
        self._links: dict[int, list[tuple[int, int]]] = {}
        for edge, (a, b) in enumerate(zip(self.near.tolist(), self.far.tolist(), strict=True)):
            self._links.setdefault(a, []).append((b, edge))
            self._links.setdefault(b, []).append((a, edge))

    def on_cycles(self) -> set[int]:
        """Return the edges that are no bridges (Tarjan's depth-first search, without recursion)."""
        cyclic = set(range(len(self.near)))
        order: dict[int, int] = {}
        low: dict[int, int] = {}
        for root in self._links:
            if root in order:
                continue
            order[root] = low[root] = len(order)
            stack = [(root, -1, iter(self._links[root]))]
            while stack:
                node, via, rest = stack[-1]
                for other, edge in rest:
                    if edge == via:
                        continue
                    if other in order:
                        low[node] = min(low[node], order[other])
                        continue
                    order[other] = low[other] = len(order)
                    stack.append((other, edge, iter(self._links[other])))
                    break
                else:
                    stack.pop()
                    if stack:
                        parent = stack[-1][0]
                        low[parent] = min(low[parent], low[node])
                        if low[node] > order[parent]:
                            cyclic.discard(via)
        return cyclic

    def _side(self, start: int, without: int) -> set[int]:
        """Return the classes that stay connected with one when an edge is removed."""
        seen = {start}
        waiting = [start]
        while waiting:
            for other, edge in self._links.get(waiting.pop(), ()):
                if edge != without and other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    @cached_property
    def _zeros(self) -> tuple[dict[int, set[int]], set[int], set[int], list[int]]:
        """Edges of weight 0 to the side that takes it; classes taken as 0, classes giving 0, edges without a side."""
        placed: dict[int, set[int]] = {}
        taken: set[int] = set()
        given: set[int] = set()
        lost: list[int] = []
        for edge in np.flatnonzero(self.weights == 0).tolist():
            after, before = self._side(int(self.far[edge]), edge), self._side(int(self.near[edge]), edge)
            if not after & ({GROUND} | self._made | given):
                placed[edge] = after
                taken |= after
            elif not before & ({GROUND} | self._taken | taken):
                placed[edge] = before
                given |= before
            else:
                lost.append(edge)
        return placed, taken, given, lost

    @property
    def unplaced(self) -> list[int]:
        """Edges of weight 0 that neither side can take."""
        return self._zeros[3]

    @cached_property
    def _trees(self) -> list[tuple[dict[int, float], set[int]]]:
        """Scales of the classes that positive weights tie together, and the edges between them."""
        found = []
        seen: set[int] = set()
        for root in [GROUND, *sorted(self._links)]:
            if root in seen or (root == GROUND and GROUND not in self._links):
                continue
            scales, edges, waiting = {root: 1.0}, set(), [root]
            while waiting:
                here = waiting.pop()
                for other, edge in self._links[here]:
                    weight = float(self.weights[edge])
                    if weight == 0 or other in scales:
                        continue
                    edges.add(edge)
                    forward = int(self.near[edge]) == here
                    scales[other] = scales[here] / weight if forward else scales[here] * weight
                    waiting.append(other)
            seen |= set(scales)
            found.append((scales, edges))
        return found

    def too_wide(self, limit: float) -> dict[int, str]:
        """Return the last mask of each tree whose scales are too far apart."""
        found: dict[int, str] = {}
        for scales, edges in self._trees:
            low, high = max(min(scales.values()), _TINY), max(scales.values())
            widest = max(high, 1 / low) if GROUND in scales else high / low
            if edges and not widest <= limit:
                number = max(int(self.owners[edge]) for edge in edges)
                found[number] = (
                    f"with it the scales would span a factor of {widest:.3g}, over {limit:g}, too much for the dtype"
                )
        return found

    def scales(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and inverse of each class.

        In a tree without the ground the first class has scale 1; where that leads far from 1 the largest has, so that
        no tensor gets larger than in the masked model.
        """
        scale = np.ones(len(self.classes))
        for values, _ in self._trees:
            low, high = min(values.values()), max(values.values())
            far = GROUND not in values and max(high, 1 / low) > _NEAR_ONE
            for each, value in values.items():
                scale[each] = value / high if far else value
        inverse = 1 / scale
        _, taken, given, _ = self._zeros
        inverse[list(taken)] = 0
        scale[list(given)] = 0
        return scale, inverse

    def moved(self) -> dict[int, set[int]]:
        """Return, for each mask, the classes whose scale is another one because of it."""
        roots = {each: next(iter(scales)) for scales, _ in self._trees for each in scales}
        zeros = self._zeros[0]
        found: dict[int, set[int]] = {}
        for edge, owner in enumerate(self.owners.tolist()):
            if edge in zeros:
                side = zeros[edge]
            else:
                side = self._side(int(self.far[edge]), edge)
                if roots[int(self.far[edge])] in side:
                    side = self._side(int(self.near[edge]), edge)
            found.setdefault(owner, set()).update(side)
        return found
