"""The canonical form that the rules read: one opset, no functions, no constant work left, shapes inferred."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient._branches import without_fixed_branches
from cloakonnx.gradient._fusion import fuse_normalization
from cloakonnx.graph.index import functions
from cloakonnx.graph.index.bounds import check_constants
from cloakonnx.graph.index.index import Index, node_inputs, subgraphs
from cloakonnx.graph.index.node import describe
from cloakonnx.graph.index.normal import normalised
from cloakonnx.graph.index.shapes import infer
from cloakonnx.graph.index.traits import Trait, has

OPSET = 18
"""Models of an older opset are converted to this one."""

IR_VERSION = 10
"""The newest IR version that every onnxruntime from 1.22 on reads."""

_SMALL = 1 << 16
"""Elements up to which a constant is computed here; the runtime folds larger ones."""

_ROUNDS = 4


@dataclass(frozen=True)
class Job:
    """What the steps to the canonical form heed.

    Attributes:
        keep: Tensors that must survive although no output needs them.
        shapes: Dimensions to fix at inputs, None for those that stay as they are.
        weights: Large initializers that are out of the model, inputs in their place.
    """

    keep: Collection[str] = ()
    shapes: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    weights: Mapping[str, TensorProto] = field(default_factory=dict)


Step: TypeAlias = Callable[[onnx.ModelProto, Job], onnx.ModelProto]
"""Returns a model, the one that it was given or another; a step may change the model that it is given."""


def canonical(
    model: onnx.ModelProto,
    *,
    keep: Collection[str] = (),
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    then: Sequence[Step] = (),
) -> onnx.ModelProto:
    """Return the model in canonical form; the model itself is not changed.

    Local functions are inlined, initializers are no inputs, opsets below 18 are converted, small constant parts are
    computed, batch normalisation is fused, dead nodes are gone and shapes inferred.

    Args:
        model: A model with all its weights inline.
        keep: Tensors that must survive although no output needs them.
        shapes: Dimensions to fix at inputs, None for those that stay as they are.
        then: Further steps, while the weights are still out.

    Raises:
        DifferentiationError: The model cannot be brought to opset 18.
    """
    work = onnx.ModelProto()
    work.CopyFrom(normalised(model))
    job = Job(keep, shapes or {})
    for step in CLEARING:
        work = step(work, job)
    job = Job(keep, shapes or {}, _taken_weights(work.graph))
    for step in (*LIGHT, *then):
        work = step(work, job)
    return _with_weights(work, job.weights)


def inlined(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Inline local functions, and lower the IR version."""
    model = functions.inlined(model)
    model.ir_version = IR_VERSION
    return model


def checked(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Raise for a tensor that a node reads and nothing makes; the converter's words name neither node nor file."""
    graph = model.graph
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
    return model


def cleared(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Drop what the model claims of its inside: shapes are inferred anew, initializers are no inputs."""
    graph = model.graph
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
    return model


def sized(model: onnx.ModelProto, job: Job) -> onnx.ModelProto:
    """Fix the dimensions of inputs that are given, and name the others, so that equal ones are known to be equal."""
    for value in model.graph.input:
        _fix_dims(value, job.shapes.get(value.name))
    return model


def bounded(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Raise where constants would be above the limits, now that the shape of the data is known."""
    check_constants(model)
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)


def _fix_dims(value: onnx.ValueInfoProto, sizes: Sequence[int | None] | None) -> None:
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


def initialised(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Turn Constant nodes into initializers."""
    nodes = []
    for node in model.graph.node:
        tensor = _constant_of(node) if node.op_type == "Constant" and not node.domain else None
        if tensor is None:
            nodes.append(node)
            continue
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    _replace_nodes(model.graph, nodes)
    return model


def unbranched(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Replace each If with a constant condition by the branch that runs."""
    return initialised(without_fixed_branches(model), _)


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


def _taken_weights(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Move large initializers out, leaving inputs in their place, so that passes over the model do not copy them."""
    large = {t.name: t for t in graph.initializer if int(np.prod(t.dims)) > _SMALL}
    if not large:
        return {}
    weights = {name: copy_tensor(tensor) for name, tensor in large.items()}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)) for name, tensor in large.items()
    )
    copies = [copy_tensor(t) for t in graph.initializer if t.name not in large]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return weights


def copy_tensor(tensor: TensorProto) -> TensorProto:
    """Copy a tensor."""
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _with_weights(model: onnx.ModelProto, weights: Mapping[str, TensorProto]) -> onnx.ModelProto:
    """Undo :func:`_taken_weights`, in place; weights that no node reads any more are left out."""
    inputs = [v for v in model.graph.input if v.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    used = {name for node in model.graph.node for name in node_inputs(node)}
    used.update(output.name for output in model.graph.output)
    model.graph.initializer.extend(t for name, t in weights.items() if name in used)
    return model


def converted(model: onnx.ModelProto, job: Job) -> onnx.ModelProto:
    """Bring a model of an older opset to opset 18."""
    if opset_of(model) >= OPSET:
        return model
    try:
        newer = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises bare RuntimeErrors
        reason = " ".join(str(error).split())[:200]
        why = f"the model does not convert from opset {opset_of(model)} to {OPSET}, which gradients and attacks need"
        if "is_int" in reason:  # the converter's own assertion, for dimensions
            raise DifferentiationError(
                f"{why}: its old ops convert only where the batch size is fixed; export it with a fixed one, or again "
                "at opset 18"
            ) from error
        raise DifferentiationError(f"{why} ({reason}); export it again at opset 18") from error
    newer.ir_version = IR_VERSION
    return initialised(newer, job)


def prune(graph: onnx.GraphProto, keep: Collection[str] = ()) -> None:
    """Drop the nodes and initializers that neither an output nor a kept tensor needs."""
    needed = {output.name for output in graph.output} | set(keep)
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_inputs(node))
    _replace_nodes(graph, kept[::-1])
    if not all(t.name in needed for t in graph.initializer):
        tensors = [copy_tensor(t) for t in graph.initializer if t.name in needed]
        del graph.initializer[:]
        graph.initializer.extend(tensors)


def pruned(model: onnx.ModelProto, job: Job) -> onnx.ModelProto:
    """Drop what nothing needs."""
    prune(model.graph, job.keep)
    return model


def fused(model: onnx.ModelProto, job: Job) -> onnx.ModelProto:
    """Move batch normalisation into the convolutions before it."""
    fuse_normalization(model.graph, job.keep, job.weights)
    return model


def folded(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Compute small constants, infer shapes, and again while the shapes bring new constants."""
    for _round in range(_ROUNDS):
        model = infer(model)
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


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _fold_once(model: onnx.ModelProto) -> bool:
    graph = model.graph
    index = Index(graph)
    opsets = list(model.opset_import)
    nodes = []
    for node in graph.node:
        values = _evaluate(node, index, opsets)
        if values is None:
            nodes.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            tensor = numpy_helper.from_array(value, name)
            graph.initializer.append(tensor)
            index.add_initializer(tensor)
    changed = len(nodes) < len(graph.node)
    _replace_nodes(graph, nodes)
    return changed


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
    if any(size is None or int(np.prod(size)) > _SMALL for size in sizes):
        return None
    inner = onnx.helper.make_graph(
        [node],
        "constant",
        [],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        initializer=[index.initializers[name] for name in dict.fromkeys(reads)],
    )
    try:
        found = ReferenceEvaluator(onnx.helper.make_model(inner, opset_imports=opsets)).run(None, {})
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


CLEARING: tuple[Step, ...] = (inlined, checked, cleared, sized, bounded, initialised, unbranched)
"""The first steps, which see the model with its weights."""

LIGHT: tuple[Step, ...] = (converted, pruned, folded, fused, pruned)
"""The other steps; the weights are out, so that nothing copies them."""
