"""Results of batches: written, read back, joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloakonnx.engine.trees import flattened, joined, unflattened


@dataclass(frozen=True, eq=False)
class Leaf:
    outcomes: NDArray[np.bool_]
    name: str
    settings: Mapping[str, Any] | None
    eps: float
    count: int
    is_whole: bool


@dataclass(frozen=True, eq=False)
class Kept:
    values: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Kept]) -> Kept:
        return cls(np.concatenate([part.values for part in parts])[:2])


@dataclass(frozen=True, eq=False)
class Tree:
    leaves: tuple[Leaf, ...]
    pair: tuple[int, NDArray[np.int64]]
    kept: Kept | None = None


def leaf(*outcomes: bool, count: int = 1, **changed: Any) -> Leaf:
    settings = {"attack": "pgd", "eps_step": None}
    return Leaf(
        np.array(outcomes),
        **{"name": "a", "settings": settings, "eps": 1 / 255, "is_whole": True} | changed,
        count=count,
    )


def tree(*values: float, kept: bool = True) -> Tree:
    floats = np.array(values, np.float32)
    return Tree((leaf(True, False), leaf(True, settings=None)), (3, np.arange(4)), Kept(floats) if kept else None)


@pytest.mark.parametrize("kept", [True, False])
def test_there_and_back(kept: bool) -> None:
    made = tree(0.1, 0.2, kept=kept)
    entries = flattened(made)
    assert {"leaves.0.outcomes", "leaves.1.outcomes", "pair.1", "rest"} <= set(entries)
    found = unflattened(Tree, entries)
    assert (found.kept is not None) == kept
    assert found.leaves[0].settings == {"attack": "pgd", "eps_step": None}
    assert found.leaves[1].settings is None
    assert found.leaves[0].eps == 1 / 255
    assert found.pair[0] == 3
    assert {name: (a.dtype, a.tolist()) for name, a in flattened(found).items()} == {
        name: (a.dtype, a.tolist()) for name, a in entries.items()
    }


def test_joined() -> None:
    found = joined([tree(1, 2), tree(3, 4)])
    assert found.leaves[0].outcomes.tolist() == [True, False, True, False]
    assert (found.leaves[0].count, found.leaves[0].eps, found.leaves[0].is_whole) == (2, 1 / 255, True)
    assert found.pair[0] == 6
    assert found.pair[1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert found.kept is not None
    assert found.kept.values.tolist() == [1, 2]  # joins itself
    assert joined([tree(1, kept=False), tree(2, kept=False)]).kept is None


@pytest.mark.parametrize("changed", [{"name": "b"}, {"eps": 2 / 255}, {"settings": {}}, {"is_whole": False}])
def test_what_is_no_count_must_agree(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="batches differ in"):
        joined([leaf(True), leaf(True, **changed)])
    with pytest.raises(ValueError, match="nothing to join"):
        joined([])


@pytest.mark.parametrize("lost", ["leaves.0.outcomes", "rest"])
def test_damage(lost: str) -> None:
    entries = flattened(tree(1))
    del entries[lost]
    if lost == "rest":
        with pytest.raises(KeyError):
            unflattened(Tree, entries)
    else:
        assert unflattened(Tree, entries).leaves[0].outcomes is None
