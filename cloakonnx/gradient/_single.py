"""Scores of two classes that are made of one number for each sample, however their end is written.

``[1 - p, p]`` has many spellings, ``2 p - 1`` is a score, too, and a sure ``p`` is 1 in float32, where no gradient is
left. What such scores have in common is one number: the end is run on a grid of it, and where the decision changes
once, the number's distance from there is the logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from cloakonnx.graph.build import Builder
from cloakonnx.graph.index.ending import MIDDLE, Ending, ending
from cloakonnx.graph.index.index import Index, node_inputs, subgraphs

_MOST_NODES = 64
"""Nodes of the longest end that is followed."""

_SIDE = np.geomspace(1e-4, 1e3, 400)
_GRID = np.concatenate([-_SIDE[::-1], [0.0], _SIDE])
"""Values of the number that the end is run on."""

_ROUNDS = 4
"""Times that the place where the decision changes is looked for, each on a finer grid."""

_BENT = 1e-3
"""Share of its range by which a difference of scores must leave a straight line; logits that are straight stay."""

_Array = NDArray[Any]


def single_scores(graph: onnx.GraphProto, output: str, *, opset: int, probabilities: bool | None = None) -> str | None:
    """Emit scores (N, 2) whose order is that of ``output``, made of the number behind it; return their name.

    Args:
        graph: A graph in canonical form with its shapes; nodes are added.
        output: The class scores.
        opset: Version of the default operator set.
        probabilities: Whether the output is known to hold a probability (True) or a logit (False).

    Returns:
        None where the output has more than two scores a sample, ends in an activation that is simply left out, is
        straight in the number, or is made of more than one number; where it is one score of unknown meaning, too.
    """
    index = Index(graph)
    sizes = [size for size in (index.shape(output) or (None, None))[1:] if size != 1]
    made = ending(output, producer=index.producer, value=index.value)
    if sizes not in ([], [2]) or not index.is_float(output) or made.activation is not None:
        return None
    threshold = None if sizes else _threshold(made, probabilities)
    if not sizes and threshold is None:
        return None
    for name, nodes in reversed(list(_singles(index, output))):
        found = _End(index, nodes, name, output, opset=opset).logit(threshold)
        if found is None:
            continue
        place, sign = found
        build = Builder(graph, index, opset=opset, prefix="single/")
        number = build.tensor(name).reshape(-1, 1)
        number = number.cast(TensorProto.FLOAT) if number.dtype.itemsize < 4 else number
        logit = (number - place) * sign
        return build.op("Concat", logit.zeros(), logit, axis=1).name
    return None


def _threshold(made: Ending, probabilities: bool | None) -> float | None:
    """Return what one score must exceed to stand for class 1; None where that is unknown."""
    if made.untold is None:
        return MIDDLE if made.is_probability else 0.0
    return None if probabilities is None else MIDDLE * probabilities


def _singles(index: Index, output: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Return each tensor of one number a sample that all of an output is made of, with the nodes behind it, last first.

    Nodes are given by their places in topological order.
    """
    places = {place: position for position, place in enumerate(index.order)}
    ahead, nodes = {output}, set[int]()
    while ahead and len(nodes) < _MOST_NODES:
        if any(name not in index.producers for name in ahead):
            return
        name = max(ahead, key=lambda each: places[index.producers[each][0]])
        place = index.producers[name][0]
        node = index.graph.node[place]
        if node.domain not in {"", "ai.onnx"} or any(True for _ in subgraphs(node)):
            return
        ahead -= set(node.output)
        nodes.add(place)
        ahead |= {each for each in node_inputs(node) if each not in index.constants}
        if len(ahead) == 1 and _is_single(index, only := next(iter(ahead)), output):
            yield only, tuple(sorted(nodes, key=places.__getitem__))


def _is_single(index: Index, name: str, output: str) -> bool:
    """Whether a tensor holds one number for each of the output's samples."""
    shape = index.shape(name)
    if not shape or any(size != 1 for size in shape[1:]) or not index.is_float(name):
        return False
    (rows, *_), samples = index.shape(output) or (None,), shape[0]
    return rows == samples or not (isinstance(rows, int) and isinstance(samples, int))


class _End:
    """The end of a graph, from one number a sample to its scores.

    Args:
        index: The graph.
        nodes: The end's nodes, in order.
        number: The tensor of one number a sample.
        output: The scores.
        opset: Version of the default operator set.
    """

    def __init__(self, index: Index, nodes: tuple[int, ...], number: str, output: str, *, opset: int) -> None:
        self._shape = index.shape(number) or (None,)
        self._number, self._output = number, output
        self._dtype = onnx.helper.tensor_dtype_to_np_dtype(index.elem_type(number))
        self._run = _evaluator(index, nodes, number, output, opset=opset)

    def logit(self, threshold: float | None) -> tuple[float, float] | None:
        """Return where the decision changes, and 1 where class 1 is above, else -1; None where it does not change once.

        Args:
            threshold: Of one score; None where there are two.
        """
        grid, place = _GRID, 0.0
        sign: float | None = None
        for number in range(_ROUNDS):
            scores = self._scores(grid, 2 if threshold is None else 1)
            if scores is None:
                return None
            known = np.isfinite(scores).all(1)
            margins = scores[:, 1] - scores[:, 0] if threshold is None else scores[:, 0] - threshold
            grid, margin = grid[known], margins[known]
            if number == 0 and _is_straight(grid, margin):
                return None
            found = _change(grid, margin)
            if found is None or (sign is not None and found[2] != sign):
                return None
            low, high, sign = found
            place = (low + high) / 2
            grid = np.linspace(low, high, 2 * _SIDE.size + 1)
        return place, float(sign or 0)

    def _scores(self, grid: _Array, each: int) -> _Array | None:
        """Return (values, scores of a sample) for each value of the number; None where a sample has not ``each``."""
        first = self._shape[0]
        size = first if isinstance(first, int) else len(grid)
        rows = []
        for start in range(0, len(grid), size):
            part = np.resize(grid[start : start + size], size)
            scores = self._run({self._number: part.astype(self._dtype).reshape(-1, *([1] * (len(self._shape) - 1)))})
            if scores is None or scores.size != each * size:
                return None
            rows.append(scores.reshape(size, -1))
        return np.concatenate(rows)[: len(grid)].astype(np.float64)


def _is_straight(grid: _Array, margin: _Array) -> bool:
    """Whether a difference of scores grows evenly, as one of logits does."""
    if len(grid) < 3:
        return True
    line = margin[0] + (margin[-1] - margin[0]) * (grid - grid[0]) / (grid[-1] - grid[0])
    return bool(np.abs(margin - line).max() <= _BENT * max(float(np.ptp(margin)), 1e-30))


def _change(grid: _Array, margin: _Array) -> tuple[float, float, float] | None:
    """Return the two values between which the sign of a difference changes, and the sign above; None if not once."""
    signs = np.sign(margin)
    given = np.flatnonzero(signs)
    if not len(given) or signs[given[0]] == signs[given[-1]]:
        return None
    changes = np.flatnonzero(np.diff(signs[given]))
    if len(changes) != 1:
        return None
    low, high = given[changes[0]], given[changes[0] + 1]
    return float(grid[low]), float(grid[high]), float(signs[high])


def _evaluator(index: Index, nodes: tuple[int, ...], number: str, output: str, *, opset: int) -> Any:
    """Return what runs the end: scores of values of the number, or None where it cannot be run."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - takes long to import, and few models need it

    made = [index.graph.node[place] for place in nodes]
    read = {name for node in made for name in node_inputs(node)} - {name for node in made for name in node.output}
    values = {name: index.value(name) for name in read - {number}}
    if any(value is None for value in values.values()):
        return lambda _: None
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    inputs, outputs = [onnx.ValueInfoProto(name=number)], [onnx.ValueInfoProto(name=output)]
    inner = onnx.helper.make_graph(made, "end", inputs, outputs, weights)
    model = onnx.helper.make_model(inner, opset_imports=[onnx.helper.make_opsetid("", opset)])

    def run(feed: Mapping[str, _Array]) -> _Array | None:
        try:
            with np.errstate(all="ignore"):
                results: Any = ReferenceEvaluator(model).run(None, dict(feed))
                return np.asarray(results[0])
        except Exception:  # an op that the reference lacks, or a shape that it does not take: the end stays as it is
            return None

    return run
