"""Which axis of a tensor counts its features.

Axis 1 for (N, F) and (N, C, H, W), the last for (N, T, C) and for NHWC. The rank alone can't tell (N, C, L) from
(N, T, C), nor NCHW from NHWC, so the axis is followed back to the op that made the features. The layer that reads a
tensor shows it, too: it contracts the features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import onnx

from cloakonnx.graph.index.blocked import NCHWC
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import attributes
from cloakonnx.graph.index.traits import Trait, has


def feature_axis(structure: Index, tensor: str, traced: dict[str, int | None] | None = None) -> int | None:
    """Return the feature axis of a tensor, or None where its rank is not known or below 2.

    Args:
        structure: The graph's index.
        tensor: The tensor.
        traced: What was found of other tensors; this one is added. With it a chain is walked once, not for each tensor.
    """
    shape = structure.shape(tensor)
    if shape is None or len(shape) < 2:
        return None
    if len(shape) == 2:
        return 1
    known = {} if traced is None else traced
    known[tensor] = found = _trace(structure, tensor, len(shape), known)
    return _by_rank(len(shape)) if found is None else found


def contracted_axis(structure: Index, node: onnx.NodeProto, tensor: str) -> int | None:
    """Return the axis of a Gemm's, MatMul's or Conv's data input that its weights contract; None for the batch's."""
    shape = structure.shape(tensor)
    if shape is None or len(shape) < 2:
        return None
    is_first = node.input[0] == tensor
    if "MatMul" in node.op_type:
        axis = len(shape) - (1 if is_first else 2)
    elif node.op_type in {"Gemm", "FusedGemm", "QGemm"}:
        turned = attributes(node).get("transA" if is_first else "transB", 0)
        axis = int(is_first) ^ int(bool(turned))
    else:
        axis = 1
    return axis or None


def moved_axis(structure: Index, node: onnx.NodeProto, axis: int) -> int | None:
    """Return which axis of its first input an axis of a shape-only node's output is; None where there is none."""
    after, before = structure.shape(node.output[0]), structure.shape(node.input[0])
    if after is None or before is None:
        return None
    if node.op_type == "Transpose":
        return _permutation(node, len(after))[axis]
    if node.op_type not in _RESHAPING:
        return axis if len(after) == len(before) else None
    if after[axis] == 1:
        return None
    inner = _product(after[axis + 1 :])
    for i, size in enumerate(before):
        if size == after[axis] and _product(before[i + 1 :]) == inner:
            return i
    return None


_RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}


def _product(sizes: Iterable[int | str | None]) -> tuple[int, list[str]]:
    """Return the product of sizes: of the numbers, and the names and unknown sizes among them."""
    known = list(sizes)
    return math.prod(size for size in known if isinstance(size, int)), sorted(
        str(size) for size in known if not isinstance(size, int)
    )


def _permutation(node: onnx.NodeProto, rank: int) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])


def _trace(structure: Index, tensor: str, rank: int, known: Mapping[str, int | None]) -> int | None:
    """Walk back to the op that made the features; return the axis, where that op determines it.

    Shape-only ops are followed axis by axis, all others through an input of the same rank.
    """
    order: list[int | None] = list(range(rank))  # order[i]: the axis of the tensor at hand that the tap's axis i is
    for _ in range(len(structure.graph.node) + 1):  # a damaged file may have a circle
        if tensor in known:
            axis = known[tensor]
            return None if axis is None else _where(order, axis)
        node = structure.producer(tensor)
        if node is None:
            axis = _of_input(structure.shape(tensor))
            return None if axis is None else _where(order, axis)
        standard = node.domain in {"", "ai.onnx"}
        is_last = not standard and attributes(node).get("channels_last", 0)
        if is_last or has(node.op_type, Trait.FEATURES_LAST):
            shape = structure.shape(tensor)
            return None if shape is None else _where(order, len(shape) - 1)
        if (standard and has(node.op_type, Trait.CHANNELS_FIRST)) or node.domain == NCHWC:
            return _where(order, 1)
        if standard and (node.op_type == "Transpose" or node.op_type in _RESHAPING):
            order = [None if axis is None else moved_axis(structure, node, axis) for axis in order]
            source: str | None = node.input[0]
        else:
            source = _same_rank_input(structure, tensor, list(node.input))
        if source is None or not any(order):
            return None
        tensor = source
    return None


def _where(order: Sequence[int | None], axis: int) -> int | None:
    """Return the tap's axis that is this axis of the tensor at hand; the batch's is none."""
    found = order.index(axis) if axis in order else 0
    return found or None


def _same_rank_input(structure: Index, tensor: str, inputs: list[str]) -> str | None:
    """The first computed input of the same rank, one with features as many as the output's if there is such a one."""
    rank, candidates = len(structure.shape(tensor) or ()), []
    for name in inputs:
        shape = structure.shape(name)
        if name and name not in structure.constants and shape is not None and len(shape) == rank:
            candidates.append(name)
    same = [name for name in candidates if structure.shape(name) == structure.shape(tensor)]
    return next(iter(same or candidates), None)


def _of_input(shape: tuple[int | str | None, ...] | None) -> int | None:
    """The channel count of images shows whether they are NHWC; other inputs are decided by rank."""
    if shape is None or len(shape) != 4:
        return None
    return 3 if shape[3] in {1, 3, 4} and shape[1] not in {1, 3, 4} else 1


def _by_rank(rank: int) -> int:
    return 2 if rank == 3 else 1
