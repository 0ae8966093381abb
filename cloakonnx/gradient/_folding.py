"""Computes what is constant in a graph once the shape of the data is known, and takes the branches that are left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from cloakonnx.gradient._branches import without_fixed_branches
from cloakonnx.gradient._late import Late
from cloakonnx.graph.index.index import Dim, Index, subgraphs
from cloakonnx.graph.index.shapes import infer
from cloakonnx.graph.index.traits import Trait, has

SMALL = 1 << 16
"""Elements up to which a constant is computed here; the runtime folds larger ones."""

_ROUNDS = 64
"""Most rounds of computing constants: a block whose shapes depend on the block before takes one."""

_INVENTED = "unk__"
"""Prefix of the dimension names that onnx's inference invents."""


def initialised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn Constant nodes into initializers."""
    nodes = []
    for node in model.graph.node:
        tensor = _constant_of(node) if node.op_type == "Constant" and not node.domain else None
        if tensor is None:
            nodes.append(node)
            continue
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    replace_nodes(model.graph, nodes)
    return model


def unbranched(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each If with a constant condition by the branch that runs."""
    return initialised(without_fixed_branches(model))


def _constant_of(node: onnx.NodeProto) -> TensorProto | None:
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    if attribute.name in {"value_float", "value_floats", "value_int", "value_ints"}:
        dtype = np.float32 if "float" in attribute.name else np.int64
        return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(attribute), dtype))
    return None  # sparse tensors and strings: no rule reads them


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Leave a graph these of its nodes."""
    if len(nodes) == len(graph.node):
        return
    kept = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def folded(model: onnx.ModelProto, *, apart: Collection[str] = ()) -> onnx.ModelProto:
    """Compute small constants, infer shapes, and again while the shapes bring new constants.

    Args:
        model: The model.
        apart: Tensors that gradients are taken by: nodes that read them stay.
    """
    for _round in range(_ROUNDS):
        model = infer(model)
        changed = _fold_once(model, apart)
        inside = any(node.op_type == "If" for node in model.graph.node)
        if inside and changed:  # a condition may have become constant
            model = unbranched(model)
        if not changed:
            return model
        _forget_invented(model.graph)
    return infer(model)


def _forget_invented(graph: onnx.GraphProto) -> None:
    """Drop shapes with dimension names that inference invented: it keeps them although new constants give sizes."""
    inferred = {name for node in graph.node if not node.domain for name in node.output}
    kept = [_copied(v) for v in graph.value_info if v.name not in inferred or not _is_invented(v)]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _is_invented(value: onnx.ValueInfoProto) -> bool:
    return any(dim.dim_param.startswith(_INVENTED) for dim in value.type.tensor_type.shape.dim)


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _fold_once(model: onnx.ModelProto, apart: Collection[str]) -> bool:
    graph = model.graph
    index = Index(graph)
    opsets = list(model.opset_import)
    nodes: list[onnx.NodeProto] = []
    noted = False
    late = Late(index, lambda node, feeds: _run(node, feeds, opsets))
    for node in graph.node:
        values = None if set(node.input).intersection(apart) else _evaluate(node, index, opsets)
        if values is None and (found := late.follow(node)) is not None:
            values = [found]
        if values is None:
            nodes.append(node)
            noted = _noted(node, index, late.shape_of_output(node)) or noted
            continue
        for name, value in zip(node.output, values, strict=True):
            tensor = numpy_helper.from_array(value, name)
            graph.initializer.append(tensor)
            index.add_initializer(tensor)
    changed = len(nodes) < len(graph.node) or noted
    replace_nodes(graph, nodes)
    return changed


def _says_more(dim: Dim, known: Dim) -> bool:
    """Whether a size is more exact than what is known; a name that inference invented is no information."""
    if isinstance(dim, str):
        return not isinstance(known, int) and dim != known and not dim.startswith(_INVENTED)
    return dim is not None and not isinstance(known, int)


def _noted(node: onnx.NodeProto, index: Index, shape: Sequence[Dim] | None) -> bool:
    """Record the shape of an output where it is more exact than what is known; return whether it was."""
    name = node.output[0]
    if shape is None:
        return False
    known = index.shape(name) or (None,) * len(shape)
    if len(known) != len(shape) or not any(_says_more(s, k) for s, k in zip(shape, known, strict=True)):
        return False
    shape = [s if _says_more(s, k) else k for s, k in zip(shape, known, strict=True)]
    value = onnx.helper.make_tensor_value_info(name, index.elem_type(name), shape)
    others = [_copied(v) for v in index.graph.value_info if v.name != name]
    del index.graph.value_info[:]
    index.graph.value_info.extend([*others, value])
    index.learn(name, index.elem_type(name), shape)
    return True


def _evaluate(
    node: onnx.NodeProto, index: Index, opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[npt.NDArray[np.generic]] | None:
    """Compute a node of small constant inputs and small known outputs, or None."""
    if node.op_type == "Shape":
        return _shape_value(node, index)
    reads = [name for name in node.input if name]
    if not reads or node.domain or has(node.op_type, Trait.RANDOM) or any(subgraphs(node)):
        return None
    is_text = any(index.elem_type(name) == TensorProto.STRING for name in reads)  # a search in it may take for ever
    if is_text or not all(name in index.initializers for name in reads):
        return None
    sizes = [index.static(name) for name in (*reads, *node.output)]
    if any(size is None or int(np.prod(size)) > SMALL for size in sizes):
        return None
    return _run(node, {name: index.value(name) for name in reads}, opsets)


def _run(
    node: onnx.NodeProto, feeds: Mapping[str, Any], opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[npt.NDArray[np.generic]] | None:
    """Run a node on values of its inputs, or None where that cannot be done."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - takes long to import, and inspect folds nothing

    inputs = [onnx.ValueInfoProto(name=name) for name in feeds]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    inner = onnx.helper.make_graph([node], "constant", inputs, outputs)
    try:
        found = ReferenceEvaluator(onnx.helper.make_model(inner, opset_imports=opsets)).run(None, dict(feeds))
    except Exception:  # an op that the reference lacks stays a node
        return None
    arrays = [np.asarray(value) for value in found]
    return arrays if all(a.dtype.kind in "fiub" for a in arrays) else None


def _shape_value(node: onnx.NodeProto, index: Index) -> list[npt.NDArray[np.generic]] | None:
    shape = index.shape(node.input[0])
    if shape is None:
        return None
    ends = {a.name: a.i for a in node.attribute}
    part = shape[ends.get("start", 0) : ends.get("end", len(shape))]
    known = [d for d in part if isinstance(d, int)]
    return [np.array(known, np.int64)] if len(known) == len(part) else None
