"""The canonical form that the rules read: one opset, no functions, no constant work left, shapes inferred."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient._fusion import fuse_normalization
from cloakonnx.gradient._site import describe
from cloakonnx.gradient.info import TensorInfo, dependencies
from cloakonnx.graph.index.shapes import infer

OPSET = 18
"""Models of an older opset are converted to this one."""

IR_VERSION = 10
"""The newest IR version that every onnxruntime from 1.22 on reads."""

_SMALL = 1 << 16
"""Elements up to which a constant is computed here; the runtime folds larger ones."""

_ROUNDS = 4

_KEEP_SHAPE = frozenset({("", "GroupNormalization"), ("", "RMSNormalization"), ("com.microsoft", "Gelu")})
"""Ops whose output has the shape of their input although onnx's inference does not say so."""

_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def canonical(
    model: onnx.ModelProto,
    *,
    keep: Collection[str] = (),
    shapes: Mapping[str, Sequence[int | None]] | None = None,
) -> onnx.ModelProto:
    """Return the model in canonical form; the model itself is not changed.

    Local functions are inlined, initializers are no inputs, opsets below 18 are converted, small constant parts are
    computed, batch normalisation is fused, dead nodes are gone and shapes inferred.

    Args:
        model: A model with all its weights inline.
        keep: Tensors that must survive although no output needs them.
        shapes: Dimensions to fix at inputs, None for those that stay as they are.

    Raises:
        DifferentiationError: The model cannot be brought to opset 18.
    """
    work = onnx.ModelProto()
    work.CopyFrom(model)
    if work.functions:
        work = onnx.inliner.inline_local_functions(work)
    work.ir_version = IR_VERSION
    _check_defined(work.graph)
    _clear(work.graph)
    for value in work.graph.input:
        _fix_dims(value, (shapes or {}).get(value.name))
    _constants_to_initializers(work.graph)
    weights = take_weights(work.graph)
    if opset_of(work) < OPSET:
        work = _convert(work)
        _constants_to_initializers(work.graph)
    prune(work.graph, keep)
    work = _fold(work)
    fuse_normalization(work.graph, keep, weights)
    prune(work.graph, keep)
    return put_weights(work, weights)


def _check_defined(graph: onnx.GraphProto) -> None:
    """Raise for a tensor that a node reads and nothing makes; the converter's words name neither node nor file."""
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    known |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise DifferentiationError(
                    f"{describe(node)} reads {name!r}, which nothing in the model makes: the file is no valid model; "
                    "export it again"
                )


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)


def _clear(graph: onnx.GraphProto) -> None:
    """Drop what the model claims of its inside: shapes are inferred anew, initializers are no inputs."""
    initialised = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in initialised]
    del graph.input[:]
    graph.input.extend(inputs)
    known = [v for v in graph.value_info if not v.type.HasField("tensor_type")]
    custom = {name for node in graph.node if node.domain not in {"", "ai.onnx"} for name in node.output}
    known += [v for v in graph.value_info if v.name in custom]
    del graph.value_info[:]
    graph.value_info.extend(known)
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def _fix_dims(value: onnx.ValueInfoProto, sizes: Sequence[int | None] | None) -> None:
    """Fix the dimensions of an input that are given, and name the others, so that equal ones are known to be equal."""
    dims = value.type.tensor_type.shape.dim
    if sizes is not None and not value.type.tensor_type.HasField("shape"):
        dims.extend(onnx.TensorShapeProto.Dimension() for _ in sizes)
    if sizes is not None and len(sizes) != len(dims):
        raise DifferentiationError(f"input {value.name!r} has {len(dims)} dimensions, not {len(sizes)}")
    for i, dim in enumerate(dims):
        size = None if sizes is None else sizes[i]
        if size is not None:
            dim.dim_value = size
        elif not dim.dim_param and (not dim.HasField("dim_value") or dim.dim_value < 0):
            dim.dim_param = f"{value.name}_dim{i}"


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    nodes = []
    for node in graph.node:
        tensor = _constant_of(node) if node.op_type == "Constant" and not node.domain else None
        if tensor is None:
            nodes.append(node)
            continue
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
    _replace_nodes(graph, nodes)


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


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    if len(nodes) == len(graph.node):
        return
    kept = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def take_weights(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Move large initializers out, leaving inputs in their place, so that passes over the model do not copy them."""
    large = {t.name: t for t in graph.initializer if int(np.prod(t.dims)) > _SMALL}
    if not large:
        return {}
    weights = {}
    for name, tensor in large.items():
        weights[name] = TensorProto()
        weights[name].CopyFrom(tensor)
        graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    kept = [t for t in graph.initializer if t.name not in large]
    copies = [copy_tensor(t) for t in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return weights


def copy_tensor(tensor: TensorProto) -> TensorProto:
    """Copy a tensor."""
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def put_weights(model: onnx.ModelProto, weights: Mapping[str, TensorProto]) -> onnx.ModelProto:
    """Undo :func:`take_weights`, in place; weights that no node reads any more are left out."""
    inputs = [v for v in model.graph.input if v.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    used = {name for node in model.graph.node for name in dependencies(node)}
    used.update(output.name for output in model.graph.output)
    model.graph.initializer.extend(t for name, t in weights.items() if name in used)
    return model


def _convert(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises bare RuntimeErrors
        reason = " ".join(str(error).split())[:200]
        why = f"the model does not convert from opset {opset_of(model)} to {OPSET}, which gradients and attacks need"
        if "is_int" in reason:  # the converter's own assertion, for dimensions
            raise DifferentiationError(
                f"{why}: its old ops convert only where the batch size is fixed; export it with a fixed one, or again "
                "at opset 18"
            ) from error
        raise DifferentiationError(f"{why} ({reason}); export it again at opset 18") from error
    converted.ir_version = IR_VERSION
    return converted


def prune(graph: onnx.GraphProto, keep: Collection[str] = ()) -> None:
    """Drop the nodes and initializers that neither an output nor a kept tensor needs."""
    needed = {output.name for output in graph.output} | set(keep)
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(dependencies(node))
    _replace_nodes(graph, kept[::-1])
    if not all(t.name in needed for t in graph.initializer):
        tensors = [copy_tensor(t) for t in graph.initializer if t.name in needed]
        del graph.initializer[:]
        graph.initializer.extend(tensors)


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute small constants, infer shapes, and again while the shapes bring new constants."""
    for _ in range(_ROUNDS):
        model = infer_shapes(model)
        if not _fold_once(model):
            break
        _forget_invented(model.graph)
    return model


def _forget_invented(graph: onnx.GraphProto) -> None:
    """Drop shapes that inference made up names for: new constants tell more, but it keeps what it once said."""
    inferred = {name for node in graph.node if not node.domain for name in node.output}
    kept = [_copied(v) for v in graph.value_info if v.name not in inferred or not _is_invented(v)]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _is_invented(value: onnx.ValueInfoProto) -> bool:
    return any(dim.dim_param.startswith("unk__") for dim in value.type.tensor_type.shape.dim)


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer shapes, also behind ops that onnx's inference does not know."""
    model = infer(model)
    while True:
        info = TensorInfo.of(model.graph)
        found = [
            onnx.helper.make_tensor_value_info(node.output[0], info.elem_type(node.input[0]), info.shape(node.input[0]))
            for node in model.graph.node
            if (node.domain, node.op_type) in _KEEP_SHAPE
            and info.shape(node.output[0]) is None
            and info.shape(node.input[0]) is not None
        ]
        if not found:
            return model
        known = {value.name for value in found}
        others = [_copied(v) for v in model.graph.value_info if v.name not in known]
        del model.graph.value_info[:]
        model.graph.value_info.extend([*others, *found])
        for output in model.graph.output:
            output.CopyFrom(next((v for v in found if v.name == output.name), output))
        model = infer(model)


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _fold_once(model: onnx.ModelProto) -> bool:
    graph = model.graph
    info = TensorInfo.of(graph)
    opsets = list(model.opset_import)
    nodes = []
    for node in graph.node:
        values = _evaluate(node, info, opsets)
        if values is None:
            nodes.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            tensor = numpy_helper.from_array(value, name)
            graph.initializer.append(tensor)
            info.add_constant(tensor)
    changed = len(nodes) < len(graph.node)
    _replace_nodes(graph, nodes)
    return changed


def _evaluate(
    node: onnx.NodeProto, info: TensorInfo, opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[npt.NDArray[np.generic]] | None:
    """Compute a node of small constant inputs and small known outputs, or None."""
    if node.op_type == "Shape":
        return _shape_value(node, info)
    reads = dependencies(node)
    if not reads or node.domain or node.op_type in _RANDOM or not all(name in info.constants for name in reads):
        return None
    sizes = [info.static(name) for name in (*reads, *node.output)]
    if any(size is None or int(np.prod(size)) > _SMALL for size in sizes):
        return None
    inner = onnx.helper.make_graph(
        [node],
        "constant",
        [],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        initializer=[info.constants[name] for name in dict.fromkeys(reads)],
    )
    try:
        found = ReferenceEvaluator(onnx.helper.make_model(inner, opset_imports=opsets)).run(None, {})
    except Exception:  # an op that the reference lacks stays a node
        return None
    arrays = [np.asarray(value) for value in found]
    return arrays if all(a.dtype.kind in "fiub" for a in arrays) else None


def _shape_value(node: onnx.NodeProto, info: TensorInfo) -> list[npt.NDArray[np.generic]] | None:
    shape = info.shape(node.input[0])
    if shape is None:
        return None
    ends = {a.name: a.i for a in node.attribute}
    part = shape[ends.get("start", 0) : ends.get("end", len(shape))]
    known = [d for d in part if isinstance(d, int)]
    return [np.array(known, np.int64)] if len(known) == len(part) else None
