"""Which output of a model holds its class scores, and which tensor has them as numbers.

Classical models give a label beside the scores, and the scores as a list of maps from label to score (ZipMap) or as a
column for each class: what these are made of is one tensor, a row of scores a sample.
"""

from __future__ import annotations

import onnx

from cloakonnx.graph.index.index import FLOATS, Index
from cloakonnx.graph.index.traits import Trait, has

_PARTS = frozenset({"Slice", "Gather", "Split", "ArrayFeatureExtractor"})
"""Ops that take a column of a tensor."""


def scores_tensor(graph: Index, output: str) -> str:
    """Return the tensor whose numbers an output gives: what the ZipMap that makes it reads, else the output itself."""
    node = graph.producer(output)
    while node is not None and node.op_type == "Identity":
        node = graph.producer(node.input[0])
    return node.input[0] if node is not None and node.op_type == "ZipMap" else output


def sole_scores(graph: Index) -> str | None:
    """Return the tensor that alone may hold class scores; None where there is none, or more than one.

    It is the only output if there is one, else the only one of floating point, maps of scores included, or the tensor
    of which all outputs of floating point are columns.
    """
    outputs = [scores_tensor(graph, each.name) for each in graph.graph.output]
    if len(outputs) == 1:
        return outputs[0]
    floats = [name for name in outputs if name not in graph.kinds and graph.is_float(name)]
    return floats[0] if len(floats) == 1 else _whole(graph, floats)


def taken(graph: Index, name: str | None) -> str | None:
    """Return the tensor with the scores of the named output, or of the one that holds them; None where that is open.

    What an output is made of goes by its own name, too.
    """
    tensors = {each.name: scores_tensor(graph, each.name) for each in graph.graph.output}
    sole = sole_scores(graph)
    if name is None or name in tensors:
        return sole if name is None else tensors[name]
    return name if name in {*tensors.values(), sole} else None


def score_output(graph: Index, wanted: str | None = None) -> str:
    """Return the tensor of an output's scores: of the named one, else of the one that holds them, else of the first."""
    return scores_tensor(graph, wanted or sole_scores(graph) or graph.graph.output[0].name)


def floating(graph: Index) -> list[str | None]:
    """Return for each output the tensor of floating point that has its numbers; None where it is known to have none."""
    tensors = [scores_tensor(graph, each.name) for each in graph.graph.output]
    return [name if name in graph.infos and graph.infos[name].elem_type in FLOATS else None for name in tensors]


def _whole(graph: Index, columns: list[str]) -> str | None:
    """Return the tensor (N, columns) that is cut into these columns; None where they are others' or not all."""
    found = {_cut(graph, name) for name in columns}
    whole = found.pop() if len(found) == 1 else None
    shape = None if whole is None else graph.shape(whole)
    return whole if shape is not None and len(shape) == 2 and shape[1] == len(columns) else None


def _cut(graph: Index, name: str) -> str | None:
    """Return the tensor of which another is a part."""
    node = graph.producer(name)
    while node is not None and (has(node.op_type, Trait.MOVES) or node.op_type == "Cast"):
        node = graph.producer(node.input[0])
    return node.input[0] if node is not None and node.op_type in _PARTS else None


def score_info(graph: Index, name: str) -> onnx.ValueInfoProto:
    """Return the value info of a tensor inside the graph."""
    return onnx.helper.make_tensor_value_info(name, graph.elem_type(name), graph.shape(name))
