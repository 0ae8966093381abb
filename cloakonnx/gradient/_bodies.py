"""A part of a model as a graph of its own, with what goes back through it: a body, or an op that is written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from cloakonnx.gradient._backward import backpropagate
from cloakonnx.gradient._canonical import IR_VERSION, prune
from cloakonnx.gradient._folding import folded, initialised
from cloakonnx.gradient._path import find_path
from cloakonnx.gradient._site import GradientSite
from cloakonnx.graph.build import Builder, Tensor
from cloakonnx.graph.index.index import Dim, Index, captures, node_inputs

_SMALL = 4096
"""Elements of the largest outer constant that a part copies, so that rules can read its value."""


@dataclass(frozen=True)
class Formal:
    """An input of a body.

    Attributes:
        name: Its name there.
        elem_type: Its element type.
        shape: What is known of its shape.
    """

    name: str
    elem_type: int
    shape: Sequence[Dim] | None


class Part:
    """A copy of a graph that reads tensors of the graph around it, folded, to which its backward part is added.

    Args:
        site: The node that it belongs to.
        graph: A body of the node, or what the node is written out to; with its outputs.
        formals: The body's inputs.
        straight_through: Whether gradients pass rounding.

    Attributes:
        outputs: The names of the graph's outputs.
        index: What is known of the copy's tensors.
        build: Where the backward part is emitted.
    """

    def __init__(
        self,
        site: GradientSite,
        graph: onnx.GraphProto,
        formals: Sequence[Formal] = (),
        *,
        straight_through: bool = False,
    ) -> None:
        self.outputs = [output.name for output in graph.output]
        self._site, self._passes = site, straight_through
        outside = {name for name in captures(graph) if name} - {each.name for each in formals}
        known = site.index.initializers
        held = [known[name] for name in sorted(outside & set(known)) if math.prod(known[name].dims) <= _SMALL]
        self._held = {tensor.name for tensor in held}
        read = sorted(outside - self._held)
        more = [Formal(name, site.index.elem_type(name), site.index.shape(name)) for name in read]
        copy = onnx.GraphProto(name="part")
        copy.node.extend(graph.node)
        copy.initializer.extend([*graph.initializer, *held])
        copy.input.extend(onnx.helper.make_tensor_value_info(f.name, f.elem_type, f.shape) for f in (*formals, *more))
        copy.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(self.outputs))
        domains = {node.domain for node in graph.node} - {"", "ai.onnx"}
        opsets = [onnx.helper.make_opsetid("", site.build.opset)]
        opsets += [onnx.helper.make_opsetid(domain, 1) for domain in sorted(domains)]
        model = onnx.helper.make_model(copy, opset_imports=opsets, ir_version=IR_VERSION)
        self._graph = folded(initialised(model)).graph
        self.index = Index(self._graph)
        prefix = f"{site.build.own('part')}/"
        self.build = Builder(
            self._graph, self.index, opset=site.build.opset, provider=site.build.provider, prefix=prefix
        )

    def outer(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the graph around this one, as this one sees it."""
        self.index.learn(tensor.name, tensor.elem_type, tensor.dims)
        return self.build.tensor(tensor.name)

    def gradients(self, seeds: Sequence[tuple[str, Tensor]], variables: Sequence[str]) -> dict[str, Tensor]:
        """Emit the gradients of tensors, for those of the outputs; none where nothing comes back."""
        given: dict[str, Tensor] = {}
        for name, grad in seeds:  # an output may be given twice
            given[name] = given[name] + grad if name in given else grad
        path = find_path(list(self._graph.node), self.index, given, variables, straight_through=self._passes)
        return backpropagate(self.build, path, given, list(variables))

    def output(self, tensor: Tensor | None, like: Tensor | None = None) -> Tensor:
        """Return a tensor as an output under a name of its own; zeros in the shape of another where it is None."""
        found = like.zeros() if tensor is None and like is not None else tensor
        assert found is not None
        return found.op("Identity", name=self._site.build.own("grad"))

    def kept(self, outputs: Sequence[Tensor], like: Sequence[Sequence[Dim] | None] = ()) -> set[str]:
        """Keep what some outputs need, and return the names that this reads.

        Args:
            outputs: The outputs.
            like: Their shapes; a Scan needs their ranks, which ONNX Runtime does not always find.
        """
        del self._graph.output[:]
        shapes = like or [None] * len(outputs)
        for tensor, shape in zip(outputs, shapes, strict=True):
            sizes = None if shape is None else [d if isinstance(d, int) else None for d in shape]
            self._graph.output.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.elem_type, sizes))
        prune(self._graph)
        return {name for node in self._graph.node for name in node_inputs(node)}

    def body(self, inputs: Sequence[str] = ()) -> onnx.GraphProto:
        """Return the graph as a body with these inputs, in order; all else that it reads comes from outside."""
        found = {value.name: value for value in self._graph.input}
        copies = [onnx.ValueInfoProto.FromString(found[name].SerializeToString()) for name in inputs]
        del self._graph.input[:], self._graph.value_info[:]
        self._graph.input.extend(copies)
        return self._graph

    def spliced(self) -> None:
        """Put the nodes and constants among those of the graph around this one."""
        build = self._site.build
        for tensor in self._graph.initializer:
            if tensor.name not in self._held:
                build.graph.initializer.append(tensor)
                build.index.add_initializer(tensor)
        build.graph.node.extend(self._graph.node)


def body_of(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    """Return a body of a node, to be changed."""
    return next(attribute.g for attribute in node.attribute if attribute.name == name)
