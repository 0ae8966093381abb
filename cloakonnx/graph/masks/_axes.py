"""Which axis of a tensor counts its features.

Axis 1 for (N, F) and (N, C, H, W), the last for (N, T, C) and for NHWC. The rank alone can't tell (N, C, L) from
(N, T, C), nor NCHW from NHWC, so the axis is followed back to the op that made the features.
"""

from __future__ import annotations

from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.traits import Trait, has

_MAX_STEPS = 200


def feature_axis(structure: Index, tensor: str) -> int | None:
    """Return the feature axis of a tensor, or None where its rank is not known or below 2."""
    shape = structure.shape(tensor)
    if shape is None or len(shape) < 2:
        return None
    if len(shape) == 2:
        return 1
    traced = _trace(structure, tensor, len(shape))
    return _by_rank(len(shape)) if traced is None else traced


def _trace(structure: Index, tensor: str, rank: int) -> int | None:
    """Walk back through ops that keep the rank; return where the features of their source end up, if it says."""
    order = list(range(rank))  # order[i]: the axis of the tensor at hand that axis i of the tap comes from
    for _ in range(_MAX_STEPS):
        node = structure.producer(tensor)
        if node is None:
            axis = _of_input(structure.shape(tensor))
            return None if axis is None else order.index(axis)
        if node.domain in {"", "ai.onnx"} and has(node.op_type, Trait.CHANNELS_FIRST):
            return order.index(1)
        if has(node.op_type, Trait.FEATURES_LAST):
            return order.index(rank - 1)
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
            order = [perm[axis] for axis in order]
        source = _same_rank_input(structure, tensor, list(node.input), rank)
        if source is None:
            return None
        tensor = source
    return None


def _same_rank_input(structure: Index, tensor: str, inputs: list[str], rank: int) -> str | None:
    """The first computed input of the same rank, one with features as many as the output's if there is such a one."""
    candidates = []
    for name in inputs:
        shape = structure.shape(name)
        if name and name not in structure.constants and shape is not None and len(shape) == rank:
            candidates.append(name)
    same = [name for name in candidates if structure.shape(name) == structure.shape(tensor)]
    return next(iter(same or candidates), None)


def _of_input(shape: tuple[int | str | None, ...] | None) -> int | None:
    """Images say by their channel count whether they are NHWC; other inputs go by rank."""
    if shape is None or len(shape) != 4:
        return None
    return 3 if shape[3] in {1, 3, 4} and shape[1] not in {1, 3, 4} else 1


def _by_rank(rank: int) -> int:
    return 2 if rank == 3 else 1
