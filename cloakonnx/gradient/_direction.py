"""Which input of an op has the order of its output: maps that grow, or fall, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cloakonnx.graph.index.ending import is_guard
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import attributes

_GROWS = frozenset(
    {"Atan", "Elu", "Erf", "LeakyRelu", "Log", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh"}
    | {"ThresholdedRelu"}
)
"""Ops of one tensor that never fall, whatever their attributes, where it is not negative."""

_ABOVE, _BELOW = frozenset({"Greater", "GreaterOrEqual"}), frozenset({"Less", "LessOrEqual"})


class Directions:
    """Follows scores through maps that are the same for all classes of a sample.

    A map may be flat in places: scores that differ behind it differ in the same direction before it.

    Args:
        index: The graph.
        class_axis: The axis of a tensor that counts classes.
        is_positive: Whether a tensor that is not constant is positive by how it is made.
    """

    def __init__(
        self, index: Index, *, class_axis: Callable[[str], int | None], is_positive: Callable[[str], bool]
    ) -> None:
        self._index, self._class_axis, self._positive = index, class_axis, is_positive

    def same(self, node: onnx.NodeProto) -> str | None:
        """Return the input whose order the output has, element by element; None where the node changes the order."""
        op, first = node.op_type, node.input[0] if node.input else ""
        if op in _GROWS or is_guard(node, self._index.value):
            return first
        if op in {"Pow", "LpNormalization"}:
            return first if self._is_power(node) or self._is_norm(node) else None
        if op in {"Max", "Min"}:
            return self._bounded(node)
        if op == "Where":
            return self._cut(node)
        if op in {"Mul", "Div", "Add", "Sub"}:
            return self.same_arithmetic(node) or self._twice(node) or self._fallen(node)
        return self._fallen(node) if op in {"Neg", "Reciprocal"} else None

    def same_arithmetic(self, node: onnx.NodeProto) -> str | None:
        """Return the scores that an op scales by a positive number, or moves, by the same for all classes."""
        return self._moved(node, falls=False)

    def _moved(self, node: onnx.NodeProto, *, falls: bool) -> str | None:
        first, second = node.input
        pairs = [(first, second), (second, first)] if node.op_type in {"Mul", "Add"} else [(first, second)]
        if falls and node.op_type in {"Add", "Sub"}:
            pairs = [(second, first)] if node.op_type == "Sub" else []
        for scores, other in pairs:
            is_constant = self._index.value(scores) is not None
            if is_constant or self._class_axis(scores) is None or not self._is_same_for_classes(other):
                continue
            if node.op_type in {"Add", "Sub"} or (self._is_negative(other) if falls else self._is_positive(other)):
                return scores
        return None

    def _falls(self, node: onnx.NodeProto) -> str | None:
        """Return the input whose order the output has turned round."""
        if node.op_type == "Neg" or (node.op_type == "Reciprocal" and self._is_positive(node.input[0])):
            return node.input[0]
        return self._moved(node, falls=True) if node.op_type in {"Mul", "Div", "Add", "Sub"} else None

    def _fallen(self, node: onnx.NodeProto) -> str | None:
        """Return the tensor whose order is turned round twice: 1 - (1 - p)."""
        name = self._falls(node)
        while name is not None:
            before = self._producer(name)
            if before is None:
                return None
            turned = self._falls(before)
            if turned is not None:
                return turned
            name = self.same(before)
        return None

    def _twice(self, node: onnx.NodeProto) -> str | None:
        """Return the scores that both sides of a sum grow with: log(p) - log(1 - p)."""
        if node.op_type not in {"Add", "Sub"}:
            return None
        (first, falls), (second, other) = (self._followed(name) for name in node.input)
        agree = falls == other if node.op_type == "Add" else falls != other
        return first if first == second and agree and not falls else None

    def _followed(self, name: str) -> tuple[str, bool]:
        """Return the tensor that another grows with, or falls with (True), as far back as that goes."""
        falls = False
        while (node := self._producer(name)) is not None:
            turned = self._falls(node)
            before = self.same(node) if turned is None else turned
            if before is None:
                break
            name, falls = before, falls != (turned is not None)
        return name, falls

    def _is_power(self, node: onnx.NodeProto) -> bool:
        """Whether a node takes scores to a positive power."""
        power = self._number(node.input[1]) if node.op_type == "Pow" else None
        return power is not None and power > 0

    def _is_norm(self, node: onnx.NodeProto) -> bool:
        """Whether a node divides the scores of a sample by their norm."""
        rank = self._index.rank(node.input[0]) if node.op_type == "LpNormalization" else None
        return rank is not None and attributes(node).get("axis", -1) % rank == self._class_axis(node.input[0])

    def _bounded(self, node: onnx.NodeProto) -> str | None:
        """Return the one input of Max or Min that is not the same for all classes."""
        others = [name for name in node.input if not self._is_same_for_classes(name)]
        return others[0] if len(others) == 1 and self._index.value(others[0]) is None else None

    def _cut(self, node: onnx.NodeProto) -> str | None:
        """Return scores of which a Where sets small ones to one number that is no larger."""
        condition = self._producer(node.input[0])
        if condition is None or condition.op_type not in _ABOVE | _BELOW:
            return None
        scores, threshold = condition.input
        kept, other = node.input[1:] if condition.op_type in _ABOVE else reversed(node.input[1:])
        floor, least = self._number(other), self._number(threshold)
        return scores if scores == kept and floor is not None and least is not None and floor <= least else None

    def _is_same_for_classes(self, name: str) -> bool:
        value = self._index.value(name)
        if value is not None:
            return value.size > 0 and bool((value == value.reshape(-1)[0]).all())
        shape = self._index.shape(name)
        return shape is not None and len(shape) > 1 and all(size == 1 for size in shape[1:])

    def _is_positive(self, name: str) -> bool:
        value: NDArray[Any] | None = self._index.value(name)
        return self._positive(name) if value is None else bool((value > 0).all())

    def _is_negative(self, name: str) -> bool:
        value: NDArray[Any] | None = self._index.value(name)
        return value is not None and bool((value < 0).all())

    def _number(self, name: str) -> float | None:
        value: NDArray[Any] | None = self._index.value(name)
        return float(np.reshape(value, -1)[0]) if value is not None and value.size == 1 else None

    def _producer(self, name: str) -> onnx.NodeProto | None:
        node = self._index.producer(name)
        return node if node is not None and node.domain in {"", "ai.onnx"} else None
