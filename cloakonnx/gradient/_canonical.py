"""The canonical form that the rules read: one opset, no functions, no constant work left, shapes inferred."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
import onnx.version_converter
from onnx import TensorProto

from cloakonnx.errors import DifferentiationError
from cloakonnx.gradient._folding import SMALL, folded, initialised, replace_nodes, unbranched
from cloakonnx.gradient._fusion import fuse_normalization
from cloakonnx.gradient._opset import OPSET, opset_of
from cloakonnx.gradient._resampling import resampled
from cloakonnx.graph.index import functions
from cloakonnx.graph.index.bounds import check_constants
from cloakonnx.graph.index.index import node_inputs
from cloakonnx.graph.index.node import describe
from cloakonnx.graph.index.normal import normalised

IR_VERSION = 10
"""The newest IR version that every onnxruntime from 1.22 on reads."""


@dataclass(frozen=True)
class Job:
    """Settings of the steps to the canonical form.

    Attributes:
        keep: Tensors that must survive although no output needs them.
        shapes: Dimensions to fix at inputs, None for those that stay as they are.
        weights: Large initializers, taken out of the model and replaced by inputs.
    """

    keep: Collection[str] = ()
    shapes: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    weights: Mapping[str, TensorProto] = field(default_factory=dict)


Step: TypeAlias = Callable[[onnx.ModelProto, Job], onnx.ModelProto]
"""Returns a model, the one that it was given or another; a step may change the model that it is given."""


def canonical(
    model: onnx.ModelProto,
    *,
    output: str | None = None,
    keep: Collection[str] = (),
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    then: Sequence[Step] = (),
) -> onnx.ModelProto:
    """Return the model in canonical form; the model itself is not changed.

    Local functions are inlined, initializers are no inputs, opsets below 18 are converted, small constant parts are
    computed, batch normalisation is fused, dead nodes are gone and shapes inferred.

    Args:
        model: A model; large weights may be references.
        output: The tensor that is the only output; None where all outputs stay.
        keep: Tensors that must survive although no output needs them.
        shapes: Dimensions to fix at inputs, None for those that stay as they are.
        then: Further steps, while the weights are still out.

    Raises:
        DifferentiationError: The model cannot be brought to opset 18.
    """
    work = onnx.ModelProto()
    work.CopyFrom(normalised(model))
    if output is not None:
        _give_only(work.graph, output)
    job = Job(keep, shapes or {})
    for step in CLEARING:
        work = step(work, job)
    job = Job(keep, shapes or {}, _taken_weights(work.graph))
    for step in (*LIGHT, *then):
        work = step(work, job)
    return _with_weights(work, job.weights)


def _give_only(graph: onnx.GraphProto, name: str) -> None:
    """Have a tensor be the only output: others may be of types that no step here knows."""
    known = next((v.SerializeToString() for v in graph.output if v.name == name), None)
    del graph.output[:]
    graph.output.append(onnx.ValueInfoProto(name=name) if known is None else onnx.ValueInfoProto.FromString(known))


def inlined(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Inline local functions, and lower the IR version."""
    model = functions.inlined(model)
    model.ir_version = IR_VERSION
    if all(each.domain not in {"", "ai.onnx"} for each in model.opset_import):  # of ai.onnx.ml alone
        model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return model


def checked(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Raise for a tensor that a node reads and nothing makes; the converter's message names neither."""
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


def unshared(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Have LpNormalization stand for the Normalizer of ai.onnx.ml by length.

    ONNX Runtime's kernel loses the signs where it writes over its input, which it does once shapes are known.
    """
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        norm = next((each.s for each in node.attribute if each.name == "norm"), b"MAX")
        if (node.domain, node.op_type, norm) != ("ai.onnx.ml", "Normalizer", b"L2"):
            nodes.append(node)
            continue
        number = f"{node.output[0]}/float"
        nodes.append(onnx.helper.make_node("Cast", node.input, [number], to=TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("LpNormalization", [number], node.output, name=node.name, axis=-1, p=2))
    replace_nodes(model.graph, nodes)
    return model


def bounded(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Raise where constants would be above the limits, now that the shape of the data is known."""
    check_constants(model)
    return model


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


def _taken_weights(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Move large initializers out, leaving inputs in their place, so that passes over the model do not copy them."""
    large = {t.name: t for t in graph.initializer if int(np.prod(t.dims)) > SMALL}
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
    resampled(model, newer.graph)
    return initialised(newer)


def prune(graph: onnx.GraphProto, keep: Collection[str] = ()) -> None:
    """Drop the nodes and initializers that neither an output nor a kept tensor needs."""
    needed = {output.name for output in graph.output} | set(keep)
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_inputs(node))
    replace_nodes(graph, kept[::-1])
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


def constants(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Turn Constant nodes into initializers."""
    return initialised(model)


def branches(model: onnx.ModelProto, _: Job) -> onnx.ModelProto:
    """Replace each If with a constant condition by the branch that runs."""
    return unbranched(model)


def computed(model: onnx.ModelProto, job: Job) -> onnx.ModelProto:
    """Compute what is constant and nobody asked for, and infer shapes."""
    return folded(model, apart=job.keep)


CLEARING: tuple[Step, ...] = (inlined, checked, cleared, sized, bounded, constants, branches, unshared)
"""The first steps, which see the model with its weights."""

LIGHT: tuple[Step, ...] = (converted, pruned, computed, fused, pruned)
"""The other steps; the weights are out, so that nothing copies them."""
