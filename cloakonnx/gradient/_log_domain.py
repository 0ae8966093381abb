"""Probabilities that are spelled out, joined or scaled, rewritten as the logarithms of what they are made of.

A softmax of a sure model is 1 and 0 in float32: its logarithm has no gradient there. What is emitted here works on the
exponents, where nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.gradient._direction import Directions
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.ending import ending, is_guard, limits_of, sigmoid_input
from cloakonnx.graph.index.index import Index
from cloakonnx.graph.index.node import attributes
from cloakonnx.graph.index.traits import Trait, has

_LOWEST = -1e30
"""Stands for the logarithm of 0 among constants: no gradient flows from there, and nothing becomes NaN."""

_TINY = 1e-38

_MOST_WEIGHTS = 1 << 16
"""Elements of the largest matrix that probabilities are multiplied by here."""

_PICKS = frozenset({"Slice", "Gather", "Split"})


def log_scores(graph: onnx.GraphProto, output: str, *, opset: int) -> str | None:
    """Emit scores whose order in every sample is that of ``output``, made in the log domain; return their name.

    Args:
        graph: A graph in canonical form with its shapes; nodes are added.
        output: The class scores.
        opset: Version of the default operator set.

    Returns:
        None where the output is made of no probabilities, or of a Softmax, LogSoftmax or Sigmoid that is simply left
        out because no probabilities are before it, or in a way that cannot be followed.
    """
    index = Index(graph)
    made = ending(output, producer=index.producer, value=index.value)
    is_softmax = made.activation in {"Softmax", "LogSoftmax"}
    if (made.activation and not is_softmax) or made.is_quantised or not index.is_float(output):
        return None
    domain = _LogDomain(Builder(graph, index, opset=opset, prefix="log/"))
    scores = made.source if is_softmax else output  # of a Softmax over probabilities
    axis, rank = domain.class_axis(scores), index.rank(scores)
    if axis is None or rank is None or (is_softmax and made.axis % rank != axis):
        return None
    found = domain.order(scores)
    return None if found is None else found.name


class _LogDomain:
    """Reads the end of a graph backwards and emits its logarithm.

    Args:
        build: Where to emit.
    """

    def __init__(self, build: Builder) -> None:
        self.build, self.index = build, build.index
        self._logs: dict[str, Tensor | None] = {}
        self._directions = Directions(self.index, class_axis=self.class_axis, is_positive=self._is_positive)

    # The order of the scores

    def order(self, name: str) -> Tensor | None:
        """Return scores in the order of a tensor's, sample by sample; None where it is made of no probabilities.

        Maps that are the same for all classes and increase (a scale, an offset, a logarithm) are left out, and so is a
        Softmax of probabilities.
        """
        node = self._producer(name)
        if node is None:
            return None
        inner = self._directions.same(node)
        if inner is not None:
            found = self.order(inner)
        elif self._keeps_row(node):
            found = self._moved(node, name, self.order(node.input[0]))
        elif node.op_type == "Exp" or (node.op_type == "Pow" and self._base(node) > 1):
            power = self._unshifted(node.input[-1])
            found = self.order(power) or self._leaf(power)
        elif node.op_type in {"Softmax", "LogSoftmax"} and self._is_over_classes(node):
            found = self.order(node.input[0]) or self._leaf(node.input[0])
        else:
            return self.log(name)
        return self.log(name) if found is None else found

    def class_axis(self, name: str) -> int | None:
        """Return the axis of a tensor that counts classes: the only one beside the first that is not of size 1."""
        shape = self.index.shape(name) or ()
        axes = [i for i, size in enumerate(shape) if i and size != 1]
        return axes[0] if len(axes) == 1 else None

    def _is_positive(self, name: str) -> bool:
        """Whether a tensor that is not constant is positive by how it is made."""
        node = self._producer(name)
        if node is not None and node.op_type == "Clip" and limits_of(node, self.index.value)[0] > 0:
            return True
        if node is not None and node.op_type == "Max":
            return any((value > 0).all() for each in node.input if (value := self._value(each)) is not None)
        return self.log(name) is not None

    def _keeps_row(self, node: onnx.NodeProto) -> bool:
        """Whether a node moves scores within a sample, or picks some of its classes."""
        before, after = self.class_axis(node.input[0]) if node.input else None, self.class_axis(node.output[0])
        if before is None or after is None:
            return False
        if node.op_type not in _PICKS:
            first = [(self.index.shape(name) or (None,))[0] for name in (node.input[0], node.output[0])]
            perm = attributes(node).get("perm", [0])
            return _is_view(node) and first[0] == first[1] and perm[0] == 0
        return self._picked_axes(node) == {before}

    def _mixes_samples(self, node: onnx.NodeProto) -> bool:
        """Whether a node makes another number of samples of them."""
        before, after = ((self.index.shape(name) or (None,))[0] for name in (node.input[0], node.output[0]))
        known = isinstance(before, int) and isinstance(after, int)
        return node.op_type != "Transpose" and known and before != after

    def _picked_axes(self, node: onnx.NodeProto) -> set[int] | None:
        """Return the axes along which a node picks elements; None where they are not known."""
        rank = self.index.rank(node.input[0])
        if rank is None:
            return None
        if node.op_type != "Slice":
            return {attributes(node).get("axis", 0) % rank}
        axes = self._value(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        starts = self._value(node.input[1])
        if axes is None:
            return None if starts is None else set(range(starts.size))
        return {int(axis) % rank for axis in axes.reshape(-1)}

    def _is_over_classes(self, node: onnx.NodeProto) -> bool:
        rank = self.index.rank(node.input[0])
        return rank is not None and attributes(node).get("axis", -1) % rank == self.class_axis(node.input[0])

    def _unshifted(self, name: str) -> str:
        """Return exponents before one number for each sample, its maximum say, is taken from them."""
        node = self._producer(name)
        while node is not None and node.op_type in {"Add", "Sub"}:
            inner = self._directions.same_arithmetic(node)
            if inner is None or self._value(inner) is not None:
                break
            name, node = inner, self._producer(inner)
        return name

    # Logarithms

    def log(self, name: str) -> Tensor | None:
        """Return the logarithm of a tensor that is positive by how it is made; None where that is unknown."""
        if name not in self._logs:
            self._logs[name] = self._log(name)
        return self._logs[name]

    def _log(self, name: str) -> Tensor | None:
        value = self._value(name)
        if value is not None:
            return self._log_constant(value)
        node = self._producer(name)
        if node is None:
            return None
        if is_guard(node, self.index.value):
            return self.log(node.input[0])
        if _is_view(node) or node.op_type in _PICKS:
            return None if self._mixes_samples(node) else self._moved(node, name, self.log(node.input[0]))
        if sigmoid_input(name, node, self.index.producer, self.index.value) is not None:
            logit = self._single_logit(name, node)
            return None if logit is None else -((-logit).op("Softplus"))
        return _LOGS[node.op_type](self, node) if node.op_type in _LOGS else None

    def _log_constant(self, value: NDArray[Any]) -> Tensor | None:
        if value.dtype.kind != "f" or (value < 0).any():
            return None
        logs = np.log(np.maximum(value.astype(np.float64), 1e-300))
        return self.build.constant(np.where(value > 0, logs, _LOWEST).astype(self._dtype(value.dtype)))

    def _single_logit(self, name: str, node: onnx.NodeProto) -> Tensor | None:
        """Return the logit of a sigmoid of one score a sample.

        Several are 1 together in float32 where their logits differ: their order is not that of the logits.
        """
        logit = sigmoid_input(name, node, self.index.producer, self.index.value)
        shape = self.index.shape(name)
        if logit is None or shape is None or any(size != 1 for size in shape[1:]):
            return None
        return self._leaf(logit)

    def _log_softmax(self, node: onnx.NodeProto) -> Tensor | None:
        return self._leaf(node.input[0]).op("LogSoftmax", axis=attributes(node).get("axis", -1))

    def _log_exp(self, node: onnx.NodeProto) -> Tensor | None:
        return self._leaf(node.input[0])

    def _log_product(self, node: onnx.NodeProto) -> Tensor | None:
        first, second = (self.log(each) for each in node.input)
        if first is None or second is None:
            return None
        return first + second if node.op_type == "Mul" else first - second

    def _log_power(self, node: onnx.NodeProto) -> Tensor | None:
        base = self._base(node)
        if base > 0:
            return self._leaf(node.input[1]) * float(np.log(base))
        power = {"Reciprocal": -1.0, "Sqrt": 0.5}.get(node.op_type)
        if power is None:
            value = self._value(node.input[1])
            if value is None or value.size != 1:
                return None
            power = float(value.item())
        found = self.log(node.input[0])
        return None if found is None else found * power

    def _log_sum(self, node: onnx.NodeProto) -> Tensor | None:
        """Of a sum or mean of several tensors."""
        if node.op_type == "Add":
            rest = self._complement(node)
            if rest is not None:
                return rest
        # Constants last: what is added to the logarithm of 0 would be lost.
        logs = [self.log(each) for each in sorted(node.input, key=lambda name: self._value(name) is not None)]
        known = [each for each in logs if each is not None]
        if len(known) < len(logs):
            return None
        total = reduce(lambda a, b: a + (b - a).op("Softplus"), known)
        return total - float(np.log(len(known))) if node.op_type == "Mean" else total

    def _log_difference(self, node: onnx.NodeProto) -> Tensor | None:
        return self._complement(node)

    def _complement(self, node: onnx.NodeProto) -> Tensor | None:
        """Return log(1 - p) where the node is that."""
        name = self._subtracted_from_one(node)
        producer = None if name is None else self._producer(name)
        if name is None or producer is None:
            return None
        logit = self._single_logit(name, producer)
        if logit is not None:
            return -(logit.op("Softplus"))
        log = self.log(name)
        if log is None:
            return None
        # 1 - p = -2 t / (1 - t) with t = tanh(log(p) / 2), where nothing cancels
        half = (log * 0.5).op("Tanh")
        return (half * -2.0).op("Max", _TINY).log() - (1 - half).log()

    def _subtracted_from_one(self, node: onnx.NodeProto) -> str | None:
        """Return p of 1 - p, -p + 1 or 1 + p * -1."""
        if node.op_type == "Sub":
            return node.input[1] if self._is_number(node.input[0], 1) else None
        for one, other in (tuple(node.input), tuple(reversed(node.input))):
            negated = self._producer(other)
            if not self._is_number(one, 1) or negated is None:
                continue
            if negated.op_type == "Neg":
                return negated.input[0]
            if negated.op_type == "Mul":
                pairs = (tuple(negated.input), tuple(reversed(negated.input)))
                return next((p for p, factor in pairs if self._is_number(factor, -1)), None)
        return None

    def _log_reduced(self, node: onnx.NodeProto) -> Tensor | None:
        found = self.log(node.input[0])
        axes = self._value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        if found is None or axes is None or not axes.size:
            return None
        total = found.op(
            "ReduceLogSumExp", self.build.constant(axes), keepdims=int(attributes(node).get("keepdims", 1))
        )
        if node.op_type != "ReduceMean":
            return total
        shape = self.index.shape(node.input[0]) or ()
        sizes = [shape[int(axis)] for axis in axes.reshape(-1)] if shape else [None]
        known = [size for size in sizes if isinstance(size, int)]
        return total - float(np.log(np.prod(known))) if len(known) == len(sizes) else None

    def _base(self, node: onnx.NodeProto) -> float:
        """Return the constant that a Pow takes to powers; 0 where there is none."""
        value = self._value(node.input[0]) if node.op_type == "Pow" else None
        return float(value.item()) if value is not None and value.size == 1 else 0.0

    def _log_largest(self, node: onnx.NodeProto) -> Tensor | None:
        """Of the largest or smallest of several tensors."""
        logs = [self.log(each) for each in node.input]
        known = [each for each in logs if each is not None]
        return self.build.op(node.op_type, *known) if len(known) == len(logs) else None

    def _log_maximum(self, node: onnx.NodeProto) -> Tensor | None:
        found = self.log(node.input[0])
        if found is None:
            return None
        rest = [self.build.tensor(each) for each in node.input[1:]]
        return found.op(node.op_type, *rest, **attributes(node))

    def _log_joined(self, node: onnx.NodeProto) -> Tensor | None:
        logs = [self.log(each) for each in node.input]
        known = [each for each in logs if each is not None]
        if len(known) < len(logs):
            return None
        return self.build.op("Concat", *known, axis=attributes(node)["axis"])

    def _log_mixed(self, node: onnx.NodeProto) -> Tensor | None:
        """Of probabilities (N, classes) times a constant matrix without negative weights."""
        weights = self._value(node.input[1])
        if weights is None or weights.ndim != 2 or weights.size > _MOST_WEIGHTS or (weights < 0).any():
            return None
        if self.index.rank(node.input[0]) != 2 or (node.op_type == "Gemm" and not self._is_plain(node)):
            return None
        found, matrix = self.log(node.input[0]), self._log_constant(weights)
        if attributes(node).get("transB", 0):
            matrix = self._log_constant(weights.T)
        if found is None or matrix is None:
            return None
        return (found.unsqueeze(2) + matrix).op("ReduceLogSumExp", self.build.ints(1), keepdims=0)

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        """Whether a Gemm is a product alone."""
        found = attributes(node)
        bias = self._value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        is_unbiased = bias is not None and not bias.any()
        return found.get("alpha", 1.0) == 1 and not found.get("transA", 0) and is_unbiased

    # Parts

    def _value(self, name: str) -> NDArray[Any] | None:
        return self.index.value(name)

    def _producer(self, name: str) -> onnx.NodeProto | None:
        node = self.index.producer(name)
        return node if node is not None and node.domain in {"", "ai.onnx"} else None

    def _leaf(self, name: str) -> Tensor:
        """Return a tensor of the model, float32 at least."""
        found = self.build.tensor(name)
        return found.cast(TensorProto.FLOAT) if found.dtype.itemsize < 4 else found

    def _dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.float32) if dtype.itemsize < 4 else dtype

    def _moved(self, node: onnx.NodeProto, name: str, inner: Tensor | None) -> Tensor | None:
        """Emit a node that moves or picks elements again, on other elements."""
        if inner is None or node.op_type in {"Identity", "Dropout"}:
            return inner
        if node.op_type == "Cast":
            wide = attributes(node)["to"] in {TensorProto.FLOAT, TensorProto.DOUBLE}
            return inner.cast(attributes(node)["to"]) if wide else inner
        rest = [self.build.tensor(each) if each else None for each in node.input[1:]]
        types = [inner.elem_type for _ in node.output]
        made = self.build.ops(node.op_type, inner, *rest, elem_types=types, **attributes(node))
        return made[list(node.output).index(name)]

    def _is_number(self, name: str, number: float) -> bool:
        value = self._value(name)
        return value is not None and value.size > 0 and bool((value == number).all())


def _is_view(node: onnx.NodeProto) -> bool:
    """Whether a node leaves the numbers as they are."""
    return has(node.op_type, Trait.MOVES)


_LOGS: dict[str, Callable[[_LogDomain, onnx.NodeProto], Tensor | None]] = {
    "Softmax": _LogDomain._log_softmax,
    "Exp": _LogDomain._log_exp,
    "Mul": _LogDomain._log_product,
    "Div": _LogDomain._log_product,
    "Pow": _LogDomain._log_power,
    "Sqrt": _LogDomain._log_power,
    "Reciprocal": _LogDomain._log_power,
    "Add": _LogDomain._log_sum,
    "Sum": _LogDomain._log_sum,
    "Mean": _LogDomain._log_sum,
    "Sub": _LogDomain._log_difference,
    "ReduceSum": _LogDomain._log_reduced,
    "ReduceMean": _LogDomain._log_reduced,
    "ReduceL1": _LogDomain._log_reduced,
    "ReduceMax": _LogDomain._log_maximum,
    "Max": _LogDomain._log_largest,
    "Min": _LogDomain._log_largest,
    "Concat": _LogDomain._log_joined,
    "MatMul": _LogDomain._log_mixed,
    "Gemm": _LogDomain._log_mixed,
}
