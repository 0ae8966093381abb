"""An If whose condition never changes, replaced by the branch that runs."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from cloakonnx.graph.index.index import structure, subgraphs


def without_fixed_branches(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the nodes of the branch that runs in the place of each If with a constant condition, in the model itself.

    Initializers hold the constants. A branch that holds control flow of its own stays in its If.
    """
    graph = model.graph
    if all(node.op_type != "If" for node in graph.node):
        return model
    conditions = {t.name: t for t in graph.initializer}
    taken = structure(model).names()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        condition = conditions.get(node.input[0]) if node.op_type == "If" else None
        branch = None if condition is None else _chosen(node, bool(numpy_helper.to_array(condition).all()))
        if branch is None or any(True for inner in branch.node for _ in subgraphs(inner)):
            nodes.append(node)
            continue
        nodes.extend(_inlined(branch, node, graph, taken))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return model


def _chosen(node: onnx.NodeProto, condition: bool) -> onnx.GraphProto | None:
    name = "then_branch" if condition else "else_branch"
    return next((a.g for a in node.attribute if a.name == name), None)


def _inlined(
    branch: onnx.GraphProto, node: onnx.NodeProto, graph: onnx.GraphProto, taken: set[str]
) -> list[onnx.NodeProto]:
    """Return a branch's nodes under names that are free outside, its outputs under the names of the If's."""
    inner = {name for each in branch.node for name in each.output if name} | {t.name for t in branch.initializer}
    names: dict[str, str] = {}
    for name in inner:
        new = f"{node.output[0]}/{name}"
        while new in taken:
            new += "_"
        taken.add(new)
        names[name] = new
    for tensor in branch.initializer:
        graph.initializer.append(tensor)
        graph.initializer[-1].name = names[tensor.name]
    made = []
    for each in branch.node:
        copy = onnx.NodeProto.FromString(each.SerializeToString())
        copy.input[:] = [names.get(name, name) for name in each.input]
        copy.output[:] = [names.get(name, name) for name in each.output]
        made.append(copy)
    for given, output in zip(branch.output, node.output, strict=True):
        if output:
            made.append(onnx.helper.make_node("Identity", [names.get(given.name, given.name)], [output]))
    return made
