"""Graphs that are run but never shipped: the part up to some tensors, fed in pixel space.

Their weights stay references into the source's files, so a derived graph is small however big the model is.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from cloakonnx.errors import ModelError, TapError, nearest
from cloakonnx.graph.index.index import node_inputs, structure
from cloakonnx.graph.index.normal import normalised, opset_version
from cloakonnx.graph.subgraphs.prepend import prepend, put_batch_first
from cloakonnx.preprocessing import Step

_MIN_IR = 8
"""From IR 4 on an initializer need not be an input; 8 is what opset 15 to 18 go with and every runtime takes."""

_NUMPY_INPUTS = {
    onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE,
    onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64,
}  # fmt: skip


def tapped(
    model: onnx.ModelProto, outputs: Sequence[str], *, input_name: str, steps: Sequence[Step] = (), batch_axis: int = 0
) -> onnx.ModelProto:
    """Return the part of a model that computes some tensors, fed in float32 pixel space.

    Args:
        model: The model, large weights as references or inline.
        outputs: Tensors of the main graph, in the order of the new graph's outputs; the data input, too, which comes
            as the model sees it.
        input_name: The data input. In the new graph it is called the same unless it has to be converted.
        steps: From pixel space to the input, prepended as nodes (:func:`~cloakonnx.graph.subgraphs.prepend.prepend`).
        batch_axis: The axis of the input that counts samples; the new graph has them along the first.

    Raises:
        TapError: a tensor that is not there.
        ModelError: another input is needed as well.
    """
    derived = _part(normalised(model), outputs)
    needed = [i.name for i in derived.graph.input if i.name != input_name]
    if needed:
        raise unfed(needed, input_name)
    if not derived.graph.input:
        raise ModelError(f"{', '.join(map(repr, outputs))} does not depend on the input {input_name!r}")
    _check_numeric(derived.graph.input[0])
    first = put_batch_first(derived.graph, derived.graph.input[0].name, batch_axis)
    prepend(derived.graph, first, steps, opset=opset_version(derived.opset_import, default=18))
    return derived


def unfed(needed: Sequence[str], input_name: str) -> ModelError:
    """Return the error for a model that reads other inputs than the data."""
    names = ", ".join(map(repr, needed))
    return ModelError(
        f"the model needs {names} beside {input_name!r}, and only one input takes samples; make {names} "
        f"{'constants' if len(needed) > 1 else 'a constant'} in the file first (docs/troubleshooting.md shows how)"
    )


def _part(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Return a copy that keeps the nodes, weights and inputs that the outputs need."""
    producers = structure(model).producers
    known = {o.name: o for o in (*model.graph.input, *model.graph.output, *model.graph.value_info)}
    inputs = {i.name for i in model.graph.input}
    missing = next((name for name in outputs if name not in producers and name not in inputs), None)
    if missing is not None:
        raise TapError(f"tensor {missing!r} is not computed by the model{nearest(missing, producers)}")
    kept: set[int] = set()
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in producers and producers[name][0] not in kept:
            kept.add(producers[name][0])
            waiting += node_inputs(model.graph.node[producers[name][0]])
    derived = onnx.ModelProto(ir_version=max(model.ir_version, _MIN_IR), opset_import=model.opset_import)
    derived.functions.extend(model.functions)
    graph = derived.graph
    graph.name = model.graph.name or "derived"
    graph.node.extend(node for index, node in enumerate(model.graph.node) if index in kept)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in needed)
    weights = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    graph.input.extend(i for i in model.graph.input if i.name in needed and i.name not in weights)
    graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
    return derived


def _check_numeric(entry: onnx.ValueInfoProto) -> None:
    elem_type = entry.type.tensor_type.elem_type
    if elem_type not in _NUMPY_INPUTS:
        known = elem_type in onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(elem_type).lower() if known else f"number {elem_type}"
        raise ModelError(f"the model's input {entry.name!r} has element type {kind}; numbers are needed")
