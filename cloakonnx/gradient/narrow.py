"""Keeps the roundings at both ends of a float16 model.

ONNX Runtime's CPU provider computes float16 ops in float32 and drops the Casts to float16 between them as free of loss,
also the one that a graph in float32 pixel space begins with: the model would see other values than in use. An op that
has a kernel of its own for float16, like Reshape, stays, and so do the Casts around it.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from cloakonnx.gradient.emit import Emitter

_WIDE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def round_input(graph: onnx.GraphProto, name: str) -> None:
    """Make the Cast that gives a model its narrow input ``name`` round on every provider, if there is one.

    Done to a finished graph, so that gradients, which are better off unrounded, pass by.
    """
    place = next((i for i, node in enumerate(graph.node) if name in node.output and node.op_type == "Cast"), None)
    if place is None:
        return
    cast = graph.node[place]
    cast.output[0] = f"{name}/narrow"
    graph.node.insert(place + 1, onnx.helper.make_node("Shape", [cast.input[0]], [f"{name}/shape"]))
    graph.node.insert(place + 2, onnx.helper.make_node("Reshape", [f"{name}/narrow", f"{name}/shape"], [name]))


def rounded(e: Emitter, name: str, elem_type: int) -> str:
    """Return float32 values rounded to what ``elem_type`` holds."""
    if elem_type in _WIDE:
        return name
    narrow = e.op("Cast", name, to=elem_type)
    return e.op("Cast", e.op("Reshape", narrow, e.op("Shape", name)), to=TensorProto.FLOAT)
