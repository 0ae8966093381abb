"""Endings that give no class scores: sorted values, labels, embeddings, distances, yes-or-no answers, copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import onnx
from numpy.typing import NDArray

from cloakonnx.graph.index.ending import ending
from cloakonnx.graph.index.traits import Trait, has

_COPIES = 8
"""From this many values of a sample on, an output of as many scores is taken for a copy of it, not for classes."""

_NORMS = frozenset({"ReduceL2", "ReduceL1", "ReduceSumSquare"})

_LABELS = frozenset({"ArgMax", "ArgMin", "Hardmax", "OneHot"})

_VALUES = frozenset({"LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor"})

_RESCALES = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Neg", "Clip", "Max", "Min", "Relu", "Exp", "Pow", "Sqrt"})
"""What brings a regression's values to another scale or into bounds; a Sigmoid or Softmax makes classes of them."""

_GROWS = _RESCALES | {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Log", "Tanh"}
"""What leaves sorted values sorted, or turned round, where its other inputs are constants."""

_MEANS = frozenset({"ReduceMean", "ReduceSum", "GlobalAveragePool", "Sqrt", "Pow", "Neg"})

_STEPS = 16

Producer = Callable[[str], onnx.NodeProto | None]
Value = Callable[[str], "NDArray[Any] | None"]


class Unclassed(NamedTuple):
    """What an output holds instead of class scores.

    Attributes:
        what: In words.
        task: What such models are called, for ``--task``.
        front: Tensor that does hold class scores; None where there is none.
    """

    what: str
    task: str
    front: str | None = None


def unclassed(
    output: str,
    *,
    producer: Producer,
    value: Value,
    scores: int | None,
    sample: Sequence[int | None] | None,
) -> Unclassed | None:
    """Return what an output holds instead of class scores; None where it may hold those.

    Args:
        output: The output.
        producer: The node that makes a tensor; None for inputs and constants.
        value: A constant's value; None for what is not constant or not known.
        scores: How many values a sample has in the output; None where that is not known.
        sample: Shape of a sample at the input.
    """
    name, node = _behind_views(output, producer)
    if node is None:
        return None
    found = _sorted_values(name, producer, value) or _by_op(node, producer, scores)
    if found is not None or scores is None or scores < 2:
        return found
    made = ending(output, producer=producer, value=value)
    if made.activation in {"Softmax", "LogSoftmax"} or made.is_probability:
        return None
    if scores >= _COPIES and sample is not None and _size(sample) == scores:
        return Unclassed("as many values as the input, as an autoencoder's output does", "reconstruction")
    if made.activation in {"Sigmoid", "HardSigmoid"}:
        what = f"{scores} sigmoids, which are {scores} yes-or-no answers of which several may hold at once (multilabel)"
        return Unclassed(what, "multilabel")
    return None


def _sorted_values(name: str, producer: Producer, value: Value) -> Unclassed | None:
    """Return where an output holds the largest values in order, such as a Softmax of those; or which ones they were."""
    for _step in range(_STEPS):
        node = producer(name)
        if node is None:
            return None
        if node.op_type == "TopK" and name == node.output[0]:
            what = "the largest values of each sample in order, not the score of each class (TopK)"
            return Unclassed(what, "classes", node.input[0])
        if node.op_type == "TopK":
            return Unclassed("the predicted labels in order, not scores (TopK)", "classes", node.input[0])
        live = [each for each in node.input if each and value(each) is None]
        if has(node.op_type, Trait.MOVES):
            live = list(node.input[:1])
        elif node.op_type not in _GROWS or len(live) != 1:
            return None
        name = live[0]
    return None


def _by_op(node: onnx.NodeProto, producer: Producer, scores: int | None) -> Unclassed | None:
    """Return what the last op makes that are no class scores."""
    label = _label(node, producer)
    if label is not None:
        return Unclassed(f"the predicted label, not scores ({label.op_type})", "classes", label.input[0])
    regressor = _regressor(node, producer)
    if regressor is not None:
        return Unclassed(f"the values of a regression ({regressor})", "regression")
    if scores != 1 and _is_unit_vector(node, producer):
        return Unclassed("a vector of length 1, an embedding", "embedding")
    distance = _distance(node, producer) if scores == 1 else None
    if distance is not None:
        return Unclassed(f"a distance or an anomaly score, which is never below 0 ({distance})", "anomaly")
    return None


def _behind_views(name: str, producer: Producer) -> tuple[str, onnx.NodeProto | None]:
    """Follow a tensor back through what leaves its numbers as they are."""
    node = producer(name)
    while node is not None and has(node.op_type, Trait.MOVES):
        name = node.input[0]
        node = producer(name)
    return name, node


def _label(node: onnx.NodeProto, producer: Producer) -> onnx.NodeProto | None:
    """Return the op that decides for a class, where the scores are its label, as a number or one-hot."""
    while node.op_type == "OneHot":
        _, before = _behind_views(node.input[0], producer)
        if before is None:
            return node
        node = before
    return node if node.op_type in _LABELS else None


def _regressor(node: onnx.NodeProto, producer: Producer) -> str | None:
    """Return the op that makes a regression's values, where they are at most rescaled by constants behind it."""
    for _step in range(_STEPS):
        if node.op_type in _VALUES:
            return node.op_type
        if node.op_type not in _RESCALES and not has(node.op_type, Trait.MOVES):
            return None
        before = next((made for name in node.input if name and (made := producer(name)) is not None), None)
        if before is None:
            return None
        node = before
    return None


def _is_unit_vector(node: onnx.NodeProto, producer: Producer) -> bool:
    """Whether a tensor is divided by its own length."""
    if node.op_type == "LpNormalization":
        return next((a.i for a in node.attribute if a.name == "p"), 2) == 2
    if node.op_type != "Div":
        return False
    whole, _ = _behind_views(node.input[0], producer)
    below = _reached(node.input[1], {"Clip", "Max", "Add", "Expand"}, producer)
    if below is not None and below.op_type == "Sqrt":
        below = _reached(below.input[0], {"ReduceSum", "Add", "Clip", "Max"}, producer)
        is_length = below is not None and below.op_type in {"ReduceSumSquare", "Pow", "Mul"}
    else:
        is_length = below is not None and below.op_type == "ReduceL2"
    return below is not None and is_length and _behind_views(below.input[0], producer)[0] == whole


def _reached(name: str, passed: set[str], producer: Producer) -> onnx.NodeProto | None:
    """Return the first node, from a tensor back, that is none of some ops and no view."""
    node = producer(name)
    while node is not None and (node.op_type in passed or has(node.op_type, Trait.MOVES)):
        node = producer(node.input[0])
    return node


def _distance(node: onnx.NodeProto, producer: Producer) -> str | None:
    """Return the op that makes a length or a mean of squares of a single score; None where it is another."""
    last: onnx.NodeProto | None = node
    for _step in range(_STEPS):
        if last is None:
            return None
        is_squared = last.op_type == "Mul" and last.input[0] == last.input[1]
        if last.op_type in _NORMS or is_squared or last.op_type == "Abs":
            return node.op_type if last is node else f"{node.op_type} of {last.op_type}"
        if last.op_type == "Pow" and last is not node:
            return f"{node.op_type} of Pow"
        if last.op_type not in _MEANS and not has(last.op_type, Trait.MOVES):
            return None
        last = producer(last.input[0])
    return None


def _size(sample: Sequence[int | None]) -> int | None:
    total = 1
    for size in sample:
        if size is None:
            return None
        total *= size
    return total
